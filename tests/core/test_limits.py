# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of limits: what may go, and when to ask again. No clock, no lock, no storage."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport.limits import Answer, LimitSettings, LimitState, Report, Rules


def rules(**settings: Any) -> Rules:
    return Rules.of(LimitSettings(**settings))


class Api:
    """One worker's view of a state, with the time in its hands."""

    def __init__(self, **settings: Any) -> None:
        self.state = LimitState()
        self.rules = rules(**settings)
        self.now = 1_000.0

    def sync(self, waiting: int = 0, *, worker: str = "a", **report: Any) -> Answer:
        told = Report(worker, waiting=waiting, **report)
        return self.state.sync(self.rules, told, now=self.now, random=0.5)


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "interval", "burst"),
    [
        ({}, 0.0, 2),
        ({"requests_per_second": 4}, 0.25, 2),
        ({"requests_per_minute": 600}, 0.1, 2),
        ({"requests_per_minute": 6}, 10.0, 2),
        ({"requests_per_second": 100}, 0.01, 20),
        ({"requests_per_second": 100, "burst": 1}, 0.01, 1),
        ({"requests_per_second": 1, "requests_per_minute": 600}, 1.0, 2),
        ({"requests_per_second": 100, "requests_per_minute": 60}, 1.0, 2),
    ],
)
def test_a_rate_is_an_interval_and_a_burst(
    settings: dict[str, Any], interval: float, burst: int
) -> None:
    made = rules(**settings)
    assert made.interval == pytest.approx(interval)
    assert made.burst == burst


def test_a_share_is_the_part_of_one_worker_but_never_nothing() -> None:
    whole = rules(requests_per_minute=600, burst=4, max_concurrency=10, storage="redis://h")
    assert whole.lease == 10
    share = whole.share(8)
    assert share.interval == pytest.approx(0.8)
    assert (share.burst, share.concurrency) == (1, 1)
    assert share.lease == 0
    assert whole.share(2).concurrency == 5
    assert rules().share(3).concurrency == 0


@pytest.mark.parametrize(
    ("settings", "active"),
    [
        ({}, False),
        ({"cooldown": False}, False),
        ({"burst": 3}, False),
        ({"requests_per_second": 1}, True),
        ({"requests_per_minute": 1}, True),
        ({"max_concurrency": 1}, True),
        ({"max_concurrency": "adaptive"}, True),
        ({"storage": "redis://h"}, True),
    ],
)
def test_limits_are_active_where_there_is_more_than_the_cooldown(
    settings: dict[str, Any], *, active: bool
) -> None:
    assert LimitSettings(**settings).active is active


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cooldown": 1}, "LimitSettings.cooldown must be True or False (got 1)"),
        (
            {"requests_per_second": 0},
            "LimitSettings.requests_per_second must be a number between 0.0001 and 1000000 (got 0)",
        ),
        (
            {"requests_per_minute": -1},
            "LimitSettings.requests_per_minute must be a number between 0.0001 and 1000000 "
            "(got -1)",
        ),
        ({"requests_per_minute": True}, "(got True)"),
        ({"requests_per_minute": "60"}, "(got '60')"),
        ({"burst": 0}, "LimitSettings.burst must be a whole number between 1 and 1000000 (got 0)"),
        (
            {"burst": True},
            "LimitSettings.burst must be a whole number between 1 and 1000000 (got True)",
        ),
        (
            {"max_concurrency": 0},
            "LimitSettings.max_concurrency must be a whole number >= 1 or 'adaptive' (got 0)",
        ),
        (
            {"max_concurrency": "fast"},
            "LimitSettings.max_concurrency must be a whole number >= 1 or 'adaptive' (got 'fast')",
        ),
        ({"lease": 0.5}, "LimitSettings.lease must be a number between 1 and 3600 (got 0.5)"),
        (
            {"storage": "memcached://me:secret@h"},
            "LimitSettings.storage must be a URL that begins with one of redis://, rediss://, "
            "redis+unix://, redis+sentinel://, redis+cluster://, valkey://, valkeys://, "
            "valkey+unix://, valkey+sentinel://, valkey+cluster:// (got 'memcached://[redacted]@h')",
        ),
        ({"storage": 6379}, "(got '6379')"),
        ({"storage": "redis://"}, "(got 'redis://')"),
        ({"storage": "hunter2"}, "(got 'hunter2')"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="LimitSettings") as raised:
        LimitSettings(**settings)
    assert message in str(raised.value)


# --- pace ---


def test_a_burst_goes_at_once_and_then_one_each_interval() -> None:
    api = Api(requests_per_second=10, burst=3)
    first = api.sync(5)
    assert (first.granted, first.reason) == (3, "pace")
    assert first.wait == pytest.approx(0.1)
    api.now += first.wait
    second = api.sync(2)
    assert second.granted == 1
    assert second.wait == pytest.approx(0.1)


def test_a_pause_earns_a_burst_and_no_more() -> None:
    api = Api(requests_per_second=10, burst=3)
    api.sync(9)
    api.now += 60
    assert api.sync(9).granted == 3


def test_who_was_refused_has_no_burst_left() -> None:
    api = Api(requests_per_second=10, burst=3)
    api.sync(cooldown=1.0)
    api.now += 1.0
    assert api.sync(1).granted == 1
    api.now += 1.0  # the spread is over too
    assert api.sync(9).granted == 3


@given(
    rate=st.floats(0.5, 200),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 30)), max_size=60),
)
def test_never_more_than_the_rate_in_any_window(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    api = Api(requests_per_second=rate, burst=burst)
    went: list[float] = []
    for pause, waiting in steps:
        api.now += pause
        went += [api.now] * api.sync(waiting).granted
    for start, first in enumerate(went):
        for end in range(start, len(went)):
            window = went[end] - first
            assert end - start + 1 <= burst + rate * window + 1e-3


@given(rate=st.floats(1, 100), burst=st.integers(1, 10), calls=st.integers(1, 50))
def test_who_waits_as_told_gets_the_whole_rate(rate: float, burst: int, calls: int) -> None:
    api = Api(requests_per_second=rate, burst=burst)
    start, left = api.now, calls
    while left:
        answer = api.sync(left)
        left -= answer.granted
        api.now += answer.wait if left else 0
    assert api.now - start == pytest.approx(max(0, calls - burst) / rate, abs=1e-3)


# --- concurrency ---


def test_permits_are_counted_over_all_workers() -> None:
    api = Api(max_concurrency=3, storage="redis://h")
    assert api.sync(2, worker="a").granted == 2
    second = api.sync(2, worker="b")
    assert (second.granted, second.reason, second.held, second.limit) == (1, "concurrency", 2, 3)


def test_a_permit_that_is_given_back_goes_to_whose_turn_it_is() -> None:
    api = Api(max_concurrency=1)
    api.sync(1, worker="a")
    assert api.sync(1, worker="b").granted == 0
    assert api.sync(1, worker="c").ahead == 1
    # The one that gives it back wants another: it stands behind those that wait.
    assert api.sync(1, worker="a", held=0).granted == 0
    assert api.sync(1, worker="c").granted == 0
    assert api.sync(1, worker="b").granted == 1


def test_who_asks_no_more_loses_its_turn_but_not_its_place() -> None:
    api = Api(max_concurrency=1)
    api.sync(1, worker="a")
    api.sync(1, worker="b")
    api.sync(1, worker="c")
    api.now += 1.5  # nothing is heard of b
    api.sync(0, worker="a", held=0)
    assert api.sync(1, worker="c").granted == 1
    api.sync(1, worker="d", held=0)
    api.sync(0, worker="c", held=0)
    assert api.sync(1, worker="b").granted == 1


def test_a_worker_that_says_nothing_for_a_lease_holds_nothing() -> None:
    api = Api(max_concurrency=2, storage="redis://h", lease=5)
    assert api.sync(2, worker="killed").granted == 2
    api.now += 4.9
    assert api.sync(1, worker="b").granted == 0
    api.now += 0.2
    answer = api.sync(1, worker="b")
    assert (answer.granted, answer.workers) == (1, 1)


def test_a_worker_that_says_so_keeps_what_it_holds() -> None:
    api = Api(max_concurrency=1, storage="redis://h", lease=5)
    api.sync(1, worker="a")
    for _ in range(3):
        api.now += 4
        api.sync(worker="a", held=1)
        assert api.sync(1, worker="b").granted == 0


def test_a_lost_answer_loses_no_permit() -> None:
    api = Api(max_concurrency=1)
    assert api.sync(1, worker="a").granted == 1  # and the answer does not arrive
    assert api.sync(1, worker="b").granted == 0
    assert api.sync(1, worker="a", held=0).granted == 0  # b's turn
    assert api.sync(1, worker="b").granted == 1


# --- cooldown ---


def test_nobody_goes_before_the_end_of_a_cooldown() -> None:
    api = Api()
    api.sync(cooldown=8.0)
    held = api.sync(3)
    assert (held.granted, held.reason, held.wait, held.cooldown) == (0, "cooldown", 8.0, 8.0)
    api.now += 7.9
    assert api.sync(3).granted == 0


def test_a_longer_one_extends_it_and_a_shorter_one_does_not() -> None:
    api = Api()
    api.sync(cooldown=8.0)
    api.now += 1
    assert api.sync(cooldown=1.0).cooldown == 7.0
    assert api.sync(cooldown=20.0).cooldown == 20.0


def test_they_go_one_after_the_other_over_a_quarter_of_it() -> None:
    api = Api()
    start = api.now
    api.sync(cooldown=8.0)
    api.now += 8.0
    went: list[float] = []
    left = 50
    while left:
        answer = api.sync(left)
        went += [api.now - start] * answer.granted
        left -= answer.granted
        api.now += answer.wait
    assert went[0] == 8.0
    assert 9.0 < went[-1] <= 10.0
    gaps = [later - earlier for earlier, later in pairwise(went)]
    assert max(gaps) < 0.5


def test_who_comes_when_nobody_waits_any_more_goes_at_once() -> None:
    api = Api()
    api.sync(cooldown=8.0)
    api.now += 8.0
    assert api.sync(1).granted == 1
    api.now += 0.001
    assert api.sync(1).granted == 1


def test_after_that_nothing_is_held() -> None:
    api = Api()
    api.sync(cooldown=8.0)
    api.now += 10.0
    assert api.sync(50).granted == 50


# --- two services with different limits on one key ---


def test_a_pace_is_kept_whatever_the_others_do() -> None:
    slow, state, now, went = rules(requests_per_second=1, burst=1), LimitState(), 1_000.0, 0
    for other in (rules(max_concurrency=5), rules(requests_per_second=100)) * 500:
        now += 0.01
        went += state.sync(slow, Report("slow", waiting=9), now=now, random=0.5).granted
        state.sync(other, Report("other", waiting=1), now=now, random=0.5)
    assert went == 10


def test_each_worker_has_its_own_lease() -> None:
    patient = rules(max_concurrency=1, storage="redis://h", lease=60)
    hasty = rules(max_concurrency=1, storage="redis://h", lease=1)
    state = LimitState()
    assert state.sync(patient, Report("a", waiting=1), now=10.0, random=0.5).granted == 1
    assert state.sync(hasty, Report("b", waiting=1), now=60.0, random=0.5).granted == 0
    assert state.sync(hasty, Report("b", waiting=1), now=71.0, random=0.5).granted == 1


# --- a clock that is set back ---


@given(st.floats(1, 1e6))
def test_a_clock_that_is_set_back_holds_nobody_for_longer(back: float) -> None:
    api = Api(requests_per_second=1, burst=2, max_concurrency=1, storage="redis://h")
    api.now = 2e6
    api.sync(3)
    api.sync(0, cooldown=5.0)
    api.now -= back
    assert api.sync(1).cooldown <= 5.0
    api.now += 10
    assert api.sync(1, worker="b").granted == 1


# --- all together ---


@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 3), st.floats(0, 2)),
        max_size=80,
    ),
)
def test_no_permit_is_lost_and_none_is_made(
    permits: int, steps: list[tuple[str, int, int, float]]
) -> None:
    api = Api(max_concurrency=permits)
    held = dict.fromkeys("abc", 0)
    for worker, waiting, ends, pause in steps:
        api.now += pause
        held[worker] = max(0, held[worker] - ends)
        held[worker] += api.sync(waiting, worker=worker, held=held[worker]).granted
        assert sum(held.values()) <= permits
    # Once all have ended, all permits are there.
    for worker in held:
        api.sync(worker=worker)
    api.now += 2
    assert api.sync(99).granted == permits


def test_the_next_answer_is_known_or_somebody_has_to_give_back() -> None:
    api = Api(requests_per_second=1, burst=1, max_concurrency=1)
    assert api.sync(1).granted == 1
    held = api.sync(1, held=1)
    assert (held.reason, held.wait) == ("concurrency", 0.0)
    paced = api.sync(1, held=0)
    assert paced.reason == "pace"
    assert 0 < paced.wait < math.inf
