# SPDX-License-Identifier: Apache-2.0
"""A process that dies with permits in its hands, and a Redis that goes and comes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from cline_transport.simulator import ReceivedRequest, Reply, Simulator
from tests.limits.redis_server import RedisServer

from .harness import Api, Worker, let_pass, stop, workers


def test_the_permits_of_a_killed_process_go_to_the_others(own_redis: RedisServer) -> None:
    lease = 1.0
    limits = {"max_concurrency": 4, "lease": lease, "storage": own_redis.url}
    accepted: list[str] = []

    def answer(request: ReceivedRequest) -> Reply:
        accepted.append(request.headers["x-worker"])
        return Reply.ok(delay=60.0 if accepted[-1] == "dies" else 0.3)

    with (
        Simulator(respond=answer) as api,
        workers(api, ["dies"], tasks=4, limits=limits) as [dies],
        workers(api, ["lives"], tasks=8, limits=limits) as [lives],
    ):
        dies.go()
        api.wait_for(lambda: len(accepted) == 4)
        lives.go()
        # As long as it lives it keeps them, beyond any lease.
        let_pass_by_reports(lives, 2 * lease)
        assert accepted == ["dies"] * 4
        dies.process.kill()
        api.wait_for(lambda: api.counts.concurrent == 0)
        killed = time.monotonic()
        api.wait_for(lambda: api.counts.concurrent == 4)
        # The lease, then a poll of at most 0.25 s; the rest is for a busy machine.
        assert time.monotonic() - killed < lease + 1.25
        lives.wait_for(lambda: len(lives.calls) >= 12)
        stop([lives])
        assert lives.failed == []
        assert api.counts.most_concurrent == 4
        assert [line for line in lives.logged if "limits" in line] == []


def restart(redis: RedisServer, see: Callable[[str], None]) -> None:
    tell(redis, b"SHUTDOWN NOSAVE\r\n")
    redis.stop()
    see("limits are not shared")
    redis.start()
    see("limits are shared again")


def freeze(redis: RedisServer, see: Callable[[str], None]) -> None:
    redis.pause()
    try:
        see("limits are not shared")
    finally:
        redis.resume()
    see("limits are shared again")


def flush(redis: RedisServer, see: Callable[[str], None]) -> None:
    tell(redis, b"FLUSHALL\r\n")
    del see  # it answers all the time


def tell(redis: RedisServer, command: bytes) -> None:
    with socket.create_connection(("127.0.0.1", redis.port), timeout=10) as connection:
        connection.sendall(command)
        connection.recv(100)


@pytest.mark.parametrize(
    ("trouble", "outages"),
    [(restart, 1), (freeze, 1), (flush, 0)],
    ids=["restart", "freeze", "flush"],
)
def test_no_call_fails_or_waits_for_a_redis_in_trouble(
    own_redis: RedisServer,
    trouble: Callable[[RedisServer, Callable[[str], None]], None],
    outages: int,
) -> None:
    limits = {"max_concurrency": 8, "storage": own_redis.url}
    with (
        Simulator(respond=Api(0.05, 0.15)) as api,
        workers(api, ["a", "b"], tasks=3, limits=limits) as steady,
        workers(api, ["late"], tasks=12, limits=limits) as late,
    ):

        def see(line: str) -> None:
            for worker in steady:
                worker.wait_for_log(line)
            let_pass(api, 2)

        for worker in steady:
            worker.go()
        let_pass(api, 1)
        trouble(own_redis, see)
        let_pass(api, 1)
        # Six calls at once are less than the limit, and than the two halves of it: what they waited
        # is what Redis cost them, which is 0.1 s by design; the rest is for a busy machine.
        assert max(call.waited for worker in steady for call in worker.calls) < 0.5
        # They share again: who comes now gets what they leave, not a whole limit of its own.
        api.reset()
        late[0].go()
        let_pass(api, 2)
        assert api.counts.most_concurrent == 8
        stop(steady + late)
        assert [worker.failed for worker in steady + late] == [[], [], []]
        for worker in steady:
            said = [line.partition(":")[0] for line in worker.logged if "limits" in line]
            assert said == ["limits are not shared", "limits are shared again"] * outages
        assert late[0].logged == []


def let_pass_by_reports(worker: Worker, seconds: float) -> None:
    """Some time in which the API hears nothing."""
    end = time.monotonic() + seconds
    worker.wait_for(lambda: time.monotonic() >= end)
