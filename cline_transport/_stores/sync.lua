-- LimitState.sync of limits.py, within Redis: one key, one round trip, Redis's own clock.
-- KEYS[1]: the state of one API key at one host. ARGV: rules, report, random, and the time for tests.
local interval, burst, concurrency = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local adaptive, lease = ARGV[4] == '1', tonumber(ARGV[5])
local name, held, waiting = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local cooldown, accepted, refused = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local overloaded, age, random = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local now = tonumber(ARGV[15])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local SPREAD, SOON, IN_LINE, KEPT = 0.25, 1e-6, 1.0, 600

local packed = redis.call('GET', KEYS[1])
local s = packed and cmsgpack.unpack(packed) or {
  seen = 0, due = {}, cool_until = 0, cool_next = 0, cool_end = 0, turns = 0, workers = {},
  limit = 4, pressed = false, starting = true, credit = 0, decreased = 0, fast = 0, slow = 0,
}

-- _keep_time
local back = s.seen - now
s.seen = now
if back > 0 then
  s.cool_until = s.cool_until - back
  s.cool_next = s.cool_next - back
  s.cool_end = s.cool_end - back
  s.decreased = s.decreased - back
  for each, due in pairs(s.due) do s.due[each] = due - back end
  for _, worker in pairs(s.workers) do worker.asked = worker.asked - back end
end
for other, worker in pairs(s.workers) do
  if worker.lease > 0 and worker.asked + worker.lease <= now then s.workers[other] = nil end
end
for each, due in pairs(s.due) do
  if due <= now then s.due[each] = nil end
end

-- _note
local me = s.workers[name] or {held = 0, waiting = 0, lease = 0, turn = 0, asked = 0}
s.workers[name] = me
if me.waiting == 0 and waiting > 0 then
  s.turns = s.turns + 1
  me.turn = s.turns
end
me.held, me.waiting, me.asked, me.lease = held, waiting, now, lease
local pace = 'every ' .. ARGV[1]
if cooldown > 0 and now + cooldown > s.cool_until then
  s.cool_until = now + cooldown
  s.cool_next = s.cool_until
  s.cool_end = s.cool_until + SPREAD * cooldown
  s.due[pace] = math.max(s.due[pace] or 0, s.cool_until + (burst - 1) * interval)
end

-- _line, and what is held and waited for in all
local count, others, all_waiting, ahead, behind = 0, -held, 0, 0, 0
for _, worker in pairs(s.workers) do
  count = count + 1
  others = others + worker.held
  all_waiting = all_waiting + worker.waiting
  if worker.waiting > 0 and now - worker.asked <= IN_LINE then
    if worker.turn < me.turn then ahead = ahead + 1 end
    if worker.turn > me.turn then behind = behind + 1 end
  end
end

-- Adaptive.learn
local limit = concurrency
if adaptive then
  for i = 1, accepted + overloaded do
    local share = i > accepted and 1 or 0
    s.fast = s.fast + (share - s.fast) * 0.1
    s.slow = s.slow + (share - s.slow) * 0.01
  end
  local rising = overloaded > 0 and s.fast > 2 * s.slow + 0.1
  if refused > 0 or rising then
    if now - age >= s.decreased then
      local under_way = s.pressed and others + held + refused + overloaded or s.limit
      s.limit = math.max(1, s.limit / 2, math.min(s.limit, under_way) * 0.9)
      s.decreased = now
      s.credit = 0
      s.starting = false
    end
  elseif s.pressed and s.starting then
    s.limit = s.limit + accepted
  elseif s.pressed then
    s.credit = s.credit + accepted
    if s.credit >= math.max(40, s.limit) then
      s.credit = 0
      s.limit = s.limit + 1
    end
  end
  limit = math.floor(s.limit)
end

local function gap()
  return (s.cool_end - s.cool_next) / math.max(1, all_waiting)
end

-- _hold
local function hold(in_use)
  if now < s.cool_until - SOON then return s.cool_until - now, 'cooldown' end
  if now < s.cool_end then
    local at = s.cool_next + ahead * gap()
    if now < at - SOON then return at - now, 'cooldown' end
  end
  if limit > 0 and in_use + ahead >= limit then return 0, 'concurrency' end
  local at = (s.due[pace] or 0) + (ahead - burst + 1) * interval
  if interval > 0 and now < at - SOON then return at - now, 'pace' end
  return 0, ''
end

local most = waiting
if ahead + behind > 0 then most = math.min(1, waiting) end
local granted, wait, reason = 0, 0, ''
while granted < most do
  wait, reason = hold(others + held + granted)
  if reason ~= '' then break end
  if now < s.cool_end and all_waiting > 1 then
    s.cool_next = math.min(s.cool_end, s.cool_next + 2 * random * gap())
  end
  if interval > 0 then s.due[pace] = math.max(s.due[pace] or 0, now) + interval end
  granted = granted + 1
  me.waiting = me.waiting - 1
  all_waiting = all_waiting - 1
end
me.held = me.held + granted
if granted > 0 then
  s.turns = s.turns + 1
  me.turn = s.turns
end
if reason == 'concurrency' then
  s.pressed = true
elseif others + me.held < limit and me.waiting == 0 and ahead + behind == 0 then
  s.pressed = false
end

local left = math.max(0, s.cool_until - now)
redis.call('SET', KEYS[1], cmsgpack.pack(s), 'EX', math.ceil(KEPT + lease + left))
local function exact(number) return string.format('%.17g', number) end
return {granted, exact(wait), reason, ahead, limit, others, exact(left), count}
