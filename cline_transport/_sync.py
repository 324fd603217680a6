"""The loop and the body stream of synchronous clients. `_async` is its twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from opentelemetry.instrumentation.utils import suppress_http_instrumentation

from cline_transport._exchange import EXCHANGE, Exchange, Family
from cline_transport._http_spans import AttemptSpans
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
    ) -> None:
        self.settings = Settings() if settings is None else settings
        self.clock = Clock()
        self.sleep: Callable[[float], None] = time.sleep
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
        self._telemetry = Telemetry(tracer_provider, enabled=self.settings.telemetry.enabled)
        self._throttle = RetryThrottle()

    def handle(self, request: RequestT) -> ResponseT:
        """Send the request, as often as the policy says; return the response to deliver."""
        settings = self.settings
        if not settings.enabled:
            response: ResponseT = self._transport.handle_request(request)
            return response
        exchange = Exchange(
            self._family,
            request,
            settings=settings,
            throttle=self._throttle,
            clock=self.clock,
            telemetry=self._telemetry,
        )
        try:
            self._attempt(exchange, 0.0)
            while (wait := exchange.wait()) is not None:
                self.sleep(wait)
                self._attempt(exchange, wait)
            return exchange.deliver(self._body)
        except BaseException as exc:
            exchange.abandon(exc)
            raise

    def _attempt(self, exchange: Exchange[RequestT, ResponseT], wait: float) -> None:
        """Make one attempt; what comes of it is noted in the exchange, and not raised."""
        request = exchange.begin(wait)
        send = self._exchange
        if exchange.telemetry.traced and self.settings.telemetry.attempt_spans:
            try:
                with exchange.telemetry.current():
                    self.spans.send(request)
            except Exception:
                if exchange.sent and not exchange.decided:
                    raise
                logger.debug("an attempt's HTTP span saw an exception", exc_info=True)
            if exchange.sent:
                return
            # An instrumentation failed, or a hook of it: the call goes on without.
            request = exchange.begin(wait)
            send = self._exchange_beneath
        try:
            send(self._transport.handle_request, request)
        except Exception:
            if not exchange.decided:
                raise

    def _exchange_traced(
        self, send: Callable[[RequestT], ResponseT], request: RequestT
    ) -> ResponseT:
        request.extensions[EXCHANGE].traced = True
        return self._exchange_beneath(send, request)

    def _exchange_beneath(
        self, send: Callable[[RequestT], ResponseT], request: RequestT
    ) -> ResponseT:
        with suppress_http_instrumentation():
            return self._exchange(send, request)

    def _exchange(self, send: Callable[[RequestT], ResponseT], request: RequestT) -> ResponseT:
        """Send, and read what has to be read before the attempt can be ruled on."""
        exchange: Exchange[RequestT, ResponseT] = request.extensions[EXCHANGE]
        exchange.sent = True
        try:
            response = send(request)
            raw, complete = self._read(exchange, response)
        except Exception as exc:
            exchange.failed(exc)
            raise
        try:
            exchange.received(response, raw, complete=complete)
        finally:
            if not exchange.passes_on:
                (response.stream if exchange.rest is None else exchange.rest).close()
        return response

    def _read(
        self, exchange: Exchange[RequestT, ResponseT], response: ResponseT
    ) -> tuple[bytes | None, bool]:
        """Read the body if it may hold an error; what is too long to be one is read later."""
        plan, limit = exchange.plan(response)
        if plan not in ("error", "json"):
            return None, False
        chunks: list[bytes] = []
        size = 0
        stream = response.stream
        iterator: Iterator[bytes] = iter(stream)
        try:
            for chunk in iterator:
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    exchange.rest = _Resumed(chunks, iterator, stream)
                    break
        except BaseException as exc:
            stream.close()
            if plan == "json" or not isinstance(exc, Exception):
                raise
            # The status is known: this is an HTTP error, with what has come of its body.
            exchange.rest = _Resumed(chunks, _failing(exc), stream)
        return b"".join(chunks)[:limit], exchange.rest is None


def _failing(exc: Exception) -> Iterator[bytes]:
    raise exc
    yield


class _Resumed:
    """A stream of which some chunks were read ahead."""

    def __init__(self, chunks: list[bytes], rest: Iterator[bytes], stream: Any) -> None:
        self._chunks = chunks
        self._rest = rest
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        self._chunks.clear()
        yield from self._rest

    def close(self) -> None:
        self._stream.close()


class SyncBody:
    """The body of a delivered response: inspected as it passes, its end reported once.

    It is its own iterator: to iterate it again goes on where the last iteration stopped.
    """

    def __init__(self, stream: Any, exchange: Exchange[Any, Any]) -> None:
        self._stream = stream
        self._exchange = exchange
        self._iterator: Iterator[bytes] = iter(stream)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        while True:
            error = exchange.raised()
            if error is not None:
                self.close()
                raise error
            try:
                chunk = next(self._iterator)
            except StopIteration:
                rest = exchange.on_end()
                if not rest and exchange.raised() is None:
                    raise
                chunk = rest
            except BaseException as exc:
                exchange.on_body_exception(exc)
                raise
            else:
                chunk = exchange.on_chunk(chunk)
            if chunk:
                return chunk

    def close(self) -> None:
        """Close the stream beneath; the call is over."""
        try:
            self._stream.close()
        finally:
            self._exchange.on_close()
