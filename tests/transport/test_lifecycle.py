# SPDX-License-Identifier: Apache-2.0
"""Cancellation, interruption and closing: nothing stays checked out, nothing is retried."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cline_transport import _async, _sync
from cline_transport._dropped import settle
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, unread


def pool(rig: Rig, inner: Any) -> list[Any]:
    """The connections that are neither idle nor closed."""
    return [c for c in inner._pool.connections if not (c.is_idle() or c.is_closed())]


async def cancel_when(event: Callable[[], Any], function: Callable[[], Any]) -> None:
    """Run `function` and cancel it once `event`, which blocks a thread, has happened."""
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await function()
            raise AssertionError("it was to be cancelled")

        group.start_soon(run)
        await anyio.to_thread.run_sync(event)
        group.cancel_scope.cancel()


@unread
def test_a_call_cancelled_while_its_stream_is_held_is_over(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    api.enqueue(Reply.stream("a b", gate=Gate(1)))  # the role, and no word

    async def call() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.raw.post, url)
            await anyio.to_thread.run_sync(lambda: api.wait_for(lambda: len(api.requests) == 1))
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    client.run(call)
    check_cancelled(rig, inner, 1)
    assert len(api.requests) == 1


def check_cancelled(rig: Rig, inner: Any, attempts: int) -> None:
    assert pool(rig, inner) == []
    [call], https = rig.finished()
    assert len(https) == attempts
    found = dict(call.attributes or {})
    assert found["error.type"] in ("CancelledError", "Cancelled")
    assert call.status.description == "cancelled"


def test_a_call_cancelled_while_it_waits_for_a_response_is_over(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    api.enqueue(Reply.stall(), Reply.completion("never"))
    client.run(
        cancel_when,
        lambda: api.wait_for(lambda: len(api.requests) == 1),
        lambda: client.raw.post(url, json=CHAT),
    )
    check_cancelled(rig, inner, 1)
    assert len(api.requests) == 1


def test_a_call_cancelled_between_attempts_is_over(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    rig, inner = async_rig, async_rig.inner()
    transport = rig.transport(inner, traced=True)
    transport._loop.sleep = anyio.sleep  # a real wait of a second, cancelled at once
    client = rig.client(transport)
    api.enqueue(Reply.error(503), Reply.completion("never"))
    client.run(
        cancel_when,
        lambda: api.wait_for(lambda: len(api.requests) == 1),
        lambda: client.raw.post(url, json=CHAT),
    )
    check_cancelled(rig, inner, 1)
    assert len(api.requests) == 1


def draining(rig: Rig, patch: pytest.MonkeyPatch) -> threading.Event:
    """Let the end of a stream be waited for, for as long as it takes; the event says that it is.

    A synchronous client is interrupted then.
    """
    begun, drain = threading.Event(), _async._drain

    async def drain_async(iterator: Any) -> None:
        begun.set()
        await drain(iterator)

    def interrupted(iterator: Any, network: Any) -> None:
        raise KeyboardInterrupt

    if rig.is_sync:
        patch.setattr(_sync, "_drain", interrupted)
    else:
        patch.setattr(_async, "_DRAIN_SECONDS", 60.0)
        patch.setattr(_async, "_drain", drain_async)
    return begun


FAILS_AND_STALLS = Reply.stream("a", error="server_error", error_after=0, done=False, then="stall")


@unread
def test_a_call_cancelled_while_a_failed_stream_comes_to_its_end_is_over(
    async_rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    api.enqueue(FAILS_AND_STALLS, Reply.completion("never"))
    begun = draining(rig, monkeypatch)
    client.run(cancel_when, lambda: begun.wait(10), lambda: client.raw.post(url, json=CHAT))
    check_cancelled(rig, inner, 1)
    assert inner._pool._requests == []


def test_a_call_interrupted_while_a_failed_stream_comes_to_its_end_is_over(
    sync_rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, inner = sync_rig, sync_rig.inner()
    client = rig.client(rig.transport(inner))
    api.enqueue(FAILS_AND_STALLS, Reply.completion("never"))
    draining(rig, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert pool(rig, inner) == inner._pool._requests == []


@unread
def test_a_stream_whose_end_is_waited_for_is_closed_when_that_is_cancelled(
    async_rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    api.enqueue(Reply.stream("a", then="stall"))
    begun = draining(rig, monkeypatch)

    async def call() -> None:
        response = await client.raw.send(client.raw.build_request("POST", url), stream=True)
        async for chunk in response.stream:
            if b"[DONE]" in chunk:
                break
        await response.aclose()

    client.run(cancel_when, lambda: begun.wait(10), call)
    assert pool(rig, inner) == inner._pool._requests == []
    assert len(rig.finished()[0]) == 1


def test_a_stream_whose_end_is_waited_for_is_closed_when_that_is_interrupted(
    sync_rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, inner = sync_rig, sync_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    api.enqueue(Reply.stream("a", then="stall"))
    response = client.open("POST", url, json=CHAT)
    for chunk in response.stream:
        if b"[DONE]" in chunk:
            break
    draining(rig, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        response.close()
    assert pool(rig, inner) == inner._pool._requests == []
    assert len(rig.finished()[0]) == 1


@pytest.mark.parametrize("status", [200, 403])
def test_a_call_cancelled_while_a_body_is_read_for_it_is_over(
    async_rig: Rig, api: Simulator, url: str, status: int
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    gate = Gate(1)
    body = [b'{"error": ', b'{"message": "m"}}']
    headers = [("content-type", "application/json")]
    api.enqueue(Reply.raw(status, headers=headers, body=body, gate=gate))

    async def call() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.raw.post, url)
            await anyio.to_thread.run_sync(lambda: api.wait_for(lambda: len(api.requests) == 1))
            # The first part is on its way; a checkpoint or two later the reader waits for the next.
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    client.run(call)
    check_cancelled(rig, inner, 1)


@unread
def test_a_stream_cancelled_while_it_is_read_is_over(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    gate = Gate(3)
    api.enqueue(Reply.stream("a b c d", gate=gate))

    async def call() -> None:
        with anyio.CancelScope() as scope:
            async with client.raw.stream("POST", url, json=CHAT) as response:
                events = 0
                async for chunk in response.aiter_raw():
                    events += chunk.count(b"\n\n")
                    if events == 3:
                        scope.cancel()

    client.run(call)
    check_cancelled(rig, inner, 1)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_between_attempts_is_never_retried(
    sync_rig: Rig, api: Simulator, url: str, interruption: type[BaseException]
) -> None:
    rig, inner = sync_rig, sync_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    api.enqueue(Reply.error(503), Reply.completion("never"))

    def interrupt() -> None:
        raise interruption

    rig.time.on_wait = interrupt
    with pytest.raises(interruption):
        client.raw.post(url, json=CHAT)
    assert pool(rig, inner) == []
    assert len(api.requests) == 1
    [call], _ = rig.finished()
    assert dict(call.attributes or {})["error.type"] == interruption.__name__


def test_an_interruption_while_an_error_is_read_is_never_retried(sync_rig: Rig, url: str) -> None:
    rig = sync_rig
    closed: list[str] = []

    class Interrupted(rig.library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Any:
            yield b"{"
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append("closed")

    def handler(_: Any) -> Any:
        return rig.library.Response(503, stream=Interrupted())

    mock = rig.library.MockTransport(handler)
    client = rig.client(rig.transport(mock))
    with pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert closed == ["closed"]


def test_an_exception_that_is_none_of_the_wires_comes_out_as_it_is(rig: Rig, url: str) -> None:
    boom = ValueError("a transport of the application's own")

    def handler(_: Any) -> Any:
        raise boom

    client = rig.client(rig.transport(rig.library.MockTransport(handler), traced=True))
    answer = client.post(url, json=CHAT)
    assert answer.exception is boom
    [call], [attempt] = rig.finished()
    assert dict(call.attributes or {})["error.type"] == "ValueError"
    assert dict(attempt.attributes or {})["cline.error.code"] == "ValueError"


@unread
def test_a_response_may_be_closed_while_another_task_reads_it(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    rig, inner = async_rig, async_rig.inner()
    client = rig.client(rig.transport(inner, traced=True))
    gate = Gate(2)  # the role and a first word
    api.enqueue(Reply.stream("a b", gate=gate))

    async def call() -> list[BaseException]:
        response = await client.raw.send(client.raw.build_request("POST", url), stream=True)
        found: list[BaseException] = []
        first = anyio.Event()

        async def read() -> None:
            try:
                async for _ in response.stream:
                    first.set()
            except Exception as exc:  # noqa: BLE001 -- which one depends on the backend
                found.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await first.wait()
            await anyio.lowlevel.checkpoint()
            await response.aclose()
        return found

    assert len(client.run(call)) == 1
    assert pool(rig, inner) == []
    assert len(rig.finished()[0]) == 1


@unread
@pytest.mark.parametrize("traced", [True, False])
def test_a_failing_exchange_of_ours_is_not_sent_again(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch, *, traced: bool
) -> None:
    from cline_transport.call import Call  # noqa: PLC0415 -- broken on purpose, here only

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Call, "on_stream", broken)
    inner = rig.inner()
    client = rig.client(rig.transport(inner, traced=traced))
    api.enqueue(Reply.stream("a"), Reply.stream("b"))
    assert isinstance(client.post(url, json=CHAT).exception, RuntimeError)
    assert len(api.requests) == 1
    assert pool(rig, inner) == []
    assert len(rig.finished()[0]) == traced


def test_a_stream_need_not_be_a_generator(async_rig: Rig) -> None:
    rig = async_rig

    class Parts(rig.library.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self._parts = iter([b"a", b"b"])

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            for part in self._parts:
                return part
            raise StopAsyncIteration

    def handler(_: Any) -> Any:
        return rig.library.Response(200, stream=Parts())

    client = rig.client(rig.transport(rig.library.MockTransport(handler)))
    assert client.post("http://127.0.0.1/").body == b"ab"


@pytest.mark.parametrize("chunks", [0, 1])
def test_a_response_that_is_dropped_is_ended_by_the_next_call(
    chunks: int, sync_rig: Rig, api: Simulator, url: str
) -> None:
    inner = sync_rig.inner()
    client = sync_rig.client(sync_rig.transport(inner, traced=True))
    gate = Gate(2)
    api.enqueue(Reply.stream("a b c", gate=gate), Reply.completion("x"))
    response = client.open("POST", url, json=CHAT)
    response.itself = response
    for _ in range(chunks):
        assert next(iter(response.stream))
    del response
    gc.collect()  # it may run anywhere, also where a lock is held: nothing is done in it
    assert sync_rig.finished()[0] == []
    assert len(pool(sync_rig, inner)) == 1
    client.post(url, json=CHAT)
    assert len(sync_rig.finished()[0]) == 2
    assert [c for c in inner._pool.connections if not c.is_idle()] == []


def test_one_whose_stream_refers_to_it_is_ended_too(sync_rig: Rig) -> None:
    closed: list[int] = []

    class Logged(sync_rig.library.SyncByteStream):  # type: ignore[misc, name-defined]
        """What a transport that logs puts around a response's stream."""

        def __init__(self, response: Any) -> None:
            self.response = response

        def __iter__(self) -> Any:
            yield from (b"a", b"b")

        def close(self) -> None:
            closed.append(1)

    def handler(_: Any) -> Any:
        response = sync_rig.library.Response(200, stream=sync_rig.library.ByteStream(b""))
        response.stream = Logged(response)
        return response

    class Logging(sync_rig.library.BaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            return handler(request)

    client = sync_rig.client(sync_rig.transport(Logging()))
    for _ in range(3):
        client.open("GET", "http://127.0.0.1/")
    gc.collect()
    settle()
    assert len(closed) == 3
