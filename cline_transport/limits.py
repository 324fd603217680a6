# SPDX-License-Identifier: Apache-2.0
"""How long a call has to wait before an attempt: cooldown, pace and concurrency, as arithmetic.

It has no clock, no lock and no I/O: told the time and what a worker holds and wants, it says how
many calls may go and when to ask again. A worker is whoever waits for many calls: a process, where
limits are shared. `_stores/sync.lua` is the same arithmetic within Redis; a test compares the two.

- Cooldown: after a 429 nobody goes until its `Retry-After` is over; then in order of arrival,
  spread over a quarter of that time.
- Pace: the generic cell rate algorithm (ITU-T I.371), which is a token bucket in one number.
- Concurrency: permits. `"adaptive"` finds their number by additive increase and multiplicative
  decrease, as TCP does (RFC 5681, section 3.1) and Netflix's concurrency-limits (`AIMDLimit`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, NamedTuple

from cline_transport._adaptive import Adaptive
from cline_transport._checks import FORBID_UNKNOWN, check_flags, check_number, shown_url

__all__ = [
    "PATIENCE",
    "SPREAD",
    "Answer",
    "LimitSettings",
    "LimitState",
    "Reason",
    "Report",
    "Rules",
]

Reason = Literal["cooldown", "pace", "concurrency"]

SPREAD: Final = 0.25
"""The share of a cooldown over which those who waited for its end are spread."""

PATIENCE: Final = 0.1
"""Seconds for which a storage that shares limits may connect, or answer; then local ones hold."""

_SOON: Final = 1e-6
"""Seconds that nobody waits: a sleep is not that exact, and a sum of floats neither."""

_IN_LINE: Final = 1.0
"""Seconds for which a worker that waits keeps its place without asking again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """How calls with the same key to the same host are held back.

    Attributes:
        cooldown: After a 429 that says how long to wait, hold the other calls back until then.
        requests_per_second: Requests that may be sent in a second; none by default. With
            `requests_per_minute` the stricter one holds.
        requests_per_minute: Requests that may be sent in a minute, evenly: 60 is one each second.
        burst: Requests that may go at once after a pause; by default what 0.2 s allow, at least 2.
        max_concurrency: Attempts under way at once, each until its body ends: a number, or
            `adaptive` to find it. None by default.
        storage: Where the limits are shared by many processes: `redis://host:6379`, also
            `rediss://`, `redis+unix://`, `redis+sentinel://`, `redis+cluster://` and `valkey://`;
            needs the extra `redis`, and `valkey` for the last. In this process by default.
        lease: Seconds after which the permits of a process that died are free again; only with
            `storage`.

    Raises:
        ValueError: A value is out of its range; the message gives the rule and the value.

    Example:
        ```python
        Settings(limits=LimitSettings(requests_per_minute=600, max_concurrency=10))
        ```
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = FORBID_UNKNOWN

    cooldown: bool = True
    requests_per_second: float | None = None
    requests_per_minute: float | None = None
    burst: int | None = None
    max_concurrency: int | Literal["adaptive"] | None = None
    storage: str | None = field(default=None, repr=False)  # it may hold a password
    lease: float = 10.0

    def __post_init__(self) -> None:
        check_flags(self, "cooldown")
        for name in ("requests_per_second", "requests_per_minute"):
            rate = getattr(self, name)
            if rate is not None and not _is_rate(rate):
                raise ValueError(
                    f"LimitSettings.{name} must be a number between {_LEAST} and {_MOST} "
                    f"(got {rate!r})"
                )
        if self.burst is not None and (type(self.burst) is not int or not 1 <= self.burst <= _MOST):
            raise ValueError(
                f"LimitSettings.burst must be a whole number between 1 and {_MOST} "
                f"(got {self.burst!r})"
            )
        if self.max_concurrency not in (None, "adaptive") and (
            type(self.max_concurrency) is not int or self.max_concurrency < 1
        ):
            raise ValueError(
                "LimitSettings.max_concurrency must be a whole number >= 1 or 'adaptive' "
                f"(got {self.max_concurrency!r})"
            )
        if self.storage is not None and not _is_storage(self.storage):
            raise ValueError(
                "LimitSettings.storage must be a URL that begins with one of "
                f"{', '.join(f'{scheme}://' for scheme in _SCHEMES)} "
                f"(got {shown_url(str(self.storage))!r})"
            )
        check_number("LimitSettings", "lease", self.lease, least=1, most=3600)

    @property
    def active(self) -> bool:
        """Whether there is more than the cooldown: a rate, a concurrency or a storage."""
        return (
            self.requests_per_second is not None
            or self.requests_per_minute is not None
            or self.max_concurrency is not None
            or self.storage is not None
        )


_LEAST: Final = 0.0001
_MOST: Final = 1_000_000
_SCHEMES: Final = (
    "redis", "rediss", "redis+unix", "redis+sentinel", "redis+cluster",
    "valkey", "valkeys", "valkey+unix", "valkey+sentinel", "valkey+cluster",
)  # fmt: skip


def _is_rate(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return _LEAST <= value <= _MOST


def _is_storage(value: object) -> bool:
    if not isinstance(value, str):
        return False
    scheme, separator, rest = value.partition("://")
    return scheme in _SCHEMES and bool(separator and rest)


class Rules(NamedTuple):
    """`LimitSettings` as the arithmetic needs them.

    Attributes:
        interval: Seconds from one request to the next; 0: no pace.
        burst: Requests that may go at once.
        concurrency: Permits; 0: as many as are asked for, or as many as are found.
        adaptive: Whether they are found.
        lease: Seconds after which a worker that says nothing is gone; 0: never.
    """

    interval: float
    burst: int
    concurrency: int
    adaptive: bool
    lease: float

    @classmethod
    def of(cls, settings: LimitSettings) -> Rules:
        """The rules of these settings.

        Examples:
            >>> Rules.of(LimitSettings(requests_per_minute=600)).interval
            0.1
        """
        rates = (settings.requests_per_second, (settings.requests_per_minute or math.inf) / 60)
        rate = min(rate or math.inf for rate in rates)
        burst = settings.burst or max(2, math.ceil(rate / 5) if rate < math.inf else 2)
        permits = settings.max_concurrency
        return cls(
            interval=0.0 if rate == math.inf else 1 / rate,
            burst=burst,
            concurrency=permits if isinstance(permits, int) else 0,
            adaptive=permits == "adaptive",
            lease=0.0 if settings.storage is None else settings.lease,
        )

    @property
    def counts(self) -> bool:
        """Whether attempts under way are counted."""
        return self.adaptive or self.concurrency > 0

    def share(self, workers: int) -> Rules:
        """What one of so many workers may do by itself, while they cannot agree."""
        return self._replace(
            interval=self.interval * workers,
            burst=max(1, self.burst // workers),
            concurrency=self.concurrency and max(1, self.concurrency // workers),
            lease=0.0,
        )


class Report(NamedTuple):
    """What a worker tells of itself: all of it each time, so that no message is missed.

    Attributes:
        worker: Its name.
        held: Attempts of it that are under way.
        waiting: Calls of it that wait.
        cooldown: Seconds from now that the API asked it to wait; 0: it did not.
        accepted: Attempts that were answered well since the last report.
        refused: Attempts that were answered with 429 since then.
        overloaded: The same with 503.
        age: Seconds since the latest begun of those two began.
    """

    worker: str
    held: int = 0
    waiting: int = 0
    cooldown: float = 0.0
    accepted: int = 0
    refused: int = 0
    overloaded: int = 0
    age: float = 0.0


class Answer(NamedTuple):
    """What a worker may do.

    Attributes:
        granted: So many calls, of those that waited longest, may go now.
        wait: Seconds after which another may; 0: when somebody gives a permit back, or at once if
            there is no `reason`.
        reason: Why the next one may not go; `None`: it may, or nobody waits.
        ahead: Workers whose turn comes first.
        limit: Permits that there are; 0: there is no limit.
        held: Permits that the others hold.
        cooldown: Seconds for which nobody goes.
        workers: Workers that are there, with this one.
    """

    granted: int
    wait: float
    reason: Reason | None
    ahead: int
    limit: int
    held: int
    cooldown: float
    workers: int


@dataclass(slots=True)
class _Worker:
    held: int = 0
    waiting: int = 0
    lease: float = 0.0
    turn: int = 0
    """Its place in the line of those that wait: the lowest comes first."""
    asked: float = 0.0


@dataclass(slots=True)
class LimitState:
    """What is known of one key at one host.

    Examples:
        >>> state, rules = LimitState(), Rules.of(LimitSettings(max_concurrency=1))
        >>> state.sync(rules, Report("a", waiting=2), now=0.0, random=0.0).granted
        1
    """

    seen: float = 0.0
    """The latest time there was."""
    due: dict[float, float] = field(default_factory=dict[float, float])
    """For each interval when the next request is due (GCRA's theoretical arrival time)."""
    cool_until: float = 0.0
    cool_next: float = 0.0
    """When the next of those who waited for its end may go."""
    cool_end: float = 0.0
    """When all of them have gone."""
    turns: int = 0
    workers: dict[str, _Worker] = field(default_factory=dict[str, _Worker])
    adaptive: Adaptive = field(default_factory=Adaptive)

    def sync(self, rules: Rules, report: Report, *, now: float, random: float) -> Answer:
        """Take a worker's report, and say how many of its calls may go.

        Args:
            rules: The limits.
            report: What it holds and wants.
            now: The time in seconds; it should not go back, and may.
            random: A number in [0, 1) that spreads those who waited for a cooldown's end.
        """
        self._keep_time(now)
        me = self._note(rules, report, now)
        others = sum(worker.held for worker in self.workers.values()) - report.held
        if rules.adaptive:
            self.adaptive.learn(
                report.accepted,
                report.refused,
                report.overloaded,
                age=report.age,
                held=others + report.held,
                now=now,
            )
        limit = int(self.adaptive.limit) if rules.adaptive else rules.concurrency
        ahead, behind = self._line(me, now)
        most = min(1, report.waiting) if ahead or behind else report.waiting
        granted, wait, reason = 0, 0.0, None
        while granted < most:
            held = others + report.held + granted
            wait, reason = self._hold(rules, now, limit=limit, held=held, ahead=ahead)
            if reason is not None:
                break
            self._go(rules, now, random)
            granted += 1
            me.waiting -= 1
        me.held += granted
        if granted:
            self.turns += 1
            me.turn = self.turns
        if reason == "concurrency":
            self.adaptive.pressed = True
        elif others + me.held < limit and me.waiting == 0 and not ahead and not behind:
            self.adaptive.pressed = False
        return Answer(
            granted=granted,
            wait=wait,
            reason=reason,
            ahead=ahead,
            limit=limit,
            held=others,
            cooldown=max(0.0, self.cool_until - now),
            workers=len(self.workers),
        )

    def cool(self, rules: Rules, seconds: float, now: float) -> None:
        """Nobody goes for so many seconds."""
        if now + seconds <= self.cool_until:
            return
        self.cool_until = self.cool_next = now + seconds
        self.cool_end = self.cool_until + SPREAD * seconds
        # Who is refused has nothing left of a burst there, nor here.
        empty = self.cool_until + (rules.burst - 1) * rules.interval
        self.due[rules.interval] = max(self.due.get(rules.interval, 0.0), empty)

    def over(self, now: float) -> bool:
        """Whether nobody would have to wait, and what is known of the past is of no use."""
        return max(self.cool_end, *self.due.values(), 0.0) <= now

    def _keep_time(self, now: float) -> None:
        """A clock that is set back takes all times with it; who is silent for its lease is gone."""
        back = self.seen - now
        self.seen = now
        if back > 0:
            self.cool_until -= back
            self.cool_next -= back
            self.cool_end -= back
            self.adaptive.decreased -= back
            self.due = {interval: due - back for interval, due in self.due.items()}
            for worker in self.workers.values():
                worker.asked -= back
        for name, worker in list(self.workers.items()):
            if worker.lease and worker.asked + worker.lease <= now:
                del self.workers[name]
        self.due = {interval: due for interval, due in self.due.items() if due > now}

    def _note(self, rules: Rules, report: Report, now: float) -> _Worker:
        me = self.workers.setdefault(report.worker, _Worker())
        if me.waiting == 0 and report.waiting > 0:
            self.turns += 1
            me.turn = self.turns
        me.held, me.waiting, me.asked, me.lease = report.held, report.waiting, now, rules.lease
        if report.cooldown > 0:
            self.cool(rules, report.cooldown, now)
        return me

    def _line(self, me: _Worker, now: float) -> tuple[int, int]:
        """How many workers wait whose turn comes before, and after, this one's."""
        line = [w.turn for w in self.workers.values() if w.waiting and now - w.asked <= _IN_LINE]
        ahead = sum(turn < me.turn for turn in line)
        return ahead, sum(turn > me.turn for turn in line)

    @property
    def _waiting(self) -> int:
        """How many calls wait, of all workers."""
        return sum(worker.waiting for worker in self.workers.values())

    def _gap(self) -> float:
        """Seconds between two of those who waited for the cooldown's end, on average."""
        return (self.cool_end - self.cool_next) / max(1, self._waiting)

    def _hold(
        self, rules: Rules, now: float, *, limit: int, held: int, ahead: int
    ) -> tuple[float, Reason | None]:
        """Why the next call may not go now, and for how many seconds."""
        if now < self.cool_until - _SOON:
            return self.cool_until - now, "cooldown"
        if now < self.cool_end:
            at = self.cool_next + ahead * self._gap()
            if now < at - _SOON:
                return at - now, "cooldown"
        if limit and held + ahead >= limit:
            return 0.0, "concurrency"
        at = self.due.get(rules.interval, 0.0) + (ahead - rules.burst + 1) * rules.interval
        if rules.interval and now < at - _SOON:
            return at - now, "pace"
        return 0.0, None

    def _go(self, rules: Rules, now: float, random: float) -> None:
        """A call goes."""
        if now < self.cool_end and self._waiting > 1:
            # In all, the gaps fill the time that is left, however many wait. The last leaves none.
            self.cool_next = min(self.cool_end, self.cool_next + 2 * random * self._gap())
        if rules.interval:
            self.due[rules.interval] = max(self.due.get(rules.interval, 0.0), now) + rules.interval
