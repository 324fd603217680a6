# SPDX-License-Identifier: Apache-2.0
"""Eight processes with twenty tasks each, on one key that is worth 600 requests a minute.

`CLINE_TEST_FULL=1` lets them work for longer, and takes the ways of doing without a storage too.
"""

from __future__ import annotations

import pytest

from tests.limits.redis_server import RedisServer

from .harness import FULL, measure, strategies

needs_time = pytest.mark.skipif(not FULL, reason="takes minutes: CLINE_TEST_FULL=1")

SECONDS = 30.0 if FULL else 10.0


def test_a_fleet_that_shares_its_limits_uses_them_up_and_is_not_refused(
    own_redis: RedisServer,
) -> None:
    figures = measure(strategies(own_redis.url)["shared limits"], SECONDS)
    # Processes agree on what goes, not on how long the network takes to bring it.
    assert figures.refused < 0.01
    # The API accepts a burst besides, which makes up for what is under way at the end.
    assert figures.throughput >= 0.95
    assert figures.failed == []
    # Turns go round, call by call, so the shares differ by chance only.
    assert figures.least >= 0.7
    assert figures.counts.most_concurrent <= 10


@needs_time
def test_what_some_do_not_need_the_others_get(own_redis: RedisServer) -> None:
    figures = measure(strategies(own_redis.url)["shared limits"], SECONDS, busy=2)
    assert figures.refused < 0.01
    assert figures.throughput >= 0.95
    assert figures.failed == []


@needs_time
def test_fixed_shares_go_to_waste_where_some_do_not_need_them() -> None:
    figures = measure(strategies("")["limits divided by eight"], SECONDS, busy=2)
    assert figures.throughput <= 0.3


@needs_time
@pytest.mark.parametrize(
    ("strategy", "least", "most"),
    [
        # What is told to go away comes again, with all the others.
        ("plain retries", 0.5, 1.0),
        ("cooldown only", 0.3, 1.0),
        ("limits per process", 0.3, 1.0),
        # Fixed shares keep the limits as long as each process is busy.
        ("limits divided by eight", 0.0, 0.01),
    ],
)
def test_without_a_storage(strategy: str, least: float, most: float) -> None:
    figures = measure(strategies("")[strategy], SECONDS)
    assert least <= figures.refused <= most
    assert figures.throughput >= 0.8
