# SPDX-License-Identifier: Apache-2.0
"""One call as a state machine: told what happened, it says what to do next.

It does no I/O and has no clock: the loops of `_sync` and `_async` bring events and the time, and
carry out the decision that comes back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from cline_transport._decisions import Body, BodyPlan, Deliver, Raise, Rewrite, Try
from cline_transport._explain import Explainer
from cline_transport._protocols import RequestHead, ResponseHead
from cline_transport._request_body import RequestFacts, make_explicit, read_request
from cline_transport.errors import ErrorInfo, is_rate_limit
from cline_transport.inspection import (
    StreamFailure,
    StreamReader,
    may_hold_error,
    read_answer,
    read_completion,
)
from cline_transport.limits import Reason
from cline_transport.record import Attempt, CallRecord, forget_answer, read_later
from cline_transport.retry import (
    GiveUp,
    RetryDecision,
    RetryThrottle,
    ServerAdvice,
    read_server_advice,
)
from cline_transport.settings import Settings
from cline_transport.wire import (
    WireError,
    as_mapping,
    describe,
    dump_json,
    error_body,
    load_json,
    normalize_error_body,
    read_json_error,
    status_for,
    write_error,
)

__all__ = ["Call"]

_CHAT: Final = "/chat/completions"


class Call:
    """One request that a client handed to the transport.

    Args:
        settings: The policies in effect for this call.
        head: The request.
        throttle: The transport's token bucket.
        now: The monotonic time at which the call began, in seconds.

    Attributes:
        chat: Whether it goes to a chat completions endpoint.
        started: The same.
        record: What has become of the call so far.
        cooldown: Seconds that the API asked to wait when it refused the attempt under way; 0: it
            did not, or for longer than is waited for.
    """

    __slots__ = (
        "_explainer", "_facts", "_head", "_settings", "_throttle", "_tried_at", "_wait", "chat",
        "cooldown", "record", "started",
    )  # fmt: skip

    def __init__(
        self, settings: Settings, head: RequestHead, *, throttle: RetryThrottle, now: float
    ) -> None:
        self._settings = settings
        self._head = head
        self._throttle = throttle
        self.chat = head.path.rstrip("/").endswith(_CHAT)
        self.started = now
        self._tried_at = now
        self._wait = 0.0
        self._facts = RequestFacts() if head.body is None else read_request(head.body)
        self.record = CallRecord(model=self._facts.model)
        self._explainer = Explainer(head, settings.retry.rules, self._facts.model)
        self.cooldown = 0.0

    @property
    def settings(self) -> Settings:
        """The policies in effect for this call."""
        return self._settings

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
        if self.record.attempts:
            forget_answer(self.record)
        self._tried_at = now
        self._wait = wait
        self.cooldown = 0.0

    @property
    def buffers(self) -> bool:
        """Whether a stream is held to its end."""
        return self._settings.stream.retry == "buffered"

    def explicit_body(self) -> bytes | None:
        """The body to send in place of the one given; `None`: that one."""
        body = self._head.body
        if body is None or self._facts.stream is not None:
            return None
        if not self._settings.stream.explicit or not self.chat:
            return None
        if "application/json" not in self._head.headers.get("accept", ""):
            return None
        explicit = make_explicit(body)
        if explicit is not None:
            self._facts = self._facts._replace(stream=False)
        return explicit

    @property
    def until(self) -> float:
        """The time at which the call's deadline ends."""
        deadline = self._settings.retry.deadline
        if deadline is None or not self._settings.retry.enabled:
            return math.inf
        return self.started + deadline

    def timeouts(
        self, configured: Mapping[str, float | None] | None, now: float
    ) -> dict[str, Any] | None:
        """The attempt's timeouts (seconds), cut to what the deadline leaves; `None`: unchanged."""
        if self.until == math.inf:
            return None
        left = max(self.until - now, 0.001)
        given = configured or {}
        names = ("connect", "read", "write", "pool")
        return {n: left if (t := given.get(n)) is None else min(t, left) for n in names}

    def plan(self, head: ResponseHead) -> BodyPlan:
        """How the body of a response is to be treated."""
        settings = self._settings
        read = settings.retry.enabled or settings.errors.normalize or settings.telemetry.enabled
        if head.status_code >= 400:
            return "pass" if self._head.method == "HEAD" or not read else "error"
        if not 200 <= head.status_code < 300:
            return "pass"
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return "stream"
        # Elsewhere an `error` is somebody else's field, and JSON may come piece by piece.
        if kind == "application/json" and self.chat and read:
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
        try:
            error, rewritten = self._read(head, body)
        except Exception:  # noqa: BLE001 -- inspection never breaks a call: the bytes pass as they are
            plain = WireError(head.status_code, describe(None, head.status_code))
            failed = head.status_code >= 400
            error = (
                self._explainer.of_response(plain, head, head.status_code, self.number)
                if failed
                else None
            )
            rewritten = None
        if error is None:
            self._end_attempt(now, head, None)
            self._throttle.succeeded()
            return Deliver()
        return self._on_failure(head, error, rewritten, now=now, epoch=epoch, random=random)

    def on_stream(
        self,
        head: ResponseHead,
        failure: StreamFailure | None,
        *,
        now: float,
        epoch: float,
        random: float,
    ) -> Try | Deliver:
        """A stream is about to be delivered, or has failed before any of it was.

        Args:
            head: The response's status and headers.
            failure: The error that was met before anything was delivered.
            now: The monotonic time.
            epoch: Seconds since the epoch, for a date in `Retry-After`.
            random: A number in [0, 1) for the jitter.
        """
        if failure is None:
            self._end_attempt(now, head, None)
            self._throttle.succeeded()
            return Deliver()
        error = replace(
            self._explainer.of_stream(failure.error, self.number),
            status_code=status_for(failure.error.code),
            request_id=self._explainer.request_id(head),
        )
        raw = failure.error.code
        body = write_error(failure.error._replace(code=error.code if raw is None else raw))
        rewrite = Rewrite(status_for(failure.error.code), body)
        return self._on_failure(head, error, rewrite, now=now, epoch=epoch, random=random)

    def _on_failure(
        self,
        head: ResponseHead,
        error: ErrorInfo,
        rewrite: Rewrite | None,
        *,
        now: float,
        epoch: float,
        random: float,
    ) -> Try | Deliver:
        self._end_attempt(now, head, error)
        advice = read_server_advice(head.headers, epoch, error.metadata)
        self._note_wait(error, advice)
        ruling = self._rule(error, advice, now=now, random=random)
        if isinstance(ruling, RetryDecision):
            return Try(ruling.wait, error)
        self.record.error = error
        # The layer above may know how to make a body again that we cannot send twice.
        no_retry = ruling.reason not in ("disabled", "not_replayable")
        return Deliver(rewrite, no_retry, error, ruling.reason)

    def on_exception(
        self, head: ResponseHead | None, exc: BaseException, *, now: float, random: float
    ) -> Try | Raise:
        """The attempt ended in an exception: no response came, or not all of the one of `head`."""
        error = self._explainer.of_exception(exc, self.number)
        if head is not None:
            error = replace(
                error,
                phase="mid_stream",
                status_code=head.status_code,
                request_id=self._explainer.request_id(head),
            )
        self._end_attempt(now, head, error)
        ruling = self._rule(error, None, now=now, random=random)
        if isinstance(ruling, RetryDecision):
            return Try(ruling.wait, error)
        self.record.error = error
        return Raise(error, ruling.reason)

    def on_limit(self, reason: Reason | None) -> Deliver:
        """Limits hold the call back past its deadline: how it ends."""
        last = self.record.attempts[-1].error if self.record.attempts else None
        error = self._explainer.of_limit(reason, len(self.record.attempts), last)
        self.record.error = error
        body = write_error(WireError(error.code, error.message, error.metadata))
        return Deliver(Rewrite(429, body), no_retry=True, error=error, reason="deadline")

    def open_stream(self) -> StreamReader:
        """A stream is about to be delivered: its reader."""
        stream = self._settings.stream
        return StreamReader(
            self.record,
            on_error=stream.on_error,
            max_event_bytes=stream.max_event_bytes,
            chat=self.chat,
            detect_truncation=stream.detect_truncation,
        )

    def held_enough(self, reader: StreamReader, size: int, since: float, now: float) -> bool:
        """Whether what is held of a stream is to be ruled on, or let go.

        Args:
            reader: The stream's reader.
            size: Bytes that are held.
            since: The monotonic time at which its headers came.
            now: The monotonic time.
        """
        stream = self._settings.stream
        if stream.retry == "buffered":
            return reader.failure is not None
        bound = size > stream.hold_bytes or now - since > stream.hold_seconds
        return reader.committed or reader.failure is not None or bound

    def on_first_chunk(self, now: float) -> None:
        """The first event of a stream has come."""
        self.record.time_to_first_chunk = now - self.started

    def on_stream_failure(self, failure: StreamFailure, epoch: float) -> ErrorInfo:
        """A stream that is being delivered has an error in it; `epoch` as for `on_response`."""
        error = self._explainer.of_stream(failure.error, len(self.record.attempts))
        self._note_wait(error, read_server_advice({}, epoch, error.metadata))
        return self._fail_delivered(error)

    def on_body_exception(self, exc: BaseException) -> ErrorInfo:
        """The wire failed while the body was being delivered."""
        error = self._explainer.of_exception(exc, len(self.record.attempts))
        return self._fail_delivered(replace(error, phase="mid_stream"))

    # --- the parts ---

    def _note_wait(self, error: ErrorInfo, advice: ServerAdvice) -> None:
        wait = advice.retry_after
        if (
            wait is not None
            and is_rate_limit(error)
            and wait <= self._settings.retry.max_retry_after
        ):
            self.cooldown = wait

    def _fail_delivered(self, error: ErrorInfo) -> ErrorInfo:
        """The attempt that was delivered has failed after all."""
        attempt = self.record.attempts[-1]
        error = replace(error, request_id=attempt.request_id, status_code=attempt.status_code)
        self.record.attempts[-1] = replace(attempt, error=error)
        self.record.error = error
        return error

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
            error = self._explainer.of_response(found, head, head.status_code, self.number)
            if body is None or rewritten is None or not self._settings.errors.normalize:
                return error, None
            return error, Rewrite(head.status_code, rewritten)
        if body is None or not body.complete:
            return None, None
        if not may_hold_error(body.decoded):
            read_later(self.record, partial(read_answer, body.decoded))
            return None, None
        payload = load_json(body.decoded)
        inside = read_json_error(payload)
        if inside is None:
            read_completion(payload, self.record)
            return None, None
        status = status_for(inside.code)
        error = self._explainer.of_response(inside, head, status, self.number)
        if not self._settings.errors.normalize:
            return error, None
        return error, Rewrite(status, _promote(as_mapping(payload) or {}, inside, error))

    def _end_attempt(self, now: float, head: ResponseHead | None, error: ErrorInfo | None) -> None:
        request_id = self._explainer.request_id(head) if head else None
        self.record.request_id = request_id
        self.record.attempts.append(
            Attempt(
                number=self.number,
                wait=self._wait,
                started=self._tried_at - self.started,
                duration=now - self._tried_at,
                status_code=head.status_code if head else None,
                request_id=request_id,
                error=error,
            )
        )

    def _rule(
        self, error: ErrorInfo, advice: ServerAdvice | None, *, now: float, random: float
    ) -> RetryDecision | GiveUp:
        """Ask the policy; `advice` is `None` where an exception, not a response, would come out."""
        # An error inside a 2xx has its code to be ruled on, not the status it is delivered under.
        on_the_wire = self.record.attempts[-1].status_code
        status = on_the_wire if on_the_wire is not None and on_the_wire >= 400 else None
        # The SDK counts its own retries: then it is retrying this failure already.
        above = advice is None and self._head.headers.get("x-stainless-retry-count", "0") not in (
            "",
            "0",
        )
        ruling = self._settings.retry.decide(
            error.code,
            status,
            retries=self.record.retries,
            advice=advice or ServerAdvice(),
            elapsed=now - self.started,
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
    code = error.code if inside.code is None else inside.code
    return dump_json({**payload, **error_body(inside._replace(code=code))})
