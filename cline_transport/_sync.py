# SPDX-License-Identifier: Apache-2.0
"""The loop and the body stream of synchronous clients. `_async` is its twin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from cline_transport._current import HttpSuppressed
from cline_transport._dropped import drop, settle
from cline_transport._exchange import EXCHANGE, Exchange
from cline_transport._family import Family
from cline_transport._http_spans import AttemptSpans, AttemptView
from cline_transport._limiter import Limiter, Turn
from cline_transport._overrides import effective
from cline_transport._protocols import Clock, RequestLike, ResponseLike
from cline_transport.retry import RetryThrottle
from cline_transport.settings import Settings
from cline_transport.telemetry import Telemetry, logger

__all__ = ["SyncBody", "SyncLoop"]

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)


class SyncLoop(Generic[RequestT, ResponseT]):
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
        self.sleep: Callable[[float], None] = time.sleep
        self.pause: Callable[[threading.Event, float], object] = _pause
        self.spans = AttemptSpans(
            family.name,
            "handle_request",
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

    def handle(self, request: RequestT) -> ResponseT:
        """Send the request, as often as the policy says; return the response to deliver."""
        settle()
        settings = effective(self.settings, request.extensions)
        if not settings.enabled:
            plain: ResponseT = self.spans.plain(request)
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
            self._attempt(exchange, 0.0)
            while (wait := exchange.wait()) is not None:
                self.sleep(wait)
                self._attempt(exchange, wait)
            return exchange.deliver(self._body)
        except BaseException as exc:
            exchange.abandon(exc)
            response = exchange.response
            if response is not None and exchange.passes_on:
                response.stream.close()
            raise

    def _attempt(self, exchange: Exchange[RequestT, ResponseT], wait: float) -> None:
        """Make one attempt; what comes of it is noted in the exchange, and not raised."""
        turn = exchange.turn()
        if turn is not None:
            self._wait_for(turn)
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
                    response = send_traced(request)
                if not exchange.sent:  # it never came to us: it is the answer all the same
                    self._exchange(_returning(response), request)
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
            send(self._transport.handle_request, request)
        except Exception:
            if not exchange.decided:
                raise

    def _wait_for(self, turn: Turn) -> None:
        if turn.join():
            return
        event = threading.Event()
        while (seconds := turn.pause(event.set)) is not None:
            self.pause(event, seconds)
            event.clear()
            turn.proceed()

    def _exchange_traced(
        self, send: Callable[[RequestT], ResponseT], request: RequestT
    ) -> ResponseT:
        exchange: Exchange[RequestT, ResponseT] = request.extensions[EXCHANGE][0]
        exchange.traced = True
        if exchange.view is not None:
            exchange.view.lift(request)
        exchange.telemetry.inject_beneath(request.headers)
        try:
            response = self._exchange_beneath(send, request)
        except Exception as exc:
            shown = exchange.shown(exc)
            if shown is exc:
                raise
            raise shown from None
        return response if exchange.view is None else exchange.view.lower(response)

    def _exchange_beneath(
        self, send: Callable[[RequestT], ResponseT], request: RequestT
    ) -> ResponseT:
        with HttpSuppressed():
            return self._exchange(send, request)

    def _exchange(self, send: Callable[[RequestT], ResponseT], request: RequestT) -> ResponseT:
        """Send, and read what has to be read before the attempt can be ruled on."""
        exchange: Exchange[RequestT, ResponseT] = request.extensions[EXCHANGE].pop()
        exchange.sent = True
        try:
            response = send(request)
        except Exception as exc:
            exchange.failed(exc)
            raise
        try:
            raw, complete = self._read(exchange, response)
        except exchange.transport_error as exc:
            exchange.failed(exc)
            raise
        try:
            exchange.received(raw, complete=complete)
        finally:
            if not exchange.passes_on:
                _end(response.stream if exchange.rest is None else exchange.rest, exchange)
        return response

    def _read(
        self, exchange: Exchange[RequestT, ResponseT], response: ResponseT
    ) -> tuple[bytes | None, bool]:
        """Read what may hold an error; what is too long to be one is read later."""
        plan = exchange.plan(response)
        if plan == "pass" or (plan == "stream" and not exchange.holds):
            return None, False
        chunks: list[bytes] = []
        size = 0
        stream = response.stream
        iterator: Iterator[bytes] = iter(stream)
        try:
            if plan == "stream":
                exchange.rest = _Resumed(chunks, iterator, stream)
                for chunk in iterator:
                    if exchange.hold(chunk):
                        break
                else:
                    exchange.hold_end()
                return None, False
            for chunk in iterator:
                chunks.append(chunk)
                size += len(chunk)
                if size > exchange.limit:
                    exchange.rest = _Resumed(chunks, iterator, stream)
                    break
        except BaseException as exc:
            stream.close()
            if plan != "error" or not isinstance(exc, exchange.transport_error):
                raise
            # The status is known: this is an HTTP error, with what has come of its body.
            exchange.rest = _Resumed(chunks, _failing(exc), stream)
        return b"".join(chunks)[: exchange.limit], exchange.rest is None


def _pause(event: threading.Event, seconds: float) -> None:
    event.wait(min(seconds, threading.TIMEOUT_MAX))


def _returning(response: ResponseT) -> Callable[[Any], ResponseT]:
    return lambda _: response


def _failing(exc: Exception) -> Iterator[bytes]:
    raise exc
    yield


def _end(stream: Any, exchange: Exchange[Any, Any]) -> None:
    """Close what is not delivered; a stream that said why it failed is read to its end first."""
    try:
        if isinstance(stream, _Resumed) and exchange.at_error:
            _drain(stream.rest, exchange.network_stream)
    finally:
        stream.close()


class _Resumed:
    """A stream of which some chunks were read ahead."""

    def __init__(self, chunks: list[bytes], rest: Iterator[bytes], stream: Any) -> None:
        self._chunks = chunks
        self.rest = rest
        self._stream = stream

    @property
    def unread(self) -> Iterator[bytes]:
        """All of it; without a step in between where nothing was kept."""
        return iter(self) if self._chunks else self.rest

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        self._chunks.clear()
        yield from self.rest

    def close(self) -> None:
        self._stream.close()


_unclosed: Final[dict[int, Iterator[bytes]]] = {}
"""What the bodies that are not closed read from, out of the collector's reach.

A generator that was begun ends where it is collected, whatever our `__del__` says: it would close
its connection anywhere, also where this thread holds the lock of the pool.
"""


class SyncBody:
    """The body of a delivered response: inspected as it passes, its end reported once.

    Each iteration goes on where the last one stopped.
    """

    def __init__(self, stream: Any, exchange: Exchange[Any, Any]) -> None:
        self._stream = stream
        self._exchange = exchange
        self._iterator: Iterator[bytes] = (
            stream.unread if isinstance(stream, _Resumed) else iter(stream)
        )
        self._closed = False
        _unclosed[id(self._iterator)] = self._iterator

    def __iter__(self) -> Iterator[bytes]:
        """The chunks as they are delivered. A good one costs a question and no more."""
        exchange = self._exchange
        passes = exchange.passes
        if held := exchange.take_held():
            yield held
        try:
            if not exchange.has_stream_error:
                for chunk in self._iterator:
                    if passes(chunk):
                        yield chunk
                        continue
                    if out := exchange.on_chunk(chunk):
                        yield out
                    if exchange.has_stream_error:
                        break
                else:
                    if out := exchange.on_end():
                        yield out
        except GeneratorExit:
            raise  # whoever left off may go on
        except BaseException as exc:
            exchange.on_body_exception(exc)
            raise
        error = exchange.stream_error()
        if error is not None:
            self.close()
            try:
                raise error
            finally:
                del error

    def close(self) -> None:
        """Close the stream beneath; the call is over."""
        self._closed = True
        try:
            try:
                if self._exchange.at_done:
                    _drain(self._iterator, self._exchange.network_stream)
            finally:
                self._stream.close()
        finally:
            _unclosed.pop(id(self._iterator), None)
            self._exchange.on_close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # dropped unread: nobody else will
            drop(self.close)


_DRAIN_SECONDS: Final = 0.1
_DRAIN_CHUNKS: Final = 16


def _drain(iterator: Iterator[bytes], network: Any) -> None:
    """Read the end of a body that has said `[DONE]`, so that its connection can be used again.

    HTTP/1.1 keeps a connection only when its last response was read to the end, and the SDK stops
    at `[DONE]`. A read that would take longer than a moment ends in the library's own timeout,
    which closes the connection, as it would be without us.
    """
    if network is None:
        return
    until = time.monotonic() + _DRAIN_SECONDS
    read = network.read

    def read_briefly(max_bytes: int, timeout: float | None = None) -> bytes:
        left = max(until - time.monotonic(), 0.001)
        data: bytes = read(max_bytes, left if timeout is None else min(timeout, left))
        return data

    with suppress(Exception):
        network.read = read_briefly
        try:
            for _ in islice(iterator, _DRAIN_CHUNKS):
                pass
        finally:
            del network.read
