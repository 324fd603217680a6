# SPDX-License-Identifier: Apache-2.0
"""`max_concurrency="adaptive"` against an API that bears so many requests at once.

`CLINE_TEST_FULL=1` changes that number under way, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from cline_transport.simulator import ApiLimits, LimitCounts, Simulator
from tests.limits.redis_server import RedisServer

from .harness import FULL, Api, Worker, let_pass, stop, workers

SETTLED = 10.0
"""Seconds after which the number should be found: some hundred calls."""

LOOKED_AT = 5.0

CHANGES = [10, 20, 6] if FULL else [10]


def test_a_fleet_finds_how_much_the_api_bears(own_redis: RedisServer) -> None:
    follow(["a", "b", "c", "d"], tasks=12, limits={"storage": own_redis.url})


def test_a_process_finds_how_much_the_api_bears() -> None:
    follow(["a"], tasks=40, limits={})


def follow(names: list[str], *, tasks: int, limits: dict[str, Any]) -> None:
    limits = {"max_concurrency": "adaptive", **limits}
    with (
        Simulator(respond=Api(0.05, 0.15)) as api,
        workers(api, names, tasks=tasks, limits=limits) as fleet,
    ):
        for number in CHANGES:
            api.limits = ApiLimits(concurrent=number)
            if number == CHANGES[0]:
                for worker in fleet:
                    worker.go()
                api.wait_for(lambda: api.counts.served > 0)
            let_pass(api, SETTLED)
            before, seen = api.counts, len(fleet[0].reports)
            let_pass(api, LOOKED_AT)
            # It swings between a refusal, a tenth less, and one more for each forty answers.
            assert found(fleet[0].reports[seen:]) == pytest.approx(number, rel=0.2)
            assert refused(before, api.counts) < 0.05
        stop(fleet)
        assert failed(fleet) == []


def found(reports: Sequence[dict[str, Any]]) -> float:
    """The number of permits, on average over time."""
    spans = [(after["at"] - before["at"], before["limit"]) for before, after in pairwise(reports)]
    total: float = sum(seconds for seconds, _ in spans)
    return float(sum(seconds * limit for seconds, limit in spans)) / total


def refused(before: LimitCounts, after: LimitCounts) -> float:
    refusals = after.concurrency_refused - before.concurrency_refused
    return refusals / (refusals + after.served - before.served)


def failed(fleet: Sequence[Worker]) -> list[str]:
    return [problem for worker in fleet for problem in worker.failed]
