"""One call as a state machine: told what happened, it says what to do next.

It does no I/O and has no clock: the loops of layer 4 bring events and the time, and carry out the
decision that comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from cline_transport._protocols import RequestHead, ResponseHead
from cline_transport.errors import ErrorInfo, connection_error
from cline_transport.inspection import (
    RequestFacts,
    StreamFailure,
    StreamReader,
    read_completion,
    read_request,
)
from cline_transport.record import Attempt, CallRecord
from cline_transport.retry import (
    GiveUp,
    RetryDecision,
    RetryThrottle,
    ServerAdvice,
    StopReason,
    read_server_advice,
)
from cline_transport.settings import Settings
from cline_transport.wire import (
    WireError,
    as_mapping,
    dump_json,
    error_body,
    is_transient,
    load_json,
    normalize_error_body,
    read_json_error,
    status_for,
)

__all__ = ["Body", "BodyPlan", "Call", "Deliver", "Raise", "Rewrite", "Try", "rewrite_headers"]

BodyPlan = Literal["error", "json", "stream", "pass"]
"""How a response's body is treated: read whole as an error's, read whole if it is small enough to
be an error in a 2xx, inspected event by event, or passed on."""

_CHAT: Final = "/chat/completions"


class Body(NamedTuple):
    """A body that was read: as it came, and decoded. `complete` is `False` if it is longer."""

    raw: bytes
    decoded: bytes
    complete: bool


class Try(NamedTuple):
    """Wait this many seconds, then make another attempt; the failed one is over."""

    wait: float
    error: ErrorInfo


class Rewrite(NamedTuple):
    """A response in place of the one that came. `body` is `None` where the bytes stay."""

    status_code: int
    body: bytes | None


class Deliver(NamedTuple):
    """Give this response to the caller."""

    rewrite: Rewrite | None = None
    no_retry: bool = False
    """Whether it is marked `x-should-retry: false`: the policy has ruled on this call."""
    error: ErrorInfo | None = None
    reason: StopReason | None = None
    """Why an error is not retried (again)."""


class Raise(NamedTuple):
    """Let the attempt's exception reach the caller."""

    error: ErrorInfo
    reason: StopReason


class Call:
    """One request that a client handed to the transport.

    Args:
        settings: The policies in effect for this call.
        head: The request.
        throttle: The transport's token bucket.
        now: The monotonic time at which the call began, in seconds.
    """

    __slots__ = (
        "_facts", "_head", "_settings", "_started", "_throttle", "_tried_at", "_wait", "record",
    )  # fmt: skip

    def __init__(
        self, settings: Settings, head: RequestHead, *, throttle: RetryThrottle, now: float
    ) -> None:
        self._settings = settings
        self._head = head
        self._throttle = throttle
        self._started = now
        self._tried_at = now
        self._wait = 0.0
        self._facts = RequestFacts() if head.body is None else read_request(head.body)
        self.record = CallRecord(model=self._facts.model)

    @property
    def settings(self) -> Settings:
        """The policies in effect for this call."""
        return self._settings

    @property
    def chat(self) -> bool:
        """Whether the call went to a chat completions endpoint."""
        return self._head.path.rstrip("/").endswith(_CHAT)

    @property
    def streaming(self) -> bool | None:
        """Whether the request asks for a stream; `None` where it does not say."""
        return self._facts.stream

    @property
    def number(self) -> int:
        """The number of the attempt under way, or of the next one."""
        return len(self.record.attempts) + 1

    def begin(self, now: float, wait: float = 0.0) -> None:
        """An attempt starts, `wait` seconds having been waited for it."""
        self._tried_at = now
        self._wait = wait

    def timeouts(
        self, configured: Mapping[str, float | None] | None, now: float
    ) -> dict[str, Any] | None:
        """The attempt's timeouts (seconds), cut to what the deadline leaves; `None`: unchanged."""
        deadline = self._settings.retry.deadline
        if deadline is None or not self._settings.retry.enabled:
            return None
        left = max(self._started + deadline - now, 0.001)
        given = configured or {}
        names = ("connect", "read", "write", "pool")
        return {n: left if (t := given.get(n)) is None else min(t, left) for n in names}

    def plan(self, head: ResponseHead) -> BodyPlan:
        """How the body of a response is to be treated."""
        if head.status_code >= 400:
            return "pass" if self._head.method == "HEAD" else "error"
        if not 200 <= head.status_code < 300:
            return "pass"
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return "stream"
        if kind == "application/json" or (
            kind.startswith("application/") and kind.endswith("+json")
        ):
            return "json"
        return "pass"

    def on_response(
        self, head: ResponseHead, body: Body | None, *, now: float, epoch: float, random: float
    ) -> Try | Deliver:
        """A response came.

        Args:
            head: Its status and headers.
            body: What was read of it; `None` where the body passes on.
            now: The monotonic time.
            epoch: Seconds since the epoch, for a date in `Retry-After`.
            random: A number in [0, 1) for the jitter.
        """
        error, rewritten = self._read(head, body)
        if error is None:
            self._end_attempt(now, head, None)
            self._throttle.succeeded()
            return Deliver()
        self._end_attempt(now, head, error)
        advice = read_server_advice(head.headers, epoch)
        ruling = self._rule(error, advice, now=now, random=random)
        if isinstance(ruling, RetryDecision):
            return Try(ruling.wait, error)
        self.record.error = error
        # The layer above may know how to make a body again that we cannot send twice.
        no_retry = ruling.reason not in ("disabled", "not_replayable")
        return Deliver(rewritten, no_retry, error, ruling.reason)

    def on_exception(self, exc: BaseException, *, now: float, random: float) -> Try | Raise:
        """The attempt ended in an exception: no response came, or not all of one."""
        error = self._explain(connection_error(exc), self.number)
        self._end_attempt(now, None, error)
        ruling = self._rule(error, ServerAdvice(), now=now, random=random)
        if isinstance(ruling, RetryDecision):
            return Try(ruling.wait, error)
        self.record.error = error
        return Raise(error, ruling.reason)

    def open_stream(self) -> StreamReader:
        """A stream is about to be delivered: its reader."""
        stream = self._settings.stream
        return StreamReader(
            self.record,
            on_error=stream.on_error,
            max_event_bytes=stream.max_event_bytes,
            chat=self.chat,
        )

    def on_first_chunk(self, now: float) -> None:
        """The first bytes of a stream have come."""
        self.record.time_to_first_chunk = now - self._started

    def on_stream_failure(self, failure: StreamFailure) -> ErrorInfo:
        """A stream that is being delivered has an error in it."""
        code = "server_error" if failure.error.code is None else failure.error.code
        self.record.error = self._explain(
            ErrorInfo(
                code=code,
                message=failure.error.message,
                metadata=failure.error.metadata,
                status_code=self.record.attempts[-1].status_code,
                phase="mid_stream",
                request_id=self.record.request_id,
                retryable=is_transient(code, None),
            ),
            len(self.record.attempts),
        )
        return self.record.error

    def on_body_exception(self, exc: BaseException) -> ErrorInfo:
        """The wire failed while the body was being delivered."""
        self.record.error = replace(
            self._explain(connection_error(exc), len(self.record.attempts)),
            request_id=self.record.request_id,
            status_code=self.record.attempts[-1].status_code,
            phase="mid_stream",
        )
        return self.record.error

    # --- the parts ---

    def _read(
        self, head: ResponseHead, body: Body | None
    ) -> tuple[ErrorInfo | None, Rewrite | None]:
        """What a response says, and the response to deliver in its place."""
        if head.status_code >= 400:
            content_type = head.headers.get("content-type", "")
            read = body or Body(b"", b"", complete=True)
            found, rewritten = normalize_error_body(
                head.status_code, content_type, read.decoded, complete=read.complete
            )
            error = self._http_error(found, head, head.status_code)
            if body is None or rewritten is None or not self._settings.errors.normalize:
                return error, None
            return error, Rewrite(head.status_code, rewritten)
        if body is None or not body.complete:
            return None, None
        # A good answer of another endpoint is not worth parsing.
        payload = load_json(body.decoded) if self.chat or b'"error"' in body.decoded else None
        inside = read_json_error(payload)
        if inside is None:
            read_completion(payload, self.record)
            return None, None
        status = status_for(inside.code)
        error = self._http_error(inside, head, status)
        if not self._settings.errors.normalize:
            return error, None
        return error, Rewrite(status, _promote(as_mapping(payload) or {}, inside, error))

    def _http_error(self, found: WireError, head: ResponseHead, status: int) -> ErrorInfo:
        code = "server_error" if found.code is None else found.code
        return self._explain(
            ErrorInfo(
                code=code,
                message=found.message,
                metadata=found.metadata,
                status_code=status,
                request_id=head.headers.get("x-request-id"),
                retryable=is_transient(code, status),
            ),
            self.number,
        )

    def _explain(self, error: ErrorInfo, attempts: int) -> ErrorInfo:
        return replace(error, model=self.record.model, attempts=attempts)

    def _end_attempt(self, now: float, head: ResponseHead | None, error: ErrorInfo | None) -> None:
        request_id = head.headers.get("x-request-id") if head else None
        self.record.request_id = request_id
        self.record.attempts.append(
            Attempt(
                number=self.number,
                wait=self._wait,
                started=self._tried_at - self._started,
                duration=now - self._tried_at,
                status_code=head.status_code if head else None,
                request_id=request_id,
                error=error,
            )
        )

    def _rule(
        self, error: ErrorInfo, advice: ServerAdvice, *, now: float, random: float
    ) -> RetryDecision | GiveUp:
        connection = error.phase == "connection"
        # The SDK counts its own retries: then it is retrying this failure already.
        above = connection and self._head.headers.get("x-stainless-retry-count", "0") not in (
            "",
            "0",
        )
        ruling = self._settings.retry.decide(
            error.code,
            error.status_code,
            retries=self.record.retries,
            advice=advice,
            elapsed=now - self._started,
            random=random,
            throttle=self._throttle,
            ceiling=0 if above else None,
        )
        if isinstance(ruling, RetryDecision) and self._head.body is None:
            return GiveUp("not_replayable")
        return ruling


def _promote(payload: Mapping[str, Any], inside: WireError, error: ErrorInfo) -> bytes | None:
    """The body of a 2xx that is an error; `None` where it is in the documented format already."""
    if (as_mapping(payload.get("error")) or {}).get("message"):
        return None
    return dump_json({**payload, **error_body(inside._replace(code=error.code))})


def rewrite_headers(
    raw: list[tuple[bytes, bytes]], *, body: bytes | None, no_retry: bool
) -> list[tuple[bytes, bytes]]:
    """The headers of a delivered error: true to its body, and final for the layer above.

    Args:
        raw: The headers as they came.
        body: The new body, or `None` where the bytes stay as they came.
        no_retry: Add `x-should-retry: false`, which the OpenAI SDK obeys.
    """
    dropped = {b"x-should-retry"} if no_retry else set[bytes]()
    if body is not None:
        dropped |= {b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"}
    headers = [(name, value) for name, value in raw if name.lower() not in dropped]
    if body is not None:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(body)).encode("ascii")))
    if no_retry:
        headers.append((b"x-should-retry", b"false"))
    return headers
