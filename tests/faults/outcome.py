# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a call, by its caller, the server and in the trace, and what ought to be."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from cline_transport.simulator import Reply
from cline_transport.wire import as_mapping

from .failure import TEXT, Failure, HttpError, InStream, Raised

SDK_CLASSES: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


def sdk_class(status: int) -> str:
    """The SDK's class for a status."""
    return SDK_CLASSES.get(status, "InternalServerError" if status >= 500 else "APIStatusError")


@dataclass(frozen=True, kw_only=True)
class CallSpan:
    """A call's span; of codes the texts that spans have."""

    status: str
    error: str | None = None
    """`error.type` and `cline.error.code`, which are the same."""
    phase: str | None = None
    request: int | None = None
    """The number of the request whose ID it has."""
    retries: int


@dataclass(frozen=True, kw_only=True)
class AttemptSpan:
    """The HTTP span of an attempt."""

    call: int = 1
    """The number of the call whose span is its parent."""
    resend_count: int | None = None
    error: str | None = None
    request: int | None = None


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What `error_info` says."""

    code: object
    status: int | None
    phase: str
    attempts: int
    request: int | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All of it."""

    ended: str
    """The status, or the exact class of the exception with its status and its code."""
    delivered: object
    """What was delivered: the bytes, the text, the error's body."""
    final: bool
    """Whether the response says that it is not to be retried."""
    explained: Explained | None
    requests: int
    """That reached the API."""
    waits: tuple[float, ...]
    calls: tuple[CallSpan, ...]
    attempts: tuple[AttemptSpan, ...]
    open_spans: int = 0
    connections_in_use: int = 0


# --- bodies ---


def body_of(reply: Reply) -> bytes:
    """What the API sends, before any encoding."""
    body = reply.body
    assert isinstance(body, (bytes, tuple))
    return body if isinstance(body, bytes) else b"".join(body)


def events_of(body: bytes) -> tuple[bytes, ...]:
    """The events of a stream, and what is left of one."""
    return tuple(filter(None, re.split(rb"(?<=\n\n)", body)))


def seen_in_stream(body: bytes) -> tuple[object, ...]:
    """The events; of those with an error the fields that name it and the data, read."""
    return tuple(_read(one) if b"error" in one else one for one in events_of(body))


def _read(event: bytes) -> tuple[list[str], Any]:
    lines = event.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [line for line in lines if not line.startswith("data: ")], json.loads("".join(data))


def _before_the_error(body: bytes) -> bytes:
    before = takewhile(lambda event: b"error" not in event, events_of(body))
    return b"".join(before)


def _documented(end: HttpError) -> dict[str, object]:
    error = {"code": end.code, "message": end.message, "metadata": dict(end.metadata)}
    return {"error": error}


def _delivered_body(end: HttpError, sent: bytes) -> object:
    """An error's body: bytes, or what they say where they are ours."""
    if end.body == "as sent":
        return sent
    return _documented(end) if end.body == "documented" else json.loads(sent) | _documented(end)


def _delivered_stream(end: InStream, sent: bytes) -> tuple[object, ...]:
    """A stream's events up to the error, the error as every client reads it, and what follows."""
    events = events_of(sent)
    if end.event == "as sent":
        return seen_in_stream(sent)
    error = {"code": end.code, "message": end.message}
    wanted = {"index": 0, "delta": {}, "finish_reason": "error", "error": error}
    added = ([""], {"choices": [wanted], "error": error})
    if end.event == "added":  # half an event goes no further
        return (*(one for one in events if one.endswith(b"\n\n")), added)
    at = next(i for i, one in enumerate(events) if b"error" in one)
    lines, given = _read(events[at])
    first = dict(given.get("choices", [{}])[0])
    rewritten = {**given, "choices": [{**first, **wanted}], "error": error}
    return (*events[:at], (lines, rewritten), *events[at + 1 :])


# --- what ought to be seen ---


@dataclass(frozen=True)
class Expected:
    """The outcomes of one failure, for plain clients or for the SDK."""

    failure: Failure
    sdk: bool
    maps_bodies: bool
    """Whether the SDK makes exceptions of its own of what a body raises."""

    @property
    def _answered(self) -> bool:
        """Whether a failed attempt has a request ID."""
        failure = self.failure
        return failure.trouble == "reply" and failure.reply.status is not None

    def recovered(self, failed: int, good: Reply) -> Outcome:
        """After so many failed attempts the answer is good: as if nothing had happened."""
        reached = failed + 1 if self.failure.trouble == "reply" else 1
        attempts = (*self._failed(failed), AttemptSpan(resend_count=failed, request=reached))
        return Outcome(
            ended="whole" if self.sdk else "200",
            delivered=TEXT if self.sdk else body_of(good),
            final=False,
            explained=None,
            requests=reached,
            waits=self.failure.waits[:failed],
            calls=(CallSpan(status="UNSET", request=reached, retries=failed),),
            attempts=attempts,
        )

    def ended(self, sent: Reply) -> Outcome:
        """It stays as it is."""
        end = self.failure.end
        if isinstance(end, HttpError):
            return self._http_error(end, body_of(sent))
        if isinstance(end, InStream):
            return self._in_stream(end, body_of(sent))
        return self._raised(end, body_of(sent))

    def _http_error(self, end: HttpError, sent: bytes) -> Outcome:
        body: Any = _delivered_body(end, sent)
        ended, delivered = str(end.status), body
        if self.sdk:
            read: Any = json.loads(sent) if isinstance(body, bytes) else body
            delivered = read.get("error", read)  # as the SDK hands it over
            code = (as_mapping(delivered) or {}).get("code")
            ended = f"{sdk_class(end.status)} {end.status} {code}"
        return self._ending(ended, delivered, end.code, end.phase, end.status, final=end.final)

    def _in_stream(self, end: InStream, sent: bytes) -> Outcome:
        if not self.sdk:
            delivered: object = _delivered_stream(end, sent)
            return self._ending("200", delivered, end.code, "mid_stream", 200, text=end.text)
        ended = f"APIError None {end.code}" if end.raises else "whole"
        return self._ending(ended, end.text, end.code, "mid_stream", 200, text=end.text)

    def _raised(self, end: Raised, sent: bytes) -> Outcome:
        status = 200 if end.phase == "mid_stream" else None
        ended, delivered = end.exception, b""
        if end.text is not None:
            delivered = sent
            if end.exception == "StreamError":
                delivered = _before_the_error(sent)
        if not self.sdk:
            return self._ending(ended, delivered, end.code, end.phase, status, text=end.text)
        if end.text is None or self.maps_bodies:
            ended = f"{end.sdk} of {end.exception}"
        return self._ending(ended, end.text or "", end.code, end.phase, status, text=end.text)

    def _ending(
        self,
        ended: str,
        delivered: object,
        code: object,
        phase: str,
        status: int | None,
        *,
        final: bool = False,
        text: str | None = None,
    ) -> Outcome:
        failure, end = self.failure, self.failure.end
        again = end.sdk_retries if self.sdk else 0
        total = failure.attempts + again
        numbers = [n if self._answered else None for n in range(failure.attempts, total + 1)]
        late = text is not None  # its HTTP span had ended well
        calls = tuple(
            CallSpan(
                status="ERROR",
                error=str(code),
                phase=phase,
                request=number,
                retries=0 if retry else len(failure.waits),
            )
            for retry, number in enumerate(numbers)
        )
        attempts = tuple(
            AttemptSpan(
                call=max(1, number - failure.attempts + 1),
                resend_count=number - 1 or None if number <= failure.attempts else None,
                error=None if late else str(code),
                request=number if self._answered else None,
            )
            for number in range(1, total + 1)
        )
        explained = Explained(
            code=code,
            status=status,
            phase=phase,
            attempts=1 if again else failure.attempts,
            request=numbers[-1],
        )
        return Outcome(
            ended=ended,
            delivered=delivered,
            final=final,
            explained=None if ended == "whole" else explained,
            requests=total if failure.trouble == "reply" else 0,
            waits=failure.waits,
            calls=calls,
            attempts=attempts,
        )

    def _failed(self, count: int) -> Sequence[AttemptSpan]:
        """The HTTP spans of attempts that were retried."""
        code = str(self.failure.end.code)
        return [
            AttemptSpan(
                resend_count=number - 1 or None,
                error=code,
                request=number if self._answered else None,
            )
            for number in range(1, count + 1)
        ]
