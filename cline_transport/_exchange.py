"""A call under way: state machine, telemetry and request, for the loops of both colours.

The loops do what has a colour: send, read, wait, close. Everything else is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from cline_transport._protocols import Clock, RequestHead, RequestLike, ResponseHead, ResponseLike
from cline_transport.call import Body, BodyPlan, Call, Deliver, Raise, Try, rewrite_headers
from cline_transport.errors import EXTENSION, REQUEST_RECORD, ErrorInfo
from cline_transport.inspection import StreamReader
from cline_transport.retry import RetryThrottle
from cline_transport.settings import Settings
from cline_transport.telemetry import CallTelemetry, Telemetry

__all__ = ["EXCHANGE", "Exchange", "Family", "check_transport"]

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)

EXCHANGE: Final = "cline_transport.exchange"
"""The key of an attempt's request extensions under which its exchange reaches beneath the span."""

_OWN_KEYS: Final = (EXTENSION, REQUEST_RECORD, EXCHANGE)


class Family(Protocol[RequestT, ResponseT]):
    """What a family's page tells the loops of its library."""

    @property
    def name(self) -> str:
        """`httpx` or `httpx2`."""
        ...

    def attempt_request(self, request: RequestT, extensions: dict[str, Any]) -> RequestT:
        """The request with other extensions; headers and body are shared."""
        ...

    def body_of(self, request: RequestT) -> bytes | None:
        """The body, where it can be sent twice."""
        ...

    def decode(self, encoding: str, raw: bytes, limit: int) -> tuple[bytes, bool]:
        """The body without its encoding, up to about `limit` bytes; whether that is all."""
        ...

    def edit(
        self, response: ResponseT, status: int, headers: list[tuple[bytes, bytes]], stream: Any
    ) -> ResponseT:
        """The response with another status, headers and stream."""
        ...

    def byte_stream(self, body: bytes) -> Any:
        """A stream of this body, sync and async."""
        ...

    def stream_error(self, info: ErrorInfo) -> Exception:
        """The family's `StreamError`."""
        ...


def check_transport(
    transport: object, wanted: type, other_colour: type, *, family: str, use: str
) -> None:
    """Refuse a transport of another family or colour.

    Raises:
        TypeError: It names the rule, what was given and which class to use.
    """
    if isinstance(transport, wanted):
        return
    module = type(transport).__module__.partition(".")[0]
    given = f"{module}.{type(transport).__name__}"
    if isinstance(transport, other_colour):
        hint = f"it is of the other colour: use {use}"
    else:
        hint = "cline_transport.httpx is for httpx, cline_transport.httpx2 for httpx2"
    # Not the class's own __module__: openai writes its name into what it exports of its library.
    raise TypeError(
        f"transport must be an instance of {family}.{wanted.__name__} (got {given}; {hint})"
    )


class Exchange(Generic[RequestT, ResponseT]):
    """One call, from the request to the last byte of its body."""

    __slots__ = (
        "_call",
        "_clock",
        "_family",
        "_plan",
        "_raise",
        "_reader",
        "_reason",
        "_request",
        "_telemetry",
        "_verdict",
        "body",
        "exception",
        "response",
        "rest",
        "sent",
        "traced",
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
    ) -> None:
        url = request.url
        head = RequestHead(
            request.method,
            url.scheme,
            url.host,
            url.port,
            url.path,
            request.headers,
            family.body_of(request),
        )
        self._family = family
        self._request = request
        self._clock = clock
        self._call = Call(settings, head, throttle=throttle, now=clock.monotonic())
        self._telemetry = telemetry.start(
            head,
            chat=self._call.chat,
            model=self._call.record.model,
            stream=self._call.streaming,
        )
        self._reader: StreamReader | None = None
        self._raise: ErrorInfo | None = None
        self._verdict: Try | Deliver | Raise | None = None
        self._plan: BodyPlan = "pass"
        self._reason: str | None = None
        self.sent = False
        """Whether the attempt under way has reached the transport beneath."""
        self.traced = False
        """Whether it runs beneath an HTTP span, or where one would be."""
        self.response: ResponseT | None = None
        self.body: Body | None = None
        self.rest: Any = None
        """The stream of a body of which only the beginning was read."""
        self.exception: Exception | None = None
        request.extensions[REQUEST_RECORD] = self._call.record

    @property
    def telemetry(self) -> CallTelemetry:
        """The call's span and log lines."""
        return self._telemetry

    # --- an attempt ---

    def begin(self, wait: float = 0.0) -> RequestT:
        """Start an attempt, `wait` seconds having been waited; return its request."""
        now = self._clock.monotonic()
        self._call.begin(now, wait)
        self._verdict = self.response = self.body = self.rest = self.exception = None
        self.sent = self.traced = False
        given: Mapping[str, Any] = self._request.extensions
        extensions = {key: value for key, value in given.items() if key not in _OWN_KEYS}
        timeouts = self._call.timeouts(given.get("timeout"), now)
        if timeouts is not None:
            extensions["timeout"] = timeouts
        extensions[EXCHANGE] = self
        return self._family.attempt_request(self._request, extensions)

    def plan(self, response: ResponseT) -> tuple[BodyPlan, int]:
        """How to treat a response's body, and how many bytes of it to read."""
        self._plan = self._call.plan(ResponseHead(response.status_code, response.headers))
        return self._plan, self._call.settings.errors.max_body_bytes

    def received(self, response: ResponseT, raw: bytes | None, *, complete: bool) -> None:
        """A response came, and `raw` is what was read of its body (`None`: it passes on)."""
        self.response = response
        if raw is not None:
            encoding = response.headers.get("content-encoding", "")
            decoded, whole = raw, complete
            if encoding:
                limit = self._call.settings.errors.max_body_bytes
                decoded, whole = self._family.decode(encoding, raw, limit)
            self.body = Body(raw, decoded, complete and whole)
        self._verdict = self._call.on_response(
            ResponseHead(response.status_code, response.headers),
            self.body,
            now=self._clock.monotonic(),
            epoch=self._clock.time(),
            random=self._clock.random(),
        )
        if self.traced:
            self._telemetry.on_attempt(self._call.record.attempts[-1])

    def failed(self, exc: Exception) -> None:
        """The attempt ended in an exception."""
        self.exception = exc
        self._verdict = self._call.on_exception(
            exc, now=self._clock.monotonic(), random=self._clock.random()
        )
        if self.traced:
            self._telemetry.on_attempt(self._call.record.attempts[-1])

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
        return self.body is None or self.rest is not None

    def wait(self) -> float | None:
        """Seconds to wait for the next attempt; `None`: there is none.

        Raises:
            Exception: What ended the last attempt, where that is how the call ends.
        """
        verdict = self._verdict
        if isinstance(verdict, Try):
            self._telemetry.on_retry(self._call.record, verdict.error, verdict.wait)
            return verdict.wait
        if isinstance(verdict, Raise):
            self._reason = verdict.reason
            self._end()
            exc = cast("Exception", self.exception)
            self.exception = None  # its traceback refers to frames that refer to us
            raise exc
        return None

    # --- the delivery ---

    def deliver(self, wrap: Callable[[Any, Exchange[RequestT, ResponseT]], Any]) -> ResponseT:
        """The response that the caller gets; `wrap` makes a watched stream of a family's."""
        verdict, response = cast("Deliver", self._verdict), cast("ResponseT", self.response)
        response.extensions[EXTENSION] = self._call.record
        status, headers = response.status_code, response.headers.raw
        rewritten = None
        if verdict.error is not None:
            if verdict.rewrite is not None:
                status, rewritten = verdict.rewrite
            if rewritten is not None or verdict.no_retry:
                headers = rewrite_headers(headers, body=rewritten, no_retry=verdict.no_retry)
        self._reason = verdict.reason
        stream: Any
        if self.passes_on:
            if self._plan == "stream" and not response.headers.get("content-encoding"):
                self._reader = self._call.open_stream()
            stream = wrap(response.stream if self.rest is None else self.rest, self)
        else:
            read = b"" if self.body is None else self.body.raw
            stream = self._family.byte_stream(read if rewritten is None else rewritten)
            self._call.record.completed = verdict.error is None
            self._end()
        return self._family.edit(response, status, headers, stream)

    def on_chunk(self, chunk: bytes) -> bytes:
        """Bytes of the body came: what may be delivered of them now."""
        reader = self._reader
        if reader is None:
            return chunk
        if self._call.record.time_to_first_chunk is None:
            self._call.on_first_chunk(self._clock.monotonic())
        out = reader.feed(chunk)
        self._note_failure(reader)
        return out

    def on_end(self) -> bytes:
        """The body ended: what is left to deliver."""
        reader = self._reader
        out = b""
        if reader is not None:
            out = reader.flush()
            self._note_failure(reader)
        if self._raise is None:
            self._call.record.completed = self._call.record.error is None
            self._end()
        return out

    def raised(self) -> Exception | None:
        """The `StreamError` to raise now, what came before it having been delivered."""
        info = self._raise
        return None if info is None else self._family.stream_error(info)

    def on_body_exception(self, exc: BaseException) -> None:
        """Reading the body failed, or was cancelled."""
        if isinstance(exc, Exception):
            self._call.on_body_exception(exc)
            self._end()
        else:
            self.abandon(exc)

    def on_close(self) -> None:
        """The body was closed, read to its end or not."""
        record = self._call.record
        if self._reader is not None and self._reader.done and record.error is None:
            record.completed = True  # the SDK closes at [DONE], before the end
        self._end()

    def abandon(self, exc: BaseException) -> None:
        """The call ends in an exception that is none of the wire's: cancelled, interrupted."""
        self._end(cancelled=type(exc).__name__)

    def _note_failure(self, reader: StreamReader) -> None:
        failure = reader.failure
        if failure is not None and self._call.record.error is None:
            info = self._call.on_stream_failure(failure)
            if failure.event is None:
                self._raise = info

    def _end(self, *, cancelled: str | None = None) -> None:
        self._telemetry.end(
            self._call.record,
            stream=self._reader is not None,
            reason=self._reason,
            cancelled=cancelled,
        )
