# SPDX-License-Identifier: Apache-2.0
"""What failed, and how the wire says it.

The exceptions a caller can meet::

    Exception
    ├── httpx.TransportError / httpx2.TransportError     the wire's own, passed on as they are
    │   └── StreamError   (one per family)               an error in a stream, `on_error="raise"`
    └── openai.APIError                                  what the SDK makes of a delivered response
        ├── APIStatusError                               the HTTP errors: 400, 401, 402, 429, 502 …
        └── APIConnectionError                           no response

Whatever the exception, response or chunk, `error_info` turns it into one `ErrorInfo`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from cline_transport._protocols import FAMILIES
from cline_transport.wire import (
    CONNECTION_CODES,
    Code,
    as_mapping,
    as_text,
    clip,
    code_of,
    is_transient,
    load_json,
    normalize_error_body,
    read_chunk_error,
    read_json_error,
)

__all__ = [
    "EXTENSION",
    "REQUEST_RECORD",
    "ErrorInfo",
    "Phase",
    "connection_code",
    "connection_error",
    "error_info",
    "exception_chain",
    "find_record",
    "is_rate_limit",
    "read_attribute",
]

Phase = Literal["immediate", "mid_stream", "connection"]

EXTENSION: Final = "cline_transport"
"""The key of a response's extensions that holds the `CallRecord`."""

REQUEST_RECORD: Final = "cline_transport.record"
"""The key of a request's extensions that holds it: an exception may have no response."""

# The "What to do" column of the error page, word for word where it has one.
_ADVICE: Final[Mapping[Code, str]] = MappingProxyType(
    {
        400: "Check your request body and required parameters",
        401: "Verify the Authorization header contains a valid key",
        402: "Add credits at app.cline.bot",
        403: "Check key permissions",
        404: "Verify the URL and model ID format (provider/model-name)",
        429: "Wait and retry with exponential backoff",
        500: "Retry after a short delay",
        502: "Retry after a short delay",
        503: "Retry after a short delay",
        "context_length_exceeded": "Shorten the input or choose a model with a larger context",
        "content_filter": "Change the request: its content was blocked by a safety filter",
        "rate_limit": "Wait and retry with exponential backoff",
        "server_error": "Retry the full request",
        "stream_truncated": "Retry the full request",
        "insufficient_quota": "Add credits at app.cline.bot",
        "connect_error": "Check the network, the proxy settings and the base URL",
        "connect_timeout": "Check the network, the proxy settings and the base URL",
        "proxy_error": "Check the proxy settings",
        "proxy_refused": "Check the proxy settings: it refused the connection",
        "protocol_error": "Check that the base URL is that of the API",
        "connection_closed": "Retry the full request",
        "read_timeout": "Raise the read timeout; the generation may have been billed",
        "write_timeout": "Raise the write timeout; the generation may have been billed",
        "limit_timeout": "Raise the deadline or the limits, or make fewer calls at once",
        "pool_timeout": "Raise the connection limits or reduce concurrent requests",
    }
)

# Both families, and whatever derives from their exceptions, use these names.
_CODE_OF_EXCEPTION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ConnectTimeout": "connect_timeout",
        "ReadTimeout": "read_timeout",
        "WriteTimeout": "write_timeout",
        "PoolTimeout": "pool_timeout",
        "ConnectError": "connect_error",
        "ProxyError": "proxy_error",
        "NetworkError": "connection_closed",
        "RemoteProtocolError": "connection_closed",
    }
)


def connection_code(exc: BaseException) -> str:
    """The code of a failure without a response: one of ours, or the exception's class name."""
    for base in _families_bases(exc):
        code = _CODE_OF_EXCEPTION.get(base)
        if code == "connection_closed" and base == "RemoteProtocolError":
            # h11 and h2 raise the same for an end that came too soon and for what is no HTTP.
            return code if _CLOSED.search(str(exc)) else "protocol_error"
        if code == "proxy_error" and _REFUSED.match(str(exc)):
            return "proxy_refused"  # a login that is repeated may be locked
        if code is not None:
            return code
    return type(exc).__name__


_CLOSED: Final = re.compile(r"disconnect|closed|terminated|StreamReset|incomplete", re.IGNORECASE)
_REFUSED: Final = re.compile(r"4\d\d\b")


def _families_bases(exc: BaseException) -> list[str]:
    """The names of the httpx or httpx2 classes that an exception derives from."""
    return [b.__name__ for b in type(exc).__mro__ if b.__module__.partition(".")[0] in FAMILIES]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """One failure, in the words of the API's error page.

    Attributes:
        code: HTTP status or string identifier (`error.code`); `stream_truncated` for an answer that
            just ends, `limit_timeout` for a call that limits held back past its deadline; for a
            failure without a response one of `connect_error`, `connect_timeout`,
            `connection_closed`, `read_timeout`, `write_timeout`, `pool_timeout`, `proxy_error`,
            `proxy_refused`, `protocol_error`, or the exception's class name.
        message: What went wrong, for people (`error.message`).
        metadata: Provider details, internal IDs (`error.metadata`); empty where there are none.
        status_code: The HTTP status of the response that carried it; `None` without a response
            (429 for `limit_timeout`, as which it is delivered).
        phase: `immediate` (an HTTP error), `mid_stream` (while a 200 was being read) or
            `connection` (no response).
        request_id: `x-request-id` of the last attempt, where the server sent one.
        model: The model ID that the request asked for.
        attempts: Requests made on the wire for this call.
        retryable: Whether the documentation counts this failure as transient.

    Examples:
        >>> info = ErrorInfo(code=402, message="No credits", status_code=402, phase="immediate")
        >>> info.advice
        'Add credits at app.cline.bot'
    """

    code: Code
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    status_code: int | None = None
    phase: Phase = "immediate"
    request_id: str | None = None
    model: str | None = None
    attempts: int = 1
    retryable: bool = False

    @property
    def advice(self) -> str:
        """What to do about it: the error page's own column, or the nearest thing to it."""
        advice = _ADVICE.get(self.code)
        if advice is None and self.status_code is not None:
            advice = _ADVICE.get(self.status_code)
        if advice is not None:
            return advice
        return "Retry the full request" if self.retryable else "Report it with the details below"

    def report(self) -> str:
        """The text to paste into a support request: the four points of the page's "Debugging".

        It holds no key, prompt or completion. The message is cut at 1,024 characters.
        """
        broken = self.code in CONNECTION_CODES or str(self.code).endswith("_timeout")
        how = {
            "immediate": f"immediate (HTTP error {self.status_code})",
            "mid_stream": "mid-stream (the connection was lost)"
            if broken
            else 'mid-stream (finish_reason: "error")',
            "connection": "no response (nothing was sent)"
            if self.code == "limit_timeout"
            else "no response (the connection failed)",
        }[self.phase]
        lines = (
            f"1. Error code and message: {clip(str(self.code), 64)}: {clip(self.message)}",
            f"2. Model ID: {clip(self.model or 'not known', 256)}",
            f"3. Request ID (x-request-id): {clip(self.request_id or 'not present', 256)}",
            f"4. Immediate or mid-stream: {how}",
            f"Attempts: {self.attempts}",
            f"What to do: {self.advice}",
        )
        return "\n".join(lines)


def is_rate_limit(error: ErrorInfo) -> bool:
    """Whether the API refused a call because there were too many, as a status or in a stream.

    Examples:
        >>> is_rate_limit(ErrorInfo(code="rate_limit", message=""))
        True
    """
    return error.code in (429, "rate_limit") or error.status_code == 429


def error_info(source: object) -> ErrorInfo | None:
    """Explain a failure, whatever it is given.

    Args:
        source: An httpx or httpx2 response or exception, an exception of the `openai` SDK or of a
            framework that was raised from one of these or while it was handled (as may be any
            other that is raised there), or a decoded stream chunk (a `dict`, or the SDK's
            `ChatCompletionChunk`). A response must have been read; one that was not is explained
            by its status alone.

    Returns:
        The `ErrorInfo`, or `None` where there is no error.

    Examples:
        >>> chunk = {"choices": [{"finish_reason": "error", "error": {"code": "rate_limit"}}]}
        >>> error_info(chunk).phase
        'mid_stream'
    """
    info: ErrorInfo | None
    if isinstance(source, ErrorInfo):
        return source
    if isinstance(source, BaseException):
        return _from_exception(source)
    if isinstance(read_attribute(source, "status_code"), int):
        return _from_response(source)
    chunk = as_mapping(_dumped(source))
    error = read_chunk_error(chunk)
    if chunk is None or error is None:
        return None
    code = code_of(error)
    info = ErrorInfo(
        code=code,
        message=error.message,
        metadata=error.metadata,
        status_code=200,
        phase="mid_stream",
        model=as_text(chunk.get("model")),
        retryable=is_transient(code, None),
    )
    return info


def find_record(owner: object) -> object:
    """The `CallRecord` of a request or response; `None` where there is none."""
    extensions = as_mapping(read_attribute(owner, "extensions")) or {}
    return extensions.get(REQUEST_RECORD) or extensions.get(EXTENSION)


def _record_error(owner: object) -> ErrorInfo | None:
    error = getattr(find_record(owner), "error", None)
    return error if isinstance(error, ErrorInfo) else None


def read_attribute(owner: object, name: str) -> object:
    """An attribute, or `None` where there is none or its property fails."""
    # httpx raises RuntimeError from `.request` and `.response` where there is none.
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 -- any property of any client
        return None


def _headers(response: object) -> Mapping[str, str]:
    given = read_attribute(response, "headers")
    return cast("Mapping[str, str]", given if isinstance(given, Mapping) else {})


def _from_response(response: object) -> ErrorInfo | None:
    recorded = _record_error(response)
    if recorded is not None:
        return recorded
    status = cast("int", read_attribute(response, "status_code"))
    if status < 400:
        content = read_attribute(response, "content")
        error = read_json_error(load_json(content)) if isinstance(content, bytes) else None
        if error is None:
            return None
    else:
        headers = _headers(response)
        content = read_attribute(response, "content")
        body = content if isinstance(content, bytes) else b""
        error = normalize_error_body(status, headers.get("content-type", ""), body).error
    code = code_of(error)
    headers = _headers(response)
    return ErrorInfo(
        code=code,
        message=error.message,
        metadata=error.metadata,
        status_code=status,
        phase="immediate",
        request_id=headers.get("x-request-id"),
        retryable=is_transient(code, status),
    )


def _dumped(source: object) -> object:
    """A model of the SDK as plain data; anything else as it is."""
    dump = read_attribute(source, "model_dump")
    try:
        return dump() if callable(dump) else source
    except Exception:  # noqa: BLE001 -- whatever has a method of that name
        return None


def _from_exception(exc: BaseException) -> ErrorInfo | None:
    # A framework's exception may carry a response or a body of its own making. What the transport
    # recorded of the exception beneath it says more, and then what a response says.
    chain = exception_chain(exc)
    for read in (_recorded, _from_wire, _from_body):
        for one in chain:
            info = read(one)
            if info is not None:
                return info
    return None


def exception_chain(exc: BaseException) -> list[BaseException]:
    """An exception, and what it was raised from, or was raised while handling.

    What was being handled is followed from a framework's exceptions only: one of a client library,
    or of the SDK, is of a call of its own. Of a group with one member, it is the member.
    """
    chain: dict[int, BaseException] = {}
    next_one: BaseException | None = exc
    while next_one is not None and id(next_one) not in chain:
        chain[id(next_one)] = next_one
        beneath = next_one.__cause__ or _only_member(next_one)
        own = type(next_one).__module__.partition(".")[0] in _OF_A_CALL
        if beneath is None and not own and not next_one.__suppress_context__:
            beneath = next_one.__context__
        next_one = beneath
    return list(chain.values())


_OF_A_CALL: Final = {*FAMILIES, "openai", "cline_transport"}


def _only_member(exc: BaseException) -> BaseException | None:
    members = read_attribute(exc, "exceptions")
    if isinstance(members, tuple):
        alone: tuple[object, ...] = members  # pyright: ignore[reportUnknownVariableType]
        if len(alone) == 1 and isinstance(alone[0], BaseException):
            return alone[0]
    return None


def _recorded(exc: BaseException) -> ErrorInfo | None:
    own = read_attribute(exc, "info")
    if isinstance(own, ErrorInfo):
        return own
    return _record_error(read_attribute(exc, "response")) or _record_error(
        read_attribute(exc, "request")
    )


def _from_wire(exc: BaseException) -> ErrorInfo | None:
    response = read_attribute(exc, "response")
    if isinstance(read_attribute(response, "status_code"), int):
        return _from_response(response)
    return connection_error(exc) if "TransportError" in _families_bases(exc) else None


def _from_body(exc: BaseException) -> ErrorInfo | None:
    body = as_mapping(read_attribute(exc, "body"))
    # Without a status it is what the SDK found in a stream; either way the error object itself.
    info = None if body is None else error_info({"error": body})
    status = read_attribute(exc, "status_code")
    if info is None or not isinstance(status, int):
        return info
    retryable = is_transient(info.code, status)
    return replace(info, status_code=status, phase="immediate", retryable=retryable)


def connection_error(exc: BaseException) -> ErrorInfo:
    """The `ErrorInfo` of an exception from the wire."""
    code = connection_code(exc)
    return ErrorInfo(
        code=code,
        message=str(exc) or type(exc).__name__,
        phase="connection",
        retryable=is_transient(code, None),
    )
