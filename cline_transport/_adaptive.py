# SPDX-License-Identifier: Apache-2.0
"""The number of attempts that an API bears at once, found by trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Adaptive"]


@dataclass(slots=True)
class Adaptive:
    """The number of permits that an API bears, found by trying (AIMD).

    A refusal lowers it by a tenth; forty answers, or as many as there are permits, while they were
    all in use raise it by one: so a probe costs at most one refusal in forty calls. It begins as
    TCP does, with one more for each answer, until the first refusal. What began before the last
    decrease says nothing about the time after it.

    Attributes:
        limit: The number; permits are its whole part.
        pressed: Whether somebody waited for a permit: else an answer says nothing.

    Examples:
        >>> found = Adaptive(limit=10, starting=False)
        >>> found.learn(0, 1, 0, age=0.1, held=9, now=60.0)
        >>> found.limit
        9.0
    """

    DECREASE: ClassVar[float] = 0.9
    ANSWERS: ClassVar[int] = 40
    FAST: ClassVar[float] = 0.1
    SLOW: ClassVar[float] = 0.01
    RISING: ClassVar[float] = 0.1

    limit: float = 4.0
    pressed: bool = False
    starting: bool = True
    credit: int = 0
    decreased: float = 0.0
    fast: float = 0.0
    """The share of 503 among the latest ten answers or so."""
    slow: float = 0.0
    """The same among the latest hundred."""

    def learn(
        self, accepted: int, refused: int, overloaded: int, *, age: float, held: int, now: float
    ) -> None:
        """Take note of how attempts were answered.

        Args:
            accepted: How many well.
            refused: How many with 429.
            overloaded: How many with 503.
            age: Seconds since the latest begun of those two kinds began.
            held: Attempts that are under way.
            now: The time in seconds.
        """
        for share in (0.0,) * accepted + (1.0,) * overloaded:
            self.fast += (share - self.fast) * self.FAST
            self.slow += (share - self.slow) * self.SLOW
        rising = overloaded > 0 and self.fast > 2 * self.slow + self.RISING
        if refused > 0 or rising:
            if now - age >= self.decreased:
                # Where nobody waits, the limit is not what was tried.
                tried = held + refused + overloaded if self.pressed else self.limit
                self.limit = max(1.0, self.limit / 2, min(self.limit, tried) * self.DECREASE)
                self.decreased = now
                self.credit = 0
                self.starting = False
        elif self.pressed and self.starting:
            self.limit += accepted
        elif self.pressed:
            self.credit += accepted
            if self.credit >= max(self.ANSWERS, self.limit):
                self.credit = 0
                self.limit += 1
