# SPDX-License-Identifier: Apache-2.0
"""A call under way: state machine, telemetry and request, for the loops of both colours.

The loops do what has a colour: send, read, wait, close. Everything else is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from cline_transport._decisions import (
    Body,
    BodyPlan,
    Deliver,
    Raise,
    Try,
    rewrite_headers,
    without_encoding,
)
from cline_transport._decoded_stream import DecodedStream, always
from cline_transport._decoding import Decoder
from cline_transport._family import Family, network_stream
from cline_transport._headers import LowerHeaders
from cline_transport._http_spans import AttemptView
from cline_transport._limiter import Limiter, Turn
from cline_transport._protocols import Clock, RequestHead, RequestLike, ResponseHead, ResponseLike
from cline_transport._redaction import without_secrets
from cline_transport.call import Call
from cline_transport.errors import EXTENSION, REQUEST_RECORD, ErrorInfo
from cline_transport.inspection import StreamReader
from cline_transport.retry import RetryThrottle
from cline_transport.settings import Settings
from cline_transport.telemetry import Ending, Telemetry

__all__ = ["EXCHANGE", "Exchange"]

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)

EXCHANGE: Final = "cline_transport.exchange"
"""The key of an attempt's request extensions under which its exchange reaches beneath the span."""

_NO_HEAD: Final = ResponseHead(0, {})
_OWN_KEYS: Final = (EXTENSION, REQUEST_RECORD, EXCHANGE)


class Exchange(Generic[RequestT, ResponseT]):
    """One call, from the request to the last byte of its body."""

    __slots__ = (
        "_body", "_call", "_clock", "_family", "_head", "_limiter", "_network", "_plan", "_raise",
        "_reason", "_request", "_send", "_stream", "_turn", "_verdict", "exception", "response",
        "rest", "sent", "telemetry", "traced", "transport_error", "view",
    )  # fmt: skip

    def __init__(
        self,
        family: Family[RequestT, ResponseT],
        request: RequestT,
        *,
        settings: Settings,
        throttle: RetryThrottle,
        clock: Clock,
        telemetry: Telemetry,
        limiter: Limiter,
    ) -> None:
        url = request.url
        head = RequestHead(
            request.method,
            url.scheme,
            url.host,
            url.port,
            url.path,
            LowerHeaders(request.headers),
            family.body_of(request),
            url.query,
        )
        self.transport_error = family.transport_error
        self._family = family
        self._request = request
        self._clock = clock
        self._call = Call(settings, head, throttle=throttle, now=clock.monotonic())
        self._send = self._call.explicit_body()
        self.telemetry = telemetry.start(
            head,
            settings.telemetry,
            chat=self._call.chat,
            model=self._call.record.model,
            stream=self._call.streaming,
        )
        self._limiter = limiter
        self._turn: Turn | None = None
        self._raise: ErrorInfo | None = None
        self._reason: str | None = None
        self._verdict: Try | Deliver | Raise | None = None
        self._network: Any = None
        self._forget()
        request.extensions[REQUEST_RECORD] = self._call.record

    def _forget(self) -> None:
        """Nothing is known of an attempt that begins."""
        self._verdict = None
        self._plan: BodyPlan = "pass"
        self._body: Body | None = None
        self._stream: DecodedStream | None = None
        self._head = _NO_HEAD
        self.sent = False
        """Whether the attempt under way has reached the transport beneath."""
        self.view: AttemptView | None = None
        """What its HTTP span sees of it."""
        self.traced = False
        """Whether it runs beneath an HTTP span, or where one would be."""
        self.response: ResponseT | None = None
        self.rest: Any = None
        """The stream of a body of which only the beginning was read."""
        self.exception: Exception | None = None

    # --- its turn ---

    def turn(self) -> Turn | None:
        """What to wait for before an attempt; `None`: it may begin."""
        self._turn = self._limiter.turn(self.telemetry.head, self._clock, self._call)
        return self._turn

    def take(self, turn: Turn) -> bool:
        """The wait is over; return whether the attempt may begin, or the call has ended."""
        self._call.record.limit_wait += turn.waited
        self.telemetry.on_turn(turn)
        if turn.granted:
            return True
        self._forget()
        self._verdict = self._call.on_limit(turn.reason)
        self.response = self._family.response(429)
        return False

    def _give_back(self) -> None:
        """An attempt is over: its permit is free, and what it was told holds for all."""
        turn, self._turn = self._turn, None
        cooldown, self._call.cooldown = self._call.cooldown, 0.0
        if turn is None and not cooldown:
            return
        try:
            if cooldown and not self._limiter.cool(self.telemetry.head, cooldown, self._clock):
                cooldown = 0.0
        finally:  # whatever interrupts this
            if turn is not None:
                turn.end(self._call.record.attempts)
        self.telemetry.on_given_back(turn, cooldown)

    # --- an attempt ---

    def begin(self, wait: float = 0.0) -> RequestT:
        """Start an attempt, `wait` seconds having been waited; return its request."""
        now = self._clock.monotonic()
        failed = self._verdict
        if isinstance(failed, Try):  # not where an attempt begins again, without its HTTP span
            self.telemetry.on_retry(failed.error)
        self._call.begin(now, wait)
        self._forget()
        given: Mapping[str, Any] = self._request.extensions
        extensions = {key: value for key, value in given.items() if key not in _OWN_KEYS}
        timeouts = self._call.timeouts(given.get("timeout"), now)
        if timeouts is not None:
            extensions["timeout"] = timeouts
        extensions[EXCHANGE] = [self]  # emptied when used: a pool keeps requests, and would keep us
        return self._family.attempt_request(self._request, extensions, self._send)

    def shown(self, exc: Exception) -> Exception:
        """What the HTTP span may record of an exception; the caller gets the original."""
        return without_secrets(exc, self.telemetry.head) if self.decided else exc

    def plan(self, response: ResponseT) -> BodyPlan:
        """A response has come: how to treat its body."""
        self.response = response
        self._head = ResponseHead(response.status_code, LowerHeaders(response.headers))
        self._plan = plan = self._call.plan(self._head)
        if plan == "stream":
            self._open_stream()
        return plan

    @property
    def limit(self) -> int:
        """How many bytes of a body are read to look for an error."""
        return self._call.settings.errors.max_body_bytes

    # --- a stream before it is delivered ---

    def _open_stream(self) -> None:
        self._stream = DecodedStream.of(
            self._family,
            self._head.headers.get("content-encoding", ""),
            self._call.open_stream(),
            observes=self._call.settings.stream.on_error == "observe",
            since=self._clock.monotonic(),
        )

    @property
    def _reader(self) -> StreamReader | None:
        """What looks at the stream, if it is one that can be looked at."""
        return None if self._stream is None or self._stream.lost else self._stream.reader

    @property
    def holds(self) -> bool:
        """Whether the stream is to be read before it is delivered."""
        stream = self._call.settings.stream
        wanted = stream.retry != "never" and stream.on_error != "observe"
        return wanted and self._stream is not None

    def hold(self, chunk: bytes) -> bool:
        """Read a chunk of a stream that is held; return whether that is enough."""
        stream: Any = self._stream
        stream.hold(self._read_chunk(stream, chunk))
        now = self._clock.monotonic()
        return self._call.held_enough(stream.reader, stream.held, stream.since, now)

    def hold_end(self) -> None:
        """A stream ended while it was held."""
        stream: Any = self._stream
        stream.hold(stream.finish())

    # --- the end of an attempt ---

    def received(self, raw: bytes | None, *, complete: bool) -> None:
        """The response was read as far as it has to be; `raw` is its body, as far as it was."""
        now, random = self._clock.monotonic(), self._clock.random()
        epoch = self._clock.time()
        if self._plan == "stream":
            failure = self._reader.failure if self._reader and self.holds else None
            if failure is not None and failure.after_content and not self._call.buffers:
                failure = None  # content goes out with it: it is too late to retry
            self._verdict = self._call.on_stream(
                self._head, failure, now=now, epoch=epoch, random=random
            )
        else:
            self._body = None if raw is None else self._decoded(raw, complete=complete)
            self._verdict = self._call.on_response(
                self._head, self._body, now=now, epoch=epoch, random=random
            )
        if self.traced:
            self.telemetry.on_attempt(self._call.record.attempts[-1])

    def _decoded(self, raw: bytes, *, complete: bool) -> Body:
        encoding = self._head.headers.get("content-encoding")
        decoder = Decoder.of(self._family, encoding) if encoding else None
        if decoder is None:
            return Body(raw, raw, complete)
        decoded, whole = decoder.decode_all(raw, self.limit)
        return Body(raw, decoded, complete and whole)

    def failed(self, exc: Exception) -> None:
        """The attempt ended in an exception."""
        self.exception = exc
        self._verdict = self._call.on_exception(
            None if self.response is None else self._head,
            exc,
            now=self._clock.monotonic(),
            random=self._clock.random(),
        )
        if self.traced:
            self.telemetry.on_attempt(self._call.record.attempts[-1])

    @property
    def decided(self) -> bool:
        """Whether the attempt under way has come to an end on the wire."""
        return self._verdict is not None

    @property
    def passes_on(self) -> bool:
        """Whether the response's own stream is delivered, or the rest of it; else it is over."""
        verdict = self._verdict
        if not isinstance(verdict, Deliver):
            return False
        if verdict.rewrite is not None and verdict.rewrite.body is not None:
            return False
        return self._body is None or self.rest is not None

    def wait(self) -> float | None:
        """Seconds to wait for the next attempt; `None`: there is none.

        Raises:
            Exception: What ended the last attempt, where that is how the call ends.
        """
        verdict = self._verdict
        if isinstance(verdict, Try):
            self._give_back()
            self.telemetry.on_wait(self._call.record, verdict.error, verdict.wait)
            return verdict.wait
        if isinstance(verdict, Raise):
            self._reason = verdict.reason
            exc: Any = self.exception
            self._end(exception=exc)
            self.exception = None  # its traceback refers to frames that refer to us
            try:
                raise exc
            finally:
                del exc
        return None

    # --- the delivery ---

    def deliver(self, wrap: Callable[[Any, Exchange[RequestT, ResponseT]], Any]) -> ResponseT:
        """The response that the caller gets; `wrap` makes a watched stream of a family's."""
        verdict: Any = self._verdict
        response: Any = self.response
        response.extensions[EXTENSION] = self._call.record
        status, headers, rewritten = response.status_code, None, None
        if verdict.error is not None:
            if verdict.rewrite is not None:
                status, rewritten = verdict.rewrite
            if rewritten is not None or verdict.no_retry:
                raw = response.headers.raw
                headers = rewrite_headers(raw, body=rewritten, no_retry=verdict.no_retry)
        self._reason = verdict.reason
        stream: Any
        if self.passes_on:
            if self._stream is not None:
                self._note_failure(self._stream.reader)
                if self._stream.rewrites:
                    headers = without_encoding(headers or response.headers.raw)
            stream = wrap(response.stream if self.rest is None else self.rest, self)
        else:
            read = b"" if self._body is None else self._body.raw
            stream = self._family.byte_stream(read if rewritten is None else rewritten)
            self._call.record.completed = verdict.error is None
            self._end()
        self._network = network_stream(response.extensions)
        self.response = self.rest = None  # they refer to the stream, which refers to us
        return self._family.edit(response, status, headers, stream)

    def take_held(self) -> bytes:
        """What was held of the stream, to be delivered first."""
        return self._stream.take_held() if self._stream else b""

    @property
    def passes(self) -> Callable[[bytes], bool]:
        """Asked of each chunk of the body: whether it needs no `on_chunk`."""
        return always if self._stream is None else self._stream.passes

    def on_chunk(self, chunk: bytes) -> bytes:
        """Bytes of a stream came that do not pass by themselves: what may be delivered of them."""
        stream: Any = self._stream
        out = self._read_chunk(stream, chunk)
        if stream.reader.failure is not None:
            self._note_failure(stream.reader)
        return out

    def on_end(self) -> bytes:
        """The body ended: what is left to deliver."""
        out = b""
        if self._stream is not None:
            out = self._stream.finish()
            self._note_failure(self._stream.reader)
        if self._raise is None:
            self._call.record.completed = self._call.record.error is None
            self._end()
        return out

    @property
    def has_stream_error(self) -> bool:
        """Whether there is a `StreamError` to raise now."""
        return self._raise is not None

    def stream_error(self) -> Exception | None:
        """The `StreamError` to raise now, what came before it having been delivered."""
        info = self._raise
        return None if info is None else self._family.stream_error(info)

    def on_body_exception(self, exc: BaseException) -> None:
        """Reading the body failed, or was cancelled."""
        if isinstance(exc, Exception):
            self._call.on_body_exception(exc)
            self._end(exception=exc)
        else:
            self.abandon(exc)

    @property
    def network_stream(self) -> Any:
        """The connection of an HTTP/1.1 response, where its transport shows it; else `None`."""
        response = self.response
        return self._network if response is None else network_stream(response.extensions)

    @property
    def at_error(self) -> bool:
        """Whether a stream has said why it failed: hardly anything can follow."""
        return self._reader is not None and self._reader.failure is not None

    @property
    def at_done(self) -> bool:
        """Whether a stream has said `[DONE]`: hardly anything can follow."""
        return self._reader is not None and self._reader.done

    def on_close(self) -> None:
        """The body was closed, read to its end or not."""
        record = self._call.record
        if self.at_done and record.error is None:
            record.completed = True  # the SDK closes at [DONE], before the end
        self._end()

    def abandon(self, exc: BaseException) -> None:
        """The call ends in an exception that is none of the wire's: cancelled, interrupted."""
        self._end(cancelled=type(exc).__name__)

    # --- the parts ---

    def _read_chunk(self, stream: DecodedStream, chunk: bytes) -> bytes:
        """Let the reader see a chunk; return what may be delivered of it."""
        out = stream.feed(chunk)
        if self._call.record.time_to_first_chunk is None and stream.reader.began:
            self._call.on_first_chunk(self._clock.monotonic())
        return out

    def _note_failure(self, reader: StreamReader) -> None:
        failure = reader.failure
        if failure is not None and self._call.record.error is None:
            info = self._call.on_stream_failure(failure, self._clock.time())
            if failure.event is None:
                self._raise = info

    def _end(self, *, cancelled: str | None = None, exception: BaseException | None = None) -> None:
        if self.telemetry.ended:
            return
        self.telemetry.ended = True  # at once: another thread may be closing the body
        self._give_back()
        ending = Ending(
            duration=self._clock.monotonic() - self._call.started,
            stream=self._plan == "stream",
            inspected=self._plan != "stream" or self._reader is not None,
            reason=self._reason,
            cancelled=cancelled,
            exception=exception or self.stream_error(),
        )
        self.telemetry.end(self._call.record, ending)
