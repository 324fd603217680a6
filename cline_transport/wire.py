# SPDX-License-Identifier: Apache-2.0
"""The wire's error formats: reading every shape of them, writing the documented one.

The formats are those of the API's error page ("Error response format", "Mid-stream errors") and the
undocumented ones met at gateways. Nothing here raises on what a server sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, NamedTuple

__all__ = [
    "CONNECTION_CODES",
    "KNOWN_CODES",
    "MAX_MESSAGE",
    "NEVER_RETRIED",
    "TRANSIENT",
    "Code",
    "NormalizedBody",
    "WireError",
    "as_list",
    "as_mapping",
    "as_status",
    "as_text",
    "clean",
    "clip",
    "code_of",
    "describe",
    "dump_json",
    "error_body",
    "is_transient",
    "load_json",
    "normalize_error_body",
    "read_chunk_error",
    "read_error_object",
    "read_json_error",
    "status_for",
    "write_error",
]

Code = int | str
"""`error.code`: an HTTP status, or a string identifier."""

MAX_MESSAGE: Final = 1024
"""Characters of a server's message that are shown in a span, a log line or a report."""

MAX_RAW: Final = 4096
"""Characters of an undocumented body that are kept in `metadata["raw"]`."""

# "Common mid-stream error codes" and the causes of the HTTP table: what to say when a server
# names a code and nothing else.
_MEANING: Final[Mapping[Code, str]] = MappingProxyType(
    {
        402: "Insufficient account credits",
        403: "Key does not have access to this resource",
        429: "Rate limit exceeded",
        502: "Upstream provider error",
        503: "Service temporarily down",
        "context_length_exceeded": "Input tokens exceed the model's context window",
        "content_filter": "Content was blocked by a safety filter",
        "rate_limit": "Rate limit hit during generation",
        "server_error": "Upstream provider failed during generation",
    }
)

CONNECTION_CODES: Final = frozenset(
    {"connect_error", "connect_timeout", "connection_closed", "proxy_error"}
)
"""Codes of failures in which no response came, and a new attempt is safe."""

TRANSIENT: Final[frozenset[Code]] = (
    frozenset[Code]({429, 500, 502, 503, 504, 408, 529, "rate_limit", "server_error"})
    | frozenset(range(520, 525))
    | {"stream_truncated"}
    | CONNECTION_CODES
)
"""Failures that are retried: by the documentation or, where it is silent, by gateways' practice."""

NEVER_RETRIED: Final = frozenset(
    {"context_length_exceeded", "content_filter", "insufficient_quota"}
)
"""Codes that no retry mends, whatever the status they come under."""

KNOWN_CODES: Final[frozenset[Code]] = TRANSIENT | NEVER_RETRIED
"""Codes that are documented, or ours."""

_STATUS_OF_CODE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "rate_limit": 429,
        "insufficient_quota": 429,
        "context_length_exceeded": 400,
        "content_filter": 400,
    }
)


class WireError(NamedTuple):
    """An error as a server wrote it: its code if it gave one, a message, its metadata."""

    code: Code | None
    message: str
    metadata: Mapping[str, Any] = {}


def code_of(error: WireError) -> Code:
    """Its code; the one of a failure that says nothing of itself where it gave none."""
    return "server_error" if error.code is None else error.code


def clean(text: str) -> str:
    """`text` without lone surrogates, which no exporter can encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


# Of C0 and C1, and what turns the direction of writing: a terminal or a log viewer obeys them.
_CONTROL: Final = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    r"""Cut `text` at `limit` characters and put it on one line, fit to be shown and exported.

    Examples:
        >>> clip("one\n\x1b[31mtwo")
        'one [31mtwo'
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and " " not in text:
        return text  # as most are: an ID, a code
    line = " ".join(_CONTROL.sub(" ", clean(text[: 4 * limit])).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(code: Code | None, status_code: int | None) -> str:
    """A message for an error that came without one."""
    for key in (code, status_code):
        if key is not None and key in _MEANING:
            return _MEANING[key]
    if status_code is not None:
        try:
            return HTTPStatus(status_code).phrase
        except ValueError:
            return f"HTTP error {status_code}"
    return f"The stream ended with an error ({code})" if code else "The stream ended with an error"


def as_status(code: object) -> int | None:
    """The HTTP status that a code names, written as a number or as digits; else `None`."""
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
        return code
    return None


def status_for(code: Code | None) -> int:
    """The HTTP status under which an error that came inside a 200 is delivered.

    Examples:
        >>> status_for("rate_limit"), status_for(503), status_for("server_error")
        (429, 503, 502)
    """
    status = as_status(code)
    if status is not None:
        return status
    return _STATUS_OF_CODE.get(code, 502) if isinstance(code, str) else 502


def is_transient(code: Code, status_code: int | None) -> bool:
    """Whether a failure is one that a later attempt can mend."""
    if code in NEVER_RETRIED:
        return False
    return code in TRANSIENT or as_status(code) in TRANSIENT or status_code in TRANSIENT


_read_json: Final = json.JSONDecoder().raw_decode


def load_json(body: bytes) -> object:
    """The decoded JSON, or `None` where it is none (or too deep to be read)."""
    try:  # as nearly always: UTF-8, and nothing around the value
        text = body.decode()
        value, end = _read_json(text)
    except ValueError:
        text, value, end = "", None, -1
    except RecursionError:
        return None
    if end == len(text):
        return value
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def dump_json(payload: object) -> bytes:
    """Compact JSON in ASCII: a lone surrogate in what a server sent must not fail the writer."""
    return json.dumps(payload, separators=(",", ":")).encode("ascii")


# --- reading --------------------------------------------------------------------------------------


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """A JSON object, or `None` for anything else."""
    # Without a cast, which is a call: this is asked a dozen times of each answer.
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def as_list(value: object) -> list[object]:
    """A JSON array, or an empty list for anything else."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def as_text(value: object) -> str | None:
    """A string with something in it, or `None`."""
    return value.strip() or None if isinstance(value, str) else None


_MAX_CODE: Final = 2**63
"""A number of thousands of digits is no code, and would be told in full."""


def _code(value: object) -> Code | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return value if abs(value) < _MAX_CODE else None
    return as_text(value)


def read_error_object(error: Mapping[str, Any]) -> WireError:
    """An `error` object: its code if it has one, a message in any case, its metadata."""
    message = as_text(error.get("message"))
    code = _code(error.get("code"))
    metadata = as_mapping(error.get("metadata")) or {}
    return WireError(code, message or describe(code, as_status(code)), metadata)


def _details(error: object) -> Mapping[str, Any] | None:
    """An `error` object with something in it; some servers send an empty one with good answers."""
    if error is None:
        return None
    details = as_mapping(error)
    return details if details and any(details.values()) else None


def read_chunk_error(chunk: object) -> WireError | None:
    """The error that a decoded stream chunk carries, in any of its three shapes, or `None`.

    Cline: `choices[0].error` beside `finish_reason: "error"`. OpenRouter: `error` at the top level.
    Bare: `finish_reason: "error"` and no details. (Error page, "Mid-stream errors".)
    """
    top = as_mapping(chunk)
    if top is None:
        return None
    for choice in as_list(top.get("choices")):
        entry = as_mapping(choice)
        if entry is None:
            continue
        inner = _details(entry.get("error"))
        if inner or entry.get("finish_reason") == "error":
            return read_error_object(inner or _details(top.get("error")) or {})
    error = top.get("error")
    details = _details(error)
    if details:
        return read_error_object(details)
    text = as_text(error)
    return WireError(None, text) if text else None


def read_json_error(body: object) -> WireError | None:
    """The error inside the JSON body of a 2xx response, or `None`.

    Other resources of OpenAI-compatible APIs (responses, batches, jobs) have an `error` field of
    their own and name themselves in `object`; those are results, not failures of the call.
    """
    top = as_mapping(body)
    if top is None:
        return None
    kind = top.get("object")
    if isinstance(kind, str) and not kind.startswith("chat.completion"):
        return None
    return read_chunk_error(top)


class NormalizedBody(NamedTuple):
    """An error body as it is delivered: what it says, and the new bytes where it is rewritten."""

    error: WireError
    rewritten: bytes | None


def normalize_error_body(
    status_code: int, content_type: str, body: bytes, *, complete: bool = True
) -> NormalizedBody:
    """Bring the body of an HTTP error into the documented format.

    What callers already read passes byte for byte (`rewritten` is `None`): an `error` object with a
    message, and the OAuth form (RFC 6749, section 5.2). Any other JSON object keeps its fields and
    gains `error`; anything else is replaced, its first 4 KiB kept in `metadata["raw"]`.

    Args:
        status_code: The response's status.
        content_type: Its `content-type`, or an empty string.
        body: The decoded bytes.
        complete: `False` when the body was longer than what was read.

    Examples:
        >>> normalize_error_body(502, "text/html", b"<h1>Bad Gateway</h1>").error.message
        'Bad Gateway'
    """
    top = as_mapping(load_json(body)) if complete else None
    if top is None:
        raw = body[: 4 * MAX_RAW].decode("utf-8", "replace")[:MAX_RAW]
        message = _message_in_text(raw, content_type) or describe(None, status_code)
        metadata: dict[str, Any] = {"raw": raw, "content_type": content_type}
        error = WireError(status_code, message, metadata)
        return NormalizedBody(error, write_error(error))

    details = as_mapping(top.get("error"))
    if details is not None and as_text(details.get("message")):
        error = read_error_object(details)
        return NormalizedBody(error._replace(code=_code_or(error.code, status_code)), None)
    oauth, description = as_text(top.get("error")), as_text(top.get("error_description"))
    if oauth and description:
        return NormalizedBody(WireError(oauth, description), None)

    message = _message_in_object(top) or describe(None, status_code)
    found = WireError(
        _code_or(_code((details or top).get("code")), status_code),
        message,
        as_mapping((details or {}).get("metadata")) or {},
    )
    documented = {**(details or {}), **_error_object(found)}
    try:
        return NormalizedBody(found, dump_json({**top, "error": documented}))
    except RecursionError:  # deep enough to be read, and too deep to be written
        found = found._replace(metadata={})
        return NormalizedBody(found, write_error(found))


def _code_or(code: Code | None, status_code: int) -> Code:
    return status_code if code is None else code


def _message_in_object(top: Mapping[str, Any]) -> str | None:
    for key in ("error", "message", "detail", "error_description", "title", "reason"):
        value = top.get(key)
        # FastAPI: {"detail": [{"loc": […], "msg": "field required", "type": …}]}
        nested = as_mapping(value) or as_mapping(next(iter(as_list(value)), None))
        text = as_text(nested.get("message") or nested.get("msg")) if nested else as_text(value)
        if text:
            return text
    return None


_MARKUP_HIDDEN: Final = re.compile(
    r"<(script|style|head)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL
)
_MARKUP_TAG: Final = re.compile(r"<[^>]*>")
_HEADING: Final = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)


def _message_in_text(raw: str, content_type: str) -> str | None:
    if "html" in content_type.lower() or raw.lstrip()[:1] == "<":
        heading = _HEADING.search(raw)
        text = heading.group(2) if heading else _MARKUP_HIDDEN.sub(" ", raw)
        raw = unescape(_MARKUP_TAG.sub(" ", text))
    for line in raw.split("\n"):
        if line.strip():
            return clip(line, 200)
    return None


# --- writing --------------------------------------------------------------------------------------


def error_body(error: WireError) -> dict[str, Any]:
    """The documented error body, as an object."""
    return {"error": _error_object(error)}


def _error_object(error: WireError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "metadata": dict(error.metadata)}


def write_error(error: WireError) -> bytes:
    """The documented error body.

    Examples:
        >>> write_error(WireError(401, "Invalid API key"))
        b'{"error":{"code":401,"message":"Invalid API key","metadata":{}}}'
    """
    try:
        return dump_json(error_body(error))
    except RecursionError:
        return dump_json(error_body(error._replace(metadata={})))
