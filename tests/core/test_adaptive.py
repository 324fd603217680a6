# SPDX-License-Identifier: Apache-2.0
"""The limit that finds by itself what an API bears."""

from __future__ import annotations

import pytest

from cline_transport._adaptive import Adaptive


def drive(found: Adaptive, bears: int, calls: int, *, start: float = 0.0) -> tuple[float, int]:
    """Calls that each take a second, as many at once as are allowed; those beyond what the API
    bears are refused at once. Return the average limit and how many were refused."""
    now, refused, total = start, 0, 0.0
    under_way: list[float] = []
    for _ in range(calls):
        found.pressed = True
        while len(under_way) >= int(found.limit):
            now = max(now, under_way.pop(0))
            found.learn(1, 0, 0, age=1.0, held=len(under_way), now=now)
        total += found.limit
        if len(under_way) >= bears:
            refused += 1
            found.learn(0, 1, 0, age=0.001, held=len(under_way), now=now)
            now += 0.01
        else:
            under_way.append(now + 1.0)
    return total / calls, refused


@pytest.mark.parametrize("bears", [1, 2, 5, 10, 40, 200])
def test_it_finds_what_an_api_bears(bears: int) -> None:
    found = Adaptive()
    drive(found, bears, 40 * bears + 400)
    average, refused = drive(found, bears, 4_000, start=1e6)
    assert int(average) == pytest.approx(bears, rel=0.2, abs=0.99)
    assert refused / 4_000 < 0.05


def test_it_follows_a_change_in_both_directions() -> None:
    found = Adaptive()
    drive(found, 10, 1_000)
    drive(found, 20, 1_000, start=1e6)
    assert found.limit == pytest.approx(20, rel=0.2)
    drive(found, 6, 400, start=2e6)
    assert found.limit == pytest.approx(6, rel=0.2)


def test_it_does_not_grow_while_nobody_waits() -> None:
    found = Adaptive()
    for _ in range(1_000):
        found.learn(1, 0, 0, age=0.1, held=1, now=1.0)
    assert found.limit == 4.0


def test_what_began_before_a_decrease_does_not_decrease_it_again() -> None:
    found = Adaptive(limit=10.0, pressed=True)
    found.learn(0, 1, 0, age=1.0, held=9, now=100.0)
    assert found.limit == 9.0
    found.learn(0, 5, 0, age=2.0, held=4, now=101.0)
    assert found.limit == 9.0
    found.learn(0, 1, 0, age=0.5, held=9, now=101.0)
    assert found.limit == pytest.approx(8.1)


def test_a_rising_share_of_503_lowers_it_and_a_steady_one_does_not() -> None:
    found = Adaptive(limit=10.0, starting=False)
    now = 0.0
    for turn in range(400):  # one in ten has always failed there
        now += 1
        found.learn(int(turn % 10 != 0), 0, int(turn % 10 == 0), age=0.1, held=9, now=now)
    steady = found.limit
    assert steady >= 9.0
    for _ in range(10):
        now += 1
        found.learn(0, 0, 1, age=0.1, held=9, now=now)
    assert found.limit < steady * 0.8


def test_one_refusal_in_light_traffic_costs_a_tenth() -> None:
    found = Adaptive(limit=40.0)
    found.learn(0, 1, 0, age=0.1, held=0, now=1.0)
    assert found.limit == 36.0


def test_one_refusal_costs_half_at_the_most() -> None:
    found = Adaptive(limit=40.0, pressed=True)
    found.learn(0, 1, 0, age=0.1, held=3, now=1.0)
    assert found.limit == 20.0


def test_it_never_falls_below_one() -> None:
    found = Adaptive()
    for turn in range(100):
        found.learn(0, 1, 0, age=0.0, held=0, now=float(turn))
    assert found.limit == 1.0
