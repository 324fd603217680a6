# SPDX-License-Identifier: Apache-2.0
"""Calls that are cancelled or interrupted while limits hold them: nothing stays in the line."""

from __future__ import annotations

import asyncio
import importlib
import logging
from contextlib import closing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cline_transport import Settings
from cline_transport._dropped import settle
from cline_transport._limiter import LINES
from cline_transport._wake import Wake
from cline_transport.limits import LimitSettings
from cline_transport.simulator import Reply, Simulator
from tests.conftest import handled

from .limited import ONCE, limited, line, really_waiting
from .rig import CHAT, Rig, unread


@unread
def test_a_call_cancelled_while_it_waits_leaves_the_line(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    rig = async_rig
    client = limited(rig, max_concurrency=1)
    waits = really_waiting(rig, client)
    api.enqueue(Reply.stream("a b"), Reply.completion("good"))
    first = client.open("POST", url, json=CHAT)

    async def cancelled() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.raw.post(url, json=CHAT))
            await anyio.to_thread.run_sync(waits.wait)
            group.cancel_scope.cancel()

    client.run(cancelled)
    assert line()._waiting == []
    client.close(first)
    assert line().held == 0
    assert client.request("POST", url, json=CHAT).status == 200


@unread
def test_a_call_cancelled_in_the_moment_of_its_turn_gives_it_back(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    client = limited(async_rig, max_concurrency=1)
    api.enqueue(Reply.stream("a b"))
    first = client.open("POST", url, json=CHAT)

    async def pause(wake: Wake, seconds: float) -> None:
        with anyio.CancelScope(shield=True):
            await first.aclose()  # its permit goes to the call that waits here
        assert line().held == 1
        scope.cancel()
        await anyio.lowlevel.checkpoint()

    async def call() -> None:
        with scope:
            await client.raw.post(url, json=CHAT)

    client.raw._transport._loop.pause = pause
    scope = client.run(anyio.CancelScope)
    client.run(call)
    assert (line().held, line()._waiting) == (0, [])


def test_an_interrupted_wait_leaves_the_line(sync_rig: Rig, api: Simulator, url: str) -> None:
    client = limited(sync_rig, max_concurrency=1)
    api.enqueue(Reply.stream("a b"))
    first = client.open("POST", url, json=CHAT)

    def interrupt(wake: object, seconds: float) -> None:
        raise KeyboardInterrupt

    client.raw._transport._loop.pause = interrupt
    with pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert line()._waiting == []
    client.close(first)
    assert line().held == 0


def test_a_call_cancelled_while_it_is_sent_gives_its_permit_back(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    client = limited(async_rig, max_concurrency=1)
    api.enqueue(Reply.stall())

    async def call() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.raw.post(url, json=CHAT))
            await anyio.to_thread.run_sync(lambda: api.wait_for(lambda: len(api.requests) == 1))
            group.cancel_scope.cancel()

    client.run(call)
    assert line().held == 0


def test_an_interrupt_while_it_is_told_keeps_no_permit(
    sync_rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cline_transport")

    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "cooldown" in record.msg:
                raise KeyboardInterrupt

    client = limited(sync_rig, max_concurrency=1)
    api.enqueue(Reply.error(429, retry_after=7))
    with handled(Interrupted()), pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert line().held == 0


def test_an_interrupt_in_the_moment_of_its_turn_keeps_no_permit(
    sync_rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited(sync_rig, max_concurrency=1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cline_transport.telemetry.CallTelemetry.on_turn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert line().held == 0


def test_a_log_handler_may_make_a_call_of_its_own(
    sync_rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cline_transport")
    answers: list[int] = []

    class Calling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "cooldown" in record.msg and not answers:
                answers.append(0)
                answers.append(client.request("POST", url, json=CHAT).status)

    client = limited(sync_rig, max_concurrency=1)
    api.enqueue(Reply.error(429, retry_after=7), Reply.completion("good"))
    with handled(Calling()):
        client.request("POST", url, json=CHAT)
    assert answers == [0, 200]


@unread
def test_a_coroutine_that_the_collector_closes_ends_its_call_later(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    client = limited(async_rig, max_concurrency=1)
    api.enqueue(Reply.stream("a b"))
    first = client.open("POST", url, json=CHAT)

    async def never(wake: Wake, seconds: float) -> None:
        await anyio.sleep_forever()

    async def left_behind() -> None:
        client.raw._transport._loop.pause = never
        request = client.raw.build_request("POST", url, json=CHAT)
        coroutine = client.raw._transport.handle_async_request(request)
        coroutine.send(None)  # it waits for its turn
        assert len(line()._waiting) == 1
        coroutine.close()
        assert len(line()._waiting) == 1
        settle()
        assert line()._waiting == []

    client.run(left_behind)
    client.close(first)
    assert line().held == 0


def test_a_loop_that_stands_still_holds_no_other_call(url: str, api: Simulator) -> None:
    """As `run_until_complete` leaves a task behind, or a task blocks its loop."""
    limits = Settings(limits=LimitSettings(), retry=ONCE)
    api.enqueue(Reply.error(429, retry_after=0.05), Reply.completion("a"), Reply.completion("b"))
    httpx: Any = pytest.importorskip("httpx")
    ours: Any = importlib.import_module("cline_transport.httpx")
    waiting = httpx.AsyncClient(transport=ours.AsyncClineTransport(settings=limits))

    async def leave_a_call_behind() -> Any:
        task = asyncio.ensure_future(waiting.post(url, json=CHAT))
        while not (LINES and line()._waiting):
            await anyio.lowlevel.checkpoint()
        return task

    async def come_back(task: Any) -> Any:
        response = await task
        await waiting.aclose()
        return response.status_code

    loop = asyncio.new_event_loop()
    with closing(loop), httpx.Client(transport=ours.ClineTransport(settings=limits)) as client:
        client.post(url, json=CHAT)
        left = loop.run_until_complete(leave_a_call_behind())
        assert client.post(url, json=CHAT).status_code == 200
        assert loop.run_until_complete(come_back(left)) == 200
