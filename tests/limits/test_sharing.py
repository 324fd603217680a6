# SPDX-License-Identifier: Apache-2.0
"""Processes that share limits through a real Redis, and what becomes of calls when it is gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
import redis

from cline_transport import _line
from cline_transport._dropped import drop
from cline_transport._limiter import Turn, key_of
from cline_transport._protocols import Clock
from cline_transport._sharing import Sharing
from cline_transport._stores.redis import RedisStore
from cline_transport.limits import LimitSettings, Rules
from tests.conftest import handled

from .conftest import HEAD
from .redis_server import RedisServer


class Call:
    """As much of a call as its turn asks for."""

    number = 1
    until = float("inf")

    def __init__(self) -> None:
        self.started = time.monotonic()


class Process:
    """What another process would be: a limiter with lines and a connection of its own."""

    def __init__(self, url: str, **limits: Any) -> None:
        settings = LimitSettings(storage=url, **limits)
        self.sharing = Sharing(RedisStore(url), "redis://test")
        self.turns: list[Turn] = []
        self.line = self.sharing.line(key_of(HEAD), Rules.of(settings), Clock())

    def end(self) -> None:
        """The first attempt is over."""
        self.turns.pop(0).end(())

    def go(self, *, within: float = 10.0) -> tuple[bool, float]:
        """Wait for a turn, in real time; whether local limits gave it, and after how long."""
        began = time.monotonic()
        turn = Turn(self.line, Call())
        self.turns.append(turn)
        event = threading.Event()
        if not turn.join():
            while (seconds := turn.pause(event.set)) is not None:
                event.wait(min(seconds, within))
                event.clear()
                turn.proceed()
                assert time.monotonic() - began < within
        return turn.alone, time.monotonic() - began


MakeProcess = Callable[..., Process]


def eventually(condition: Callable[[], bool], event: threading.Event | None = None) -> None:
    """Wait for what another thread is about to do."""
    event, until = event or threading.Event(), time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        event.wait(0.002)


@pytest.fixture
def processes() -> Generator[MakeProcess, None, None]:
    """Makes them, and ends them after the test."""
    made: list[Process] = []

    def make(url: str, **limits: Any) -> Process:
        made.append(Process(url, **limits))
        return made[-1]

    yield make
    for process in made:
        process.sharing.stop()


def test_two_processes_share_permits(
    processes: MakeProcess, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_line, "PATIENCE", 10.0)  # however busy the machine is
    first, second = (processes(own_redis.url, max_concurrency=1) for _ in range(2))
    assert first.go()[0] is False
    waiting = threading.Thread(target=second.go)
    waiting.start()
    eventually(lambda: second.line._reason == "concurrency")
    assert second.line.held == 0
    first.end()
    waiting.join(10)
    assert second.line.held == 1


def test_a_cooldown_of_one_holds_the_other(processes: MakeProcess, own_redis: RedisServer) -> None:
    first, second = (processes(own_redis.url) for _ in range(2))
    first.go()
    first.line.cool(0.3)
    eventually(lambda: first.sharing._due == {})
    assert second.go()[1] >= 0.2


def test_a_process_that_ends_gives_back_what_it_holds(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    first, second = (processes(own_redis.url, max_concurrency=1) for _ in range(2))
    first.go()
    first.sharing.stop()
    assert second.go(within=3)[0] is False
    # One that is over asks nobody any more.
    first.end()
    assert first.go()[0] is True


def test_one_that_holds_a_permit_says_so_before_its_lease_ends(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    first = processes(own_redis.url, max_concurrency=1, lease=1.0)
    first.go()
    client: Any = redis.Redis(port=own_redis.port)
    [key] = client.keys()
    seen = client.get(key)
    eventually(lambda: client.get(key) != seen)
    client.close()


@pytest.mark.parametrize("trouble", ["stopped", "paused"])
def test_without_redis_calls_go_on_and_with_it_they_share_again(
    processes: MakeProcess,
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    caplog.set_level(logging.INFO, "cline_transport")
    first = processes(own_redis.url, max_concurrency=2)
    assert first.go()[0] is False
    if trouble == "stopped":
        own_redis.stop()
    else:
        own_redis.pause()
    alone, waited = first.go()
    assert alone is True
    assert waited < 1.0  # 100 ms, on a machine that is busy
    assert first.line.held == 2
    eventually(lambda: not first.sharing.healthy)
    first.end()
    assert first.go()[0] is True
    if trouble == "stopped":
        own_redis.start()
    else:
        own_redis.resume()
    eventually(lambda: first.sharing.healthy)
    eventually(lambda: not first.line.alone)
    second = processes(own_redis.url, max_concurrency=3)
    second.go()
    assert second.line._state.workers == {}  # by Redis, which was told of the two
    told = [message for message in caplog.messages if message.startswith("limits are")]
    assert [message.partition(":")[0] for message in told] == [
        "limits are not shared",
        "limits are shared again",
    ]
    assert "password" not in caplog.text


def test_a_flushed_redis_is_told_again_what_is_held(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    first, second = (processes(own_redis.url, max_concurrency=1, lease=1.0) for _ in range(2))
    first.go()
    client: Any = redis.Redis(port=own_redis.port)
    client.flushall()
    eventually(lambda: client.keys() != [])  # its next sign of life
    client.close()
    waiting = threading.Thread(target=second.go)
    waiting.start()
    eventually(lambda: second.line._reason == "concurrency")
    first.end()
    waiting.join(10)


def test_a_line_that_is_forgotten_is_not_reported_for(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    first = processes(own_redis.url)
    first.go()
    first.sharing.forget(first.line)
    assert first.go()[0] is True  # nobody answers for it


def test_it_is_connected_before_the_first_call(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    client: Any = redis.Redis(port=own_redis.port)
    before = client.info("clients")["connected_clients"]
    first = processes(own_redis.url)
    first.sharing.prepare()
    first.sharing.prepare()  # by another transport
    eventually(lambda: client.info("clients")["connected_clients"] > before)
    client.close()


def test_one_that_is_gone_at_the_start_is_told_once_and_found_later(
    processes: MakeProcess, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cline_transport")
    own_redis.stop()
    first = processes(own_redis.url)
    first.sharing.forget(first.line)  # no call was made yet
    first.sharing.prepare()
    eventually(lambda: not first.sharing.healthy)
    own_redis.start()
    eventually(lambda: len(caplog.messages) == 2)
    assert first.sharing.healthy
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "limits are not shared",
        "limits are shared again",
    ]


def test_what_was_dropped_gives_back_its_permit_though_no_call_follows(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    first, second = (processes(own_redis.url, max_concurrency=1, lease=1.0) for _ in range(2))
    first.go()
    drop(first.end)  # as a body does that nobody reads
    assert second.go(within=5)[0] is False


def test_a_line_that_is_busy_keeps_no_sign_of_life_from_the_others(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    first = processes(own_redis.url)
    quiet, busy = (first.sharing.line(key, first.line.rules, Clock()) for key in "ab")
    first.sharing._plan(quiet, 0.0)
    first.sharing._request(busy)
    first.sharing._request(busy)
    eventually(lambda: first.sharing._due == {})
    assert quiet._asked == busy._asked


def test_a_log_handler_that_raises_stops_nothing(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    with handled(Full()):
        first = processes(own_redis.url)
        first.go()
        own_redis.stop()
        assert first.go()[0] is True
        eventually(lambda: not first.sharing.healthy)
        own_redis.start()
        eventually(lambda: first.sharing.healthy)
        eventually(lambda: not first.line.alone)


def test_a_step_that_fails_is_not_the_last(
    processes: MakeProcess, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = processes(own_redis.url)
    first.go()

    def fail(_: object) -> float:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(first.line, "apply", fail)
        assert first.go()[0] is True
    first.go()
    eventually(lambda: not first.line.alone)


def test_a_key_that_redis_refuses_leaves_the_others_shared(
    processes: MakeProcess, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cline_transport")
    first = processes(own_redis.url, max_concurrency=1)
    other = first.sharing.line("other", first.line.rules, Clock())
    client: Any = redis.Redis(port=own_redis.port)
    client.rpush(f"cline_transport:{{{key_of(HEAD)}}}", "a list")
    assert first.go()[0] is True
    eventually(lambda: first.line in first.sharing._failing)
    first.sharing._report(first.line)  # it is told once
    own, first.line = first.line, other
    assert first.go()[0] is False
    assert first.sharing.healthy
    client.flushall()
    client.close()
    eventually(lambda: not own.alone)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "limits of a key are not shared",
        "limits of a key are shared again",
    ]


def test_one_that_was_never_used_has_nothing_to_stop(
    processes: MakeProcess, own_redis: RedisServer
) -> None:
    processes(own_redis.url).sharing.stop()


def test_where_no_thread_can_be_started_calls_go_on(
    processes: MakeProcess, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    first = processes(own_redis.url, max_concurrency=1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert first.go()[0] is True
    first.end()
