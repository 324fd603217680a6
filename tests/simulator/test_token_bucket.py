# SPDX-License-Identifier: Apache-2.0
"""Who is refused by the bucket and by the limiter, with a clock of our own."""

from __future__ import annotations

import re
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from cline_transport.simulator import ApiLimits, LimitCounts, Reply
from cline_transport.simulator._limits import Limiter, TokenBucket

# The bucket, with a clock of our own

rates = st.floats(0.001, 1000)
bursts = st.integers(1, 20)
# What comes at once, within a moment, and after a while.
pauses = st.sampled_from([0.0, 1e-9]) | st.floats(0, 0.01) | st.floats(0, 100)


@given(
    start=st.floats(0, 1e6),
    rules=st.lists(st.tuples(rates, bursts), min_size=1, max_size=3),
    asked=st.lists(st.tuples(pauses, st.integers(0, 20)), max_size=60),
)
def test_no_window_has_more_than_the_burst_and_the_rate(
    start: float, rules: list[tuple[float, int]], asked: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(*rules[0], start)
    accepted: list[float] = []
    times = list(accumulate((pause for pause, _ in asked), initial=start))[1:]
    for now, (_, choice) in zip(times, asked, strict=True):
        if 0 < choice < len(rules):
            bucket.change(*rules[choice], now)
        if not bucket.take(now):
            accepted.append(now)
    rate, burst = (max(values) for values in zip(*rules, strict=True))
    for first, begin in enumerate(accepted):
        for last, end in enumerate(accepted[first:], 1):
            assert last <= burst + rate * (end - begin) + 1e-3


@given(start=st.floats(0, 1e6), rate=rates, burst=bursts, times=st.lists(pauses, max_size=40))
def test_who_waits_as_long_as_told_is_accepted(
    start: float, rate: float, burst: int, times: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    now = start
    for pause in times:
        now += pause
        wait = bucket.take(now)
        if wait:
            assert 0 < wait < 1.00001 / rate
            now += wait
            assert bucket.take(now) == 0


def test_a_bucket_fills_up_to_its_burst_and_no_further() -> None:
    bucket = TokenBucket(2, 3, 0)
    assert [bucket.take(0) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert bucket.take(0.25) == 0.25
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 0.5]


def test_another_rate_begins_with_what_the_old_one_left() -> None:
    bucket = TokenBucket(1, 4, 0)
    assert [bucket.take(0) for _ in range(4)] == [0] * 4
    bucket.change(10, 4, 2)  # two seconds at the old rate
    assert [bucket.take(2) for _ in range(3)] == [0, 0, 0.1]
    bucket.change(0.5, 1, 100)  # full: four, of which the new burst has room for one
    assert [bucket.take(100) for _ in range(2)] == [0, 2]
    bucket.change(0.5, 9, 100)
    assert bucket.take(100) == 2


# The limiter, the same way


def refused(reply: Reply | None) -> str:
    """What the reply that refuses a request says, `""` for a request that is accepted."""
    if reply is None:
        return ""
    assert reply.status == 429
    assert isinstance(reply.body, bytes)
    after = dict(reply.headers).get("retry-after")
    said = re.search(rb'"message": "([^"]*)"', reply.body)
    assert said is not None
    return said[1].decode() + ("" if after is None else f" ({after})")


def test_a_refused_request_counts_for_neither_limit() -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=6, burst=2, concurrent=1))
    many = "Too many concurrent requests: 1"
    often = "Rate limit exceeded: 6 requests per minute"
    assert [refused(limiter.admit("a", 0)) for _ in range(3)] == ["", many, many]
    limiter.finished("a")
    assert refused(limiter.admit("a", 0)) == ""  # the second of the burst
    limiter.finished("a")
    assert [refused(limiter.admit("a", now)) for now in (0, 0.5, 9.25)] == [
        f"{often} (10)",
        f"{often} (10)",
        f"{often} (1)",
    ]
    assert limiter.counts == LimitCounts(2, 3, 2, 0, 1)
    assert refused(limiter.admit("a", 10)) == ""
    assert refused(limiter.admit("a", 10)) == many  # over both
    assert limiter.counts == LimitCounts(3, 3, 3, 1, 1)


def test_who_has_to_wait_for_less_than_a_second_is_told_a_second() -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=6000.5))
    # One second's worth.
    assert [refused(limiter.admit("a", 0)) for _ in range(101)] == [
        *[""] * 100,
        "Rate limit exceeded: 6000.5 requests per minute (1)",
    ]


@given(seconds=st.integers(1, 10_000))
def test_whole_seconds_are_not_rounded_up(seconds: int) -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=60 / seconds))
    assert refused(limiter.admit("a", 0.1)) == ""
    assert refused(limiter.admit("a", 0.1)).endswith(f" ({seconds})")
    assert refused(limiter.admit("a", 0.1 + seconds)) == ""


def test_each_key_has_its_own() -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=1, concurrent=1))
    assert [bool(refused(limiter.admit(key, 0))) for key in "abab"] == [False, False, True, True]
    assert limiter.counts == LimitCounts(2, 0, 2, 2, 2)
    limiter.finished("a")
    assert refused(limiter.admit("b", 0)).startswith("Too many")
    assert refused(limiter.admit("a", 0)) == "Rate limit exceeded: 1 requests per minute (60)"


def test_limits_can_change() -> None:
    limiter = Limiter(None)
    assert [refused(limiter.admit("a", 0)) for _ in range(3)] == [""] * 3
    limiter.change(ApiLimits(concurrent=3), 0)
    assert refused(limiter.admit("a", 0)) == "Too many concurrent requests: 3"
    limiter.change(ApiLimits(concurrent=4, requests_per_minute=60, burst=1), 0)
    assert refused(limiter.admit("a", 0)) == ""
    for _ in range(4):
        limiter.finished("a")
    limiter.change(ApiLimits(requests_per_minute=1), 0.5)  # half a request is left of the old rate
    assert refused(limiter.admit("a", 0.5)).endswith("(30)")
    limiter.change(ApiLimits(concurrent=1), 1)
    limiter.change(ApiLimits(requests_per_minute=1), 1)  # nothing is left of none
    assert refused(limiter.admit("a", 1)) == ""
    limiter.change(None, 1)
    assert [refused(limiter.admit("a", 1)) for _ in range(9)] == [""] * 9
    assert limiter.counts == LimitCounts(14, 1, 1, 10, 10)
