# SPDX-License-Identifier: Apache-2.0
"""The loop and the body stream of asynchronous clients (asyncio, trio). `_sync` is its twin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

import anyio

from cline_transport._current import HttpSuppressed
from cline_transport._dropped import drop, settle
from cline_transport._exchange import EXCHANGE, Exchange
from cline_transport._family import Family
from cline_transport._http_spans import AttemptSpans, AttemptView
from cline_transport._limiter import Limiter, Turn
from cline_transport._overrides import effective
from cline_transport._protocols import Clock, RequestLike, ResponseLike
from cline_transport._wake import Wake, loop_closed
from cline_transport.retry import RetryThrottle
from cline_transport.settings import Settings
from cline_transport.telemetry import Telemetry, logger

__all__ = ["AsyncBody", "AsyncLoop"]

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)


class AsyncLoop(Generic[RequestT, ResponseT]):
    """Attempts until the call's state machine says that one is the last."""

    def __init__(
        self,
        family: Family[RequestT, ResponseT],
        transport: Any,
        body: Callable[[Any, Exchange[RequestT, ResponseT]], Any],
        *,
        settings: Settings | None,
        tracer_provider: Any,
        meter_provider: Any,
        logger_provider: Any,
    ) -> None:
        self.settings = Settings() if settings is None else settings
        self.clock = Clock()
        self.sleep: Callable[[float], Awaitable[None]] = anyio.sleep
        self.pause: Callable[[Wake, float], Awaitable[object]] = Wake.wait
        self.spans = AttemptSpans(
            family.name,
            "handle_async_request",
            transport,
            self._exchange_traced,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
        )
        self._family = family
        self._transport = transport
        self._body = body
        self._telemetry = Telemetry(tracer_provider, meter_provider, logger_provider)
        self._throttle = RetryThrottle()
        self._limiter = Limiter(self.settings.limits)

    async def handle(self, request: RequestT) -> ResponseT:
        """Send the request, as often as the policy says; return the response to deliver."""
        settle()
        settings = effective(self.settings, request.extensions)
        if not settings.enabled:
            plain: ResponseT = await self.spans.plain(request)
            return plain
        exchange = Exchange(
            self._family,
            request,
            settings=settings,
            throttle=self._throttle,
            clock=self.clock,
            telemetry=self._telemetry,
            limiter=self._limiter,
        )
        try:
            await self._attempt(exchange, 0.0)
            while (wait := exchange.wait()) is not None:
                await self.sleep(wait)
                await self._attempt(exchange, wait)
            return exchange.deliver(self._body)
        except GeneratorExit as exc:
            # The garbage collector may be closing us, in the middle of what ending a call needs.
            drop(partial(exchange.abandon, exc))
            raise
        except BaseException as exc:
            exchange.abandon(exc)
            response = exchange.response
            if response is not None and exchange.passes_on:
                await _close(response.stream)
            raise

    async def _attempt(self, exchange: Exchange[RequestT, ResponseT], wait: float) -> None:
        """Make one attempt; what comes of it is noted in the exchange, and not raised."""
        turn = exchange.turn()
        if turn is not None:
            await self._wait_for(turn)
            if not exchange.take(turn):
                return
            wait += turn.waited
        request = exchange.begin(wait)
        send = self._exchange
        telemetry = exchange.telemetry
        hidden = telemetry.enabled and self.spans.instrumented
        ours = telemetry.wants_attempts
        if hidden or ours or self.spans.adopted is not None:
            try:
                send_traced = self.spans.send
                if telemetry.enabled:
                    exchange.view = AttemptView(request, headers=self.spans.reads_headers)
                with telemetry.current():
                    response = await send_traced(request)
                if not exchange.sent:  # it never came to us: it is the answer all the same
                    await self._exchange(_returning(response), request)
            except Exception:
                if exchange.sent and not exchange.decided:
                    raise
                logger.debug("an attempt's HTTP span saw an exception", exc_info=True)
            if exchange.sent:
                return
            # An instrumentation failed, or a hook of it: the call goes on without.
            request = exchange.begin(wait)
            send = self._exchange_beneath
        telemetry.inject(request.headers)
        try:
            await send(self._transport.handle_async_request, request)
        except Exception:
            if not exchange.decided:
                raise

    async def _wait_for(self, turn: Turn) -> None:
        if turn.join(loop_closed()):
            return
        wake = Wake()
        while (seconds := turn.pause(wake.set)) is not None:
            await self.pause(wake, seconds)
            turn.proceed()

    async def _exchange_traced(
        self, send: Callable[[RequestT], Awaitable[ResponseT]], request: RequestT
    ) -> ResponseT:
        exchange: Exchange[RequestT, ResponseT] = request.extensions[EXCHANGE][0]
        exchange.traced = True
        if exchange.view is not None:
            exchange.view.lift(request)
        exchange.telemetry.inject_beneath(request.headers)
        try:
            response = await self._exchange_beneath(send, request)
        except Exception as exc:
            shown = exchange.shown(exc)
            if shown is exc:
                raise
            raise shown from None
        return response if exchange.view is None else exchange.view.lower(response)

    async def _exchange_beneath(
        self, send: Callable[[RequestT], Awaitable[ResponseT]], request: RequestT
    ) -> ResponseT:
        with HttpSuppressed():
            return await self._exchange(send, request)

    async def _exchange(
        self, send: Callable[[RequestT], Awaitable[ResponseT]], request: RequestT
    ) -> ResponseT:
        """Send, and read what has to be read before the attempt can be ruled on."""
        exchange: Exchange[RequestT, ResponseT] = request.extensions[EXCHANGE].pop()
        exchange.sent = True
        try:
            response = await send(request)
        except Exception as exc:
            exchange.failed(exc)
            raise
        try:
            raw, complete = await self._read(exchange, response)
        except exchange.transport_error as exc:
            exchange.failed(exc)
            raise
        try:
            exchange.received(raw, complete=complete)
        finally:
            if not exchange.passes_on:
                await _end(response.stream if exchange.rest is None else exchange.rest, exchange)
        return response

    async def _read(
        self, exchange: Exchange[RequestT, ResponseT], response: ResponseT
    ) -> tuple[bytes | None, bool]:
        """Read what may hold an error; what is too long to be one is read later."""
        plan = exchange.plan(response)
        if plan == "pass" or (plan == "stream" and not exchange.holds):
            return None, False
        chunks: list[bytes] = []
        size = 0
        stream = response.stream
        iterator: AsyncIterator[bytes] = stream.__aiter__()
        try:
            if plan == "stream":
                exchange.rest = _Resumed(chunks, iterator, stream)
                async for chunk in iterator:
                    if exchange.hold(chunk):
                        break
                else:
                    exchange.hold_end()
                return None, False
            async for chunk in iterator:
                chunks.append(chunk)
                size += len(chunk)
                if size > exchange.limit:
                    exchange.rest = _Resumed(chunks, iterator, stream)
                    break
        except BaseException as exc:
            await _close(stream)
            if plan != "error" or not isinstance(exc, exchange.transport_error):
                raise
            # The status is known: this is an HTTP error, with what has come of its body.
            exchange.rest = _Resumed(chunks, _failing(exc), stream)
        return b"".join(chunks)[: exchange.limit], exchange.rest is None


def _returning(response: ResponseT) -> Callable[[Any], Awaitable[ResponseT]]:
    async def send(_: Any) -> ResponseT:
        return response

    return send


async def _failing(exc: Exception) -> AsyncIterator[bytes]:
    raise exc
    yield


async def _end(stream: Any, exchange: Exchange[Any, Any]) -> None:
    """Close what is not delivered; a stream that said why it failed is read to its end first."""
    try:
        if isinstance(stream, _Resumed) and exchange.at_error:
            await _drain(stream.rest)
    finally:  # cancelled or not: not each library closes what it was read from
        await _close(stream)


async def _close(stream: Any) -> None:
    # Cancelled or not: a connection must not stay checked out.
    with anyio.CancelScope(shield=True):
        await stream.aclose()


async def _finish(iterator: AsyncIterator[bytes]) -> None:
    """End a generator that was left off, before the event loop does (trio warns when it does)."""
    if isinstance(iterator, AsyncGenerator):
        # While another task reads it, it cannot be closed: then that task ends it.
        with suppress(RuntimeError):
            await iterator.aclose()


class _Resumed:
    """A stream of which some chunks were read ahead."""

    def __init__(self, chunks: list[bytes], rest: AsyncIterator[bytes], stream: Any) -> None:
        self._chunks = chunks
        self.rest = rest
        self._stream = stream

    @property
    def unread(self) -> AsyncIterator[bytes]:
        """All of it; without a step in between where nothing was kept."""
        return self.__aiter__() if self._chunks else self.rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        self._chunks.clear()
        async for chunk in self.rest:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
        await _finish(self.rest)


class AsyncBody:
    """The body of a delivered response: inspected as it passes, its end reported once.

    It is its own iterator: to iterate it again goes on where the last iteration stopped.
    """

    def __init__(self, stream: Any, exchange: Exchange[Any, Any]) -> None:
        self._stream = stream
        self._exchange = exchange
        self._iterator: AsyncIterator[bytes] = (
            stream.unread if isinstance(stream, _Resumed) else stream.__aiter__()
        )
        self._held = exchange.take_held()
        self._passes = exchange.passes
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._held:
            held, self._held = self._held, b""
            return held
        exchange = self._exchange
        while True:
            error = exchange.stream_error()
            if error is not None:
                await self.aclose()
                try:
                    raise error
                finally:
                    del error
            try:
                chunk = await self._iterator.__anext__()
                out = chunk if self._passes(chunk) else exchange.on_chunk(chunk)
            except StopAsyncIteration:
                out = exchange.on_end()
                if not out and exchange.stream_error() is None:
                    raise
            except BaseException as exc:
                exchange.on_body_exception(exc)
                raise
            if out:
                return out

    async def aclose(self) -> None:
        """Close the stream beneath; the call is over."""
        self._closed = True
        try:
            try:
                if self._exchange.at_done and self._exchange.network_stream is not None:
                    await _drain(self._iterator)
            finally:
                await self._stream.aclose()
            await _finish(self._iterator)
        finally:
            self._exchange.on_close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # dropped unread: its span ends all the same
            drop(self._exchange.on_close)


_DRAIN_SECONDS: Final = 0.1
_DRAIN_CHUNKS: Final = 16


async def _drain(iterator: AsyncIterator[bytes]) -> None:
    """Read the end of a body that has said `[DONE]`, so that its connection can be used again.

    HTTP/1.1 keeps a connection only when its last response was read to the end.
    """
    with suppress(Exception), anyio.move_on_after(_DRAIN_SECONDS):
        for _ in range(_DRAIN_CHUNKS):
            await iterator.__anext__()
