# SPDX-License-Identifier: Apache-2.0
"""The calls of one process that wait at one key: their order, and who keeps the time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport._line import Line, Outcome, Waiter
from cline_transport._protocols import Clock
from cline_transport.limits import PATIENCE, Answer, LimitSettings, Reason, Rules


class Place:
    """A line whose time is in the test's hands, and the calls that wait in it."""

    def __init__(self, *, shared: bool = False, **settings: Any) -> None:
        self.now = 1_000.0
        self.asked = 0
        self.answers = True
        self.woken: list[Waiter] = []
        clock = Clock(monotonic=lambda: self.now, random=lambda: 0.5)
        rules = Rules.of(LimitSettings(**settings))
        self.line = Line(rules, clock, self._request if shared else None, worker="me")
        self.calls: list[Waiter] = []

    def _request(self, line: Line) -> bool:
        self.asked += 1
        return self.answers

    def call(self, *, until: float = math.inf, started: float | None = None) -> Waiter:
        """A call joins, and pauses if it has to."""
        arrived = self.now + len(self.calls) / 1e6
        waiter = Waiter(arrived if started is None else started, until)
        self.calls.append(waiter)
        self.line.join(waiter)
        waiter.wake = lambda: self.woken.append(waiter)
        return waiter

    def ends(self, outcome: Outcome = "accepted", age: float = 1.0) -> None:
        """The attempt that went first is over."""
        self.line.finish(next(w for w in self.calls if w in self.line._holders), outcome, age)

    def leaves(self, waiter: Waiter) -> None:
        self.line.finish(waiter, "neither", 0.0)

    def answer(
        self,
        granted: int = 0,
        wait: float = 0.0,
        reason: Reason | None = None,
        *,
        ahead: int = 0,
        limit: int = 0,
        workers: int = 1,
    ) -> float:
        """The storage answers."""
        answer = Answer(granted, wait, reason, ahead, limit, 0, 0.0, workers)
        return self.line.apply(answer)


def granted(*waiters: Waiter) -> list[bool]:
    return [waiter.granted for waiter in waiters]


# --- by this process's own limits ---


def test_permits_go_in_order_of_arrival() -> None:
    place = Place(max_concurrency=1)
    first, second, third = place.call(), place.call(), place.call()
    assert granted(first, second, third) == [True, False, False]
    place.ends()
    assert granted(second, third) == [True, False]
    assert place.woken == [second, third]  # the one goes, the other is the first now
    assert place.line.held == 1


def test_a_call_that_retries_has_the_place_of_its_beginning() -> None:
    place = Place(max_concurrency=1)
    place.call()
    later, retry = place.call(), place.call(started=1.0)
    place.ends()
    assert granted(later, retry) == [False, True]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 4))
def test_the_order_of_arrival_is_kept_whatever_ends_when(ends: list[int], permits: int) -> None:
    place = Place(max_concurrency=permits)
    calls: list[Waiter] = []
    for count in ends:
        calls.append(place.call())
        for _ in range(min(count, place.line.held)):
            place.ends()
        went = granted(*calls)
        assert went == sorted(went, reverse=True)
        assert place.line.held <= permits


def test_the_first_keeps_the_time_for_all() -> None:
    place = Place(requests_per_second=1, burst=1)
    place.call()
    first, second = place.call(), place.call()
    assert place.line.pause(first) == 1.0
    assert place.line.pause(second) == 3.0  # should the first be gone
    place.now += 1.0
    place.line.proceed(second)  # woken for nothing
    assert granted(first, second) == [False, False]
    place.line.proceed(first)
    assert granted(first, second) == [True, False]
    assert place.woken == [first, second]
    assert place.line.pause(second) == 1.0
    assert place.line.pause(first) is None
    place.line.proceed(first)  # its turn has come already


def test_the_first_is_told_when_it_has_less_to_wait() -> None:
    place = Place(requests_per_second=2.5, burst=1, max_concurrency=1)
    place.call()
    waiter = place.call()
    assert place.line.pause(waiter) == 1.0  # somebody has to give a permit back
    place.now += 0.1
    place.ends(age=0.1)
    assert place.woken == [waiter]
    assert place.line.pause(waiter) == pytest.approx(0.3)


def test_too_early_it_is_asked_for_nothing() -> None:
    place = Place(requests_per_second=1, burst=1)
    place.call()
    waiter = place.call()
    place.now += 0.5
    place.line.proceed(waiter)
    assert place.line.pause(waiter) == 0.5


def test_who_leaves_makes_the_next_the_first() -> None:
    place = Place(requests_per_second=1, burst=1)
    place.call()
    first, second = place.call(), place.call()
    place.leaves(first)
    place.leaves(first)  # said twice
    assert place.woken == [second]
    assert place.line.pause(second) == 1.0
    place.leaves(second)
    assert place.line.idle is False
    place.now += 2
    assert place.line.idle


def test_who_leaves_in_the_moment_of_its_turn_gives_it_back() -> None:
    place = Place(max_concurrency=1)
    place.call()
    second, third = place.call(), place.call()
    place.ends()
    place.leaves(second)
    assert granted(third) == [True]
    assert place.line.held == 1


def test_who_was_refused_has_left() -> None:
    place = Place(max_concurrency=1)
    place.call()
    waiter = place.call(until=place.now)
    assert place.line.pause(waiter) is None
    assert (waiter.refused, waiter.granted) == (True, False)
    place.leaves(waiter)
    assert place.line._waiting == []


def test_a_cooldown_beyond_the_deadline_refuses_at_once_wherever_in_line() -> None:
    place = Place()
    place.line.cool(10.0)
    patient, hasty = place.call(), place.call(until=place.now + 5)
    assert place.line.pause(hasty) is None
    assert hasty.refused
    assert place.line.pause(patient) == 10.0


def test_a_call_whose_event_loop_is_gone_is_passed_over() -> None:
    place = Place(max_concurrency=1)
    place.call()
    gone, third, also_gone, last = place.call(), place.call(), place.call(), place.call()

    def raising() -> None:
        raise RuntimeError("Event loop is closed")

    gone.wake = also_gone.wake = raising
    place.ends()
    assert granted(third) == [True]
    assert place.line._waiting == [last]
    assert place.line.held == 1


def test_permits_are_not_counted_where_there_is_no_limit_of_them() -> None:
    place = Place(requests_per_second=1)
    place.call()
    assert place.line.held == 0
    place.leaves(place.calls[0])
    assert place.line.held == 0


@pytest.mark.parametrize(
    ("outcome", "limit"), [("accepted", 4), ("neither", 4), ("refused", 3), ("overloaded", 4)]
)
def test_an_adaptive_limit_learns_from_outcomes(outcome: Any, limit: int) -> None:
    place = Place(max_concurrency="adaptive")
    for _ in range(4):
        place.call()
    place.ends(outcome, 0.1)
    assert place.line.limit == limit
    assert not place.line.idle


def test_the_youngest_of_those_refused_counts() -> None:
    place = Place(max_concurrency="adaptive", shared=True, storage="redis://h")
    for _ in range(3):
        place.call()
    place.answer(3, limit=4)
    place.ends("refused", 3.0)
    place.ends("overloaded", 1.0)
    place.ends("refused", 2.0)
    report = place.line.report()
    assert (report.refused, report.overloaded, report.age) == (2, 1, 1.0)
    assert place.line.report().refused == 0


# --- who is not there any more ---


@pytest.mark.parametrize("limits", [{"max_concurrency": 1}, {"requests_per_second": 1, "burst": 1}])
def test_one_whose_event_loop_is_blocked_does_not_hold_the_others(limits: dict[str, Any]) -> None:
    place = Place(**limits)
    place.call()
    blocked, other, third = place.call(), place.call(), place.call()
    if "max_concurrency" in limits:
        place.ends()  # the permit is the blocked one's now, and it will not use it for a while
        assert granted(blocked, other) == [True, False]
        place.leaves(blocked)
    else:
        place.now += 10
        place.line.proceed(other)
        assert granted(blocked, other, third) == [True, False, False]
        place.now += 10
        place.line.proceed(other)
    assert granted(other) == [True]


def test_one_that_is_not_first_leaves_it_to_the_first_for_a_while() -> None:
    place = Place(requests_per_second=1, burst=1)
    place.call()
    first, second = place.call(), place.call()
    place.now += 1.5
    place.line.proceed(second)
    assert granted(first) == [False]
    place.now += 1.5
    place.line.proceed(second)
    assert granted(first) == [True]


def test_a_permit_of_a_call_whose_event_loop_is_closed_is_taken_from_it() -> None:
    place = Place(max_concurrency=1)
    place.call().gone = lambda: True
    assert granted(place.call()) == [True]
    place.calls[1].gone = lambda: False
    waiting = place.call()
    assert granted(waiting) == [False]
    assert place.line.pause(waiting) == 1.0
    place.calls[1].gone = lambda: True
    place.now += 1
    place.line.proceed(waiting)
    assert granted(waiting) == [True]
    place.leaves(place.calls[0])  # it comes back after all
    assert place.line.held == 1


def test_a_wake_up_that_was_lost_is_made_good_by_the_pulse() -> None:
    place = Place(max_concurrency=1)
    place.call()
    waiting = place.call()
    place.line._holders.clear()  # as if an interrupt had come in between
    place.now += 1
    place.line.proceed(waiting)
    assert granted(waiting) == [True]


def test_in_a_process_that_was_forked_the_lock_is_free() -> None:
    place = Place(max_concurrency=1)
    place.line._lock.acquire()
    place.line.forked()
    assert granted(place.call()) == [True]


def test_what_an_adaptive_limit_has_learnt_is_kept_for_ten_minutes() -> None:
    place = Place(max_concurrency="adaptive")
    place.call()
    place.ends()
    place.now += 599
    assert not place.line.idle
    place.now += 2
    assert place.line.idle


# --- with a storage ---


def shared(**settings: Any) -> Place:
    return Place(shared=True, storage="redis://h", **settings)


def test_a_call_waits_for_the_storage_and_no_longer_than_its_patience() -> None:
    place = shared(max_concurrency=8)
    waiter = place.call()
    assert (granted(waiter), place.asked, place.line.alone) == ([False], 1, False)
    place.now += 0.04
    assert place.line.pause(waiter) == pytest.approx(PATIENCE - 0.04)
    place.now += PATIENCE
    assert place.line.pause(waiter) == 0
    place.line.proceed(waiter)
    assert granted(waiter) == [True]
    assert (waiter.alone, place.line.alone, place.line.held) == (True, True, 1)


def test_the_storage_s_answer_lets_it_go() -> None:
    place = shared(max_concurrency=8)
    waiter = place.call()
    again = place.answer(1, limit=8)
    assert granted(waiter) == [True]
    assert not waiter.alone
    assert again == pytest.approx(10 / 3)  # a sign of life, as it holds a permit
    place.ends()
    assert place.answer(limit=8) == 0.0


def test_those_that_wait_look_after_the_storage_while_it_answers() -> None:
    place = shared(max_concurrency=1)
    place.call()
    place.answer(1, limit=1)
    waiter = place.call()
    assert place.answer(reason="concurrency", limit=1) == pytest.approx(0.01)
    assert place.line.pause(waiter) == pytest.approx(PATIENCE)
    place.line.proceed(waiter)
    assert place.asked == 2  # the thread asks again by itself


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        ({"reason": "concurrency", "ahead": 0}, 0.01),
        ({"reason": "concurrency", "ahead": 3}, 0.04),
        ({"reason": "concurrency", "ahead": 500}, 0.25),
        ({"reason": "pace", "wait": 0.125}, 0.125),
        ({"reason": "cooldown", "wait": 30.0}, 0.5),
        ({}, 0.001),
    ],
)
def test_the_storage_is_asked_again_soon_but_not_too_soon(
    answer: dict[str, Any], again: float
) -> None:
    place = shared(max_concurrency=1)
    place.call()
    assert place.answer(**answer) == pytest.approx(again)


def test_a_grant_that_nobody_takes_any_more_is_not_counted() -> None:
    place = shared(max_concurrency=2)
    waiter = place.call()
    place.leaves(waiter)
    assert place.answer(1, limit=2) == pytest.approx(0.001)  # it is told so at once
    assert place.line.held == 0
    assert place.line.report().held == 0


def test_a_storage_that_is_known_to_be_gone_is_not_waited_for() -> None:
    place = shared(max_concurrency=8)
    place.answers = False
    waiter = place.call()
    assert granted(waiter) == [True]
    assert waiter.alone


def test_alone_a_process_takes_its_share() -> None:
    place = shared(max_concurrency=8)
    place.call()
    place.answer(1, limit=8, workers=4)
    place.line.fall_back()
    place.line.fall_back()  # said twice, done once
    calls = [place.call() for _ in range(3)]
    assert granted(*calls) == [True, False, False]
    place.answer(2, limit=8, workers=4)
    assert granted(*calls) == [True, True, True]
    assert not place.line.alone


def test_alone_an_adaptive_limit_goes_on_from_its_share() -> None:
    place = shared(max_concurrency="adaptive")
    place.call()
    place.answer(1, limit=40, workers=4)
    place.line.fall_back()
    assert place.line.limit == 10


def test_a_cooldown_holds_although_the_storage_is_gone() -> None:
    place = shared()
    place.line.cool(8.0)
    assert place.line.report().cooldown == 8.0
    place.line.fall_back()
    waiter = place.call()
    assert granted(waiter) == [False]
    assert place.line.pause(waiter) == 8.0


def test_so_does_one_that_the_storage_told_of() -> None:
    place = shared()
    place.call()
    place.line.apply(Answer(0, 8.0, "cooldown", 0, 0, 0, 8.0, 1))
    place.line.fall_back()
    assert granted(place.call()) == [False]


def test_nobody_is_refused_by_what_the_storage_said_before() -> None:
    place = shared(requests_per_second=1)
    first = place.call()
    place.answer(wait=9.0, reason="pace", ahead=4)
    place.leaves(first)
    hasty = place.call(until=place.now + 3)
    assert place.line.pause(hasty) == pytest.approx(PATIENCE)
    assert not hasty.refused


def test_a_line_that_is_alone_asks_the_storage_all_the_same() -> None:
    place = shared(max_concurrency=2)
    place.answers = False
    place.call()
    place.answers = True
    place.call()
    assert (place.asked, place.line.alone) == (2, True)
    place.answer(limit=2)
    assert not place.line.alone


def test_adaptive_without_a_storage_from_the_start_begins_as_ever() -> None:
    place = shared(max_concurrency="adaptive")
    place.answers = False
    assert granted(*(place.call() for _ in range(5))) == [True] * 4 + [False]


def test_what_is_shared_need_not_be_kept() -> None:
    place = shared(max_concurrency="adaptive")
    assert place.line.idle
    place.call()
    assert not place.line.idle
