# SPDX-License-Identifier: Apache-2.0
"""The calls of this process that wait for their turn at one key, and those that have it.

Whoever waits pauses in its own colour; here it is told for how long, and woken when its turn has
come. Nothing here waits: the lock is held for some microseconds.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections.abc import Callable
from operator import attrgetter
from typing import Final, Literal

from cline_transport._dropped import seek, settle
from cline_transport._protocols import Clock
from cline_transport.limits import PATIENCE, Answer, LimitState, Reason, Report, Rules

__all__ = ["Line", "Outcome", "Waiter"]

Outcome = Literal["accepted", "refused", "overloaded", "neither"]
"""How an attempt was answered: well, with 429, with 503, or so that it says nothing of limits."""

_PULSE: Final = 1.0
"""Seconds after which who waits looks for permits that nobody uses any more."""
_GRACE: Final = 2.0
"""Seconds that the others leave to the first in line, whose event loop may be blocked, or gone."""
_KEPT: Final = 600.0
"""Seconds for which what an adaptive limit has learnt is kept without a call."""
_POLL: Final = 0.01
_LONGEST_POLL: Final = 0.25


class Waiter:
    """A call that waits for its turn, and then has it.

    Args:
        started: When the call began: that is its place in the line, also where it retries.
        until: The time at which its deadline ends.

    Attributes:
        wake: Called, from any thread, when there is something new for it; `None` as long as it does
            not pause. A `RuntimeError` means that it is gone: its event loop is closed.
        gone: Asked whether it is gone, while it has its turn.
        granted: Whether it may go.
        refused: Whether its turn will not come before its deadline.
        reason: What held it last.
        alone: Whether it went by local limits because the storage did not answer.
    """

    __slots__ = ("alone", "gone", "granted", "reason", "refused", "started", "until", "wake")

    def __init__(self, started: float, until: float) -> None:
        self.started = started
        self.until = until
        self.wake: Callable[[], object] | None = None
        self.gone: Callable[[], bool] | None = None
        self.granted = False
        self.refused = False
        self.reason: Reason | None = None
        self.alone = False


class Line:
    """The calls with one key to one host.

    Args:
        rules: The limits.
        clock: Time and chance.
        request: Asks the storage that shares them, soon and in another thread, which answers with
            `apply` or `fall_back`; `False`: it is known to be gone. `None`: they are not shared.
        worker: What the storage calls these calls.

    Attributes:
        limit: The permits that there are, as last heard; 0: no limit.
        alone: Whether calls go by this process's own limits.
    """

    def __init__(
        self,
        rules: Rules,
        clock: Clock,
        request: Callable[[Line], bool] | None = None,
        *,
        worker: str = "",
    ) -> None:
        self.rules = rules
        self.clock = clock
        self.worker = worker
        self.limit = rules.concurrency
        self.alone = request is None
        self._request = request
        self._local = rules.share(1)
        self._workers: int = 1
        self._lock = threading.Lock()
        self._state = LimitState()
        self._waiting: list[Waiter] = []
        self._holders: set[Waiter] = set()
        self._tally = Report(self.worker)
        self._reason: Reason | None = None
        self._next = math.inf
        """When the first of those that wait asks again."""
        self._asked = math.inf
        """Since when the storage owes an answer."""
        self._used = clock.monotonic()

    @property
    def held(self) -> int:
        """Attempts under way, where they are counted."""
        return len(self._holders)

    @property
    def idle(self) -> bool:
        """Whether nothing of it is worth keeping; what is shared is kept elsewhere."""
        if self._holders or self._waiting:
            return False
        now = self.clock.monotonic()
        learnt = self.rules.adaptive and now < self._used + _KEPT
        return self._request is not None or (self._state.over(now) and not learnt)

    def forked(self) -> None:
        """In a process that was forked: no other thread is there to give the lock back."""
        self._lock = threading.Lock()

    # --- a call ---

    def join(self, waiter: Waiter) -> None:
        """A call wants to go; where it may at once, it is `granted` on return."""
        with self._lock:
            self._used = self.clock.monotonic()
            insort(self._waiting, waiter, key=attrgetter("started"))
            if self._waiting[0] is waiter or self._reason is None:
                self._ask()

    def pause(self, waiter: Waiter) -> float | None:
        """For how many seconds a call pauses, if nothing wakes it; `None`: it need not."""
        with self._lock:
            if waiter.granted:
                return None
            now = self.clock.monotonic()
            first = self._waiting[:1] == [waiter]
            waiter.reason = self._reason or waiter.reason
            # The end of a cooldown is the same for all; the time of a turn is the first one's. What
            # was said before is not what the storage is about to say.
            told = self._asked == math.inf and (first or self._reason == "cooldown")
            if waiter.until <= (now if not told or self._next == math.inf else self._next):
                waiter.refused = True
                self._drop(waiter)
                return None
            if self.alone:
                end = self._next if self._next < math.inf else now + _PULSE
            else:
                end = min(self._asked, now) + PATIENCE
            return max(0.0, min(end if first else end + _GRACE, waiter.until) - now)

    def proceed(self, waiter: Waiter) -> None:
        """A call's pause is over, or it was woken: if it is time, ask again."""
        if self._reason == "concurrency" and not waiter.granted:
            seek()
        else:
            settle()
        with self._lock:
            if waiter.granted:
                return
            now = self.clock.monotonic()
            late = 0.0 if self._waiting[:1] == [waiter] else _GRACE
            if not self.alone and now >= self._asked + PATIENCE + late:
                self._fall_back()
            elif self.alone and (self._next == math.inf or now >= self._next + late):
                self._ask()

    def finish(self, waiter: Waiter, outcome: Outcome, age: float) -> None:
        """A call does not wait any longer, or its attempt is over: its turn goes to the next.

        Args:
            waiter: The call; nothing happens if this was said of it before.
            outcome: How the attempt was answered.
            age: Seconds since it began.
        """
        with self._lock:
            if not waiter.granted:
                self._drop(waiter)
            elif waiter in self._holders:
                self._holders.discard(waiter)
                if self.rules.adaptive:
                    self._tally = _counted(self._tally, outcome, age)
                self._ask()

    def cool(self, seconds: float) -> None:
        """The API asked to wait for so long."""
        with self._lock:
            self._state.cool(self._local, seconds, self.clock.monotonic())
            self._tally = self._tally._replace(cooldown=max(self._tally.cooldown, seconds))
            self._ask()

    # --- the storage that shares the limits ---

    def report(self) -> Report:
        """What to tell of these calls; what happened is told once."""
        with self._lock:
            self._sweep()
            return self._report()

    def apply(self, answer: Answer) -> float:
        """Do as the storage says; return the seconds after which to report again, 0: on request."""
        with self._lock:
            self.alone = False
            self._asked = math.inf
            if answer.workers != self._workers:
                self._workers, self._local = answer.workers, self.rules.share(answer.workers)
            if answer.cooldown:  # should the storage go, it is known here
                self._state.cool(self._local, answer.cooldown, self.clock.monotonic())
            if self._apply(answer):
                return _POLL / 10
            if not self._waiting:
                return self.rules.lease / 3 if self._holders else 0.0
            if answer.reason == "concurrency":
                return min(_POLL * (1 + answer.ahead), _LONGEST_POLL)
            return max(_POLL / 10, min(answer.wait, 2 * _LONGEST_POLL))

    def fall_back(self) -> None:
        """The storage does not answer: go on by this process's own limits."""
        with self._lock:
            self._fall_back()

    # --- the parts, under the lock ---

    def _ask(self) -> None:
        if self._request is not None and self._request(self) and not self.alone:
            self._asked = min(self._asked, self.clock.monotonic())
            return
        if not self.alone:
            self._begin_alone()
        now, random = self.clock.monotonic(), self.clock.random()
        answer = self._state.sync(self._local, self._report(), now=now, random=random)
        if answer.reason == "concurrency" and self._sweep():
            answer = self._state.sync(self._local, self._report(), now=now, random=random)
        self._apply(answer)

    def _begin_alone(self) -> None:
        self.alone = True
        self._asked = math.inf
        if self.rules.adaptive and self.limit:
            self._state.adaptive.limit = max(1.0, self.limit / self._workers)

    def _fall_back(self) -> None:
        if not self.alone:
            self._begin_alone()
            self._ask()

    def _report(self) -> Report:
        tally, self._tally = self._tally, Report(self.worker)
        return tally._replace(held=len(self._holders), waiting=len(self._waiting))

    def _sweep(self) -> bool:
        """Take permits from those that are gone without a word; return whether there were any."""
        gone = [waiter for waiter in self._holders if waiter.gone is not None and waiter.gone()]
        self._holders.difference_update(gone)
        return bool(gone)

    def _apply(self, answer: Answer) -> int:
        """Let calls go; return for how many there was leave, and no call any more."""
        now = self.clock.monotonic()
        self.limit = answer.limit
        self._reason = answer.reason
        before, self._next = self._next, now + answer.wait if answer.wait else math.inf
        left = answer.granted
        while left and self._waiting:
            waiter = self._waiting.pop(0)
            waiter.granted, waiter.alone = True, self.alone and self._request is not None
            if _woken(waiter):
                left -= 1
                if self.rules.counts:
                    self._holders.add(waiter)
        # Who is the first may be another now, or has less to wait than it was told.
        if answer.granted or self._next < before:
            self._tell_first()
        return left

    def _tell_first(self) -> None:
        """The first keeps the time for all."""
        while self._waiting and not _woken(self._waiting[0]):
            del self._waiting[0]

    def _drop(self, waiter: Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._tell_first()


def _counted(tally: Report, outcome: Outcome, age: float) -> Report:
    if outcome == "accepted":
        return tally._replace(accepted=tally.accepted + 1)
    if outcome == "neither":
        return tally
    youngest = min(age, tally.age) if tally.refused or tally.overloaded else age
    if outcome == "refused":
        return tally._replace(refused=tally.refused + 1, age=youngest)
    return tally._replace(overloaded=tally.overloaded + 1, age=youngest)


def _woken(waiter: Waiter) -> bool:
    """Wake a call, if it is still there."""
    try:
        if waiter.wake is not None:
            waiter.wake()
    except RuntimeError:
        return False
    return True
