# SPDX-License-Identifier: Apache-2.0
"""`docs/make_storm_picture.py`: how retries behave in a storm, and what the page says of it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from cline_transport.retry import RetryPolicy

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reliability.md").read_text(encoding="utf-8")
SMALL = {"clients": 20, "capacity": 40.0}
THROTTLED = RetryPolicy()
PLAIN = RetryPolicy(throttle=False)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "make_storm_picture.py"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_an_overload_the_throttle_keeps_attempts_near_calls(
    seed: int, script: dict[str, Any]
) -> None:
    storm = script["simulate"](THROTTLED, load=1.2, seconds=300.0, seed=seed, **SMALL)
    assert 1.0 <= storm.amplification() < 1.2
    assert storm.goodput > 0.9


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_an_overload_plain_retries_take_the_server_down(
    seed: int, script: dict[str, Any]
) -> None:
    storm = script["simulate"](PLAIN, load=1.2, seconds=300.0, seed=seed, **SMALL)
    assert storm.amplification() > 2.9
    assert storm.goodput < 0.65


def test_after_an_outage_the_throttle_lets_the_server_recover(script: dict[str, Any]) -> None:
    simulate, outage = script["simulate"], (30.0, 60.0)
    storms = [
        simulate(policy, load=0.85, seconds=200.0, outage=outage, **SMALL)
        for policy in (THROTTLED, PLAIN)
    ]
    throttled, plain = (storm.recovery(60.0) for storm in storms)
    assert throttled is not None
    assert throttled <= 10
    assert plain is None or plain > throttled
    assert storms[0].amplification(30.0, 60.0) < storms[1].amplification(30.0, 60.0)


def test_each_call_has_one_end(script: dict[str, Any]) -> None:
    storm = script["simulate"](RetryPolicy(enabled=False), load=1.2, seconds=60.0, **SMALL)
    assert storm.amplification() == 1.0
    assert sum(storm.attempts) == storm.calls
    assert sum(storm.refused) == storm.failed
    waiting = storm.calls - storm.failed - sum(storm.served)
    assert 0 <= waiting <= (script["QUEUE"] + 1) * storm.capacity


def test_a_simulation_is_the_same_each_time(script: dict[str, Any]) -> None:
    first, again = (
        script["simulate"](THROTTLED, load=1.2, seconds=20.0, **SMALL) for _ in range(2)
    )
    assert first == again


def test_the_table_keeps_what_the_throttle_promises(script: dict[str, Any]) -> None:
    rows = {row.name: row for row in script["read_rows"](PAGE)}
    assert float(rows[script["OURS"]].attempts) < 1.2
    assert float(rows["plain retries"].attempts) > 2.9
