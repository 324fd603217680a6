# SPDX-License-Identifier: Apache-2.0
"""Limits as an API has them: so many requests a minute, and so many at once, for each key."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

from cline_transport.simulator._reply import Reply

# What sums of floating-point numbers may lack of a whole token, or have beyond a whole second.
SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """How much of the chat endpoint (`POST …/chat/completions`) each API key may have.

    What is over a limit is refused with HTTP 429 in the documented format, and counts for neither
    limit. Where a request is over both, the one of requests at once is told.

    A value out of range is a `ValueError` that names it, as is a `burst` without a rate.

    Example:
        ```python
        with Simulator(limits=ApiLimits(requests_per_minute=600, concurrent=10)) as api:
            ...
            assert api.counts.rate_refused == 0
        ```
    """

    requests_per_minute: float | None = None
    """The rate in the long run, above 0; default `None`: any. What is over it is told to come back:
    `Retry-After`, in whole seconds, rounded up, at least 1."""
    burst: int | None = None
    """How many requests may come at once after a pause, at least 1. Default: one second's worth of
    the rate, rounded down, at least 1. So never more than `burst` and the rate's share of the time
    are accepted, whatever the time."""
    concurrent: int | None = None
    """How many requests may be in progress, at least 1; default `None`: any. One is from when it
    was received until its response is written whole or its connection (HTTP/2: its stream) has
    ended. What is over it gets no `Retry-After`."""

    def __post_init__(self) -> None:
        rate = self.requests_per_minute
        if rate is not None and not 0 < rate < math.inf:
            rule = "finite" if rate == math.inf else "> 0"
            raise ValueError(f"requests_per_minute must be {rule} (got {rate})")
        for name in ("burst", "concurrent"):
            count: int | None = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} must be >= 1 (got {count})")
        if self.burst is not None and rate is None:
            raise ValueError("burst needs requests_per_minute (got None)")


class LimitCounts(NamedTuple):
    """What became of the requests to the chat endpoint, of all keys together.

    Example: `assert api.counts.most_concurrent <= 10`
    """

    served: int
    """How many were accepted, whatever they were answered with."""
    rate_refused: int
    """How many were over `requests_per_minute`."""
    concurrency_refused: int
    """How many were over `concurrent`."""
    concurrent: int
    """How many are in progress now."""
    most_concurrent: int
    """The most there were in progress at any time."""


class TokenBucket:
    """Accepts `burst` requests at once, and `rate` a second in the long run; full at first.

    Of the requests of any window not more than `burst + rate * seconds` are accepted. The time is
    given, in seconds of any clock.

    Examples:
        >>> bucket = TokenBucket(0.5, 1, now=10.0)
        >>> [bucket.take(10.0), bucket.take(11.0), bucket.take(12.0)]
        [0.0, 1.0, 0.0]
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Accept a request: 0; or refuse it: in how many seconds one would be accepted."""
        self._refill(now)
        if self._tokens < 1 - SLACK:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0

    def change(self, rate: float, burst: int, now: float) -> None:
        """From now on another rate; what has come together stays, as far as `burst` has room."""
        self._refill(now)
        self._rate = rate
        self._burst = burst
        self._tokens = min(self._tokens, burst)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now


class Limiter:
    """Accepts or refuses requests, and counts them; not thread-safe."""

    def __init__(self, limits: ApiLimits | None) -> None:
        self.limits = limits
        self._buckets: dict[str, TokenBucket] = {}
        # Key → how many are in progress, if any.
        self._open: Counter[str] = Counter()
        self._served = self._rate_refused = self._concurrency_refused = 0
        self._concurrent = self._most_concurrent = 0

    @property
    def counts(self) -> LimitCounts:
        """What was counted since the last reset."""
        return LimitCounts(
            served=self._served,
            rate_refused=self._rate_refused,
            concurrency_refused=self._concurrency_refused,
            concurrent=self._concurrent,
            most_concurrent=self._most_concurrent,
        )

    def reset(self) -> None:
        """Count from the beginning; what is in progress stays so."""
        self._served = self._rate_refused = self._concurrency_refused = 0
        self._most_concurrent = self._concurrent

    def change(self, limits: ApiLimits | None, now: float) -> None:
        """Other limits from now on. What is known of a rate is forgotten only where there is none.

        `now` is in seconds of the clock of `admit`.
        """
        self.limits = limits
        if limits is None or limits.requests_per_minute is None:
            self._buckets.clear()
            return
        for bucket in self._buckets.values():
            bucket.change(*_rate_and_burst(limits.requests_per_minute, limits.burst), now)

    def admit(self, key: str, now: float) -> Reply | None:
        """`None` if the request is accepted, and then `finished` is due; else what refuses it."""
        limits = self.limits
        if limits is not None:
            most, rate = limits.concurrent, limits.requests_per_minute
            if most is not None and self._open[key] >= most:
                self._concurrency_refused += 1
                return Reply.error(429, message=f"Too many concurrent requests: {most}")
            if rate is not None:
                wait = self._take(key, rate, limits.burst, now)
                if wait:
                    self._rate_refused += 1
                    return Reply.error(
                        429,
                        message=f"Rate limit exceeded: {rate:.15g} requests per minute",
                        retry_after=str(max(1, math.ceil(wait - SLACK))),
                    )
        self._served += 1
        self._open[key] += 1
        self._concurrent += 1
        self._most_concurrent = max(self._most_concurrent, self._concurrent)
        return None

    def finished(self, key: str) -> None:
        """One request with this key, that was accepted, has ended."""
        self._concurrent -= 1
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def _take(self, key: str, rate: float, burst: int | None, now: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(*_rate_and_burst(rate, burst), now)
        return bucket.take(now)


def _rate_and_burst(per_minute: float, burst: int | None) -> tuple[float, int]:
    """The rate in requests a second, and the burst or its default."""
    rate = per_minute / 60
    return rate, max(1, int(rate)) if burst is None else burst
