# SPDX-License-Identifier: Apache-2.0
"""Failures inside a stream, before its first content and after it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from cline_transport import Settings, StreamSettings
from cline_transport.simulator import Reply

from .failure import NEVER, ONCE, SAID, TEXT, THRICE, Failure, HttpError, InStream, Raised

MESSAGE: Final = "message-marker-41d0"
UNTOLD: Final = "The stream ended with an error"
"""The message where there is none."""

TRUNCATED: Final = "The stream ended before the answer did"
ENCODINGS: Final = ("gzip", "deflate", "br", "zstd")

_EVENTS: Final = {"content-type": "text/event-stream"}
_ROLE: Final = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
_WORD: Final = b'data: {"choices":[{"index":0,"delta":{"content":"one two"}}]}\n\n'
_HALF: Final = b'data: {"choices":[{"index":0,"delta":{"cont'
_COMMENT: Final = b": OPENROUTER PROCESSING\n\n"
_NAMED: Final = (
    f'event: error\ndata: {{"code":"server_error","message":"{MESSAGE}"}}\n\n'
).encode()


def _events(*events: bytes) -> Reply:
    return Reply.raw(headers=_EVENTS, body=events)


def _both_places(code: str) -> bytes:
    error = {"code": code, "message": MESSAGE}
    choice = {"index": 0, "delta": {}, "finish_reason": "error", "error": error}
    return f"data: {json.dumps({'choices': [choice], 'error': error})}\n\n".encode()


# --- before content ---


def _before(name: str, reply: Reply, status: int, code: Any, message: str, waits: Any) -> Failure:
    return Failure(
        name=name,
        modes=("stream",),
        reply=reply,
        waits=waits,
        end=HttpError(
            status=status, code=code, body="documented", message=message, phase="mid_stream"
        ),
    )


def _chunk(code: Any, status: int, waits: Any, shape: Any = "cline", name: str = "") -> Failure:
    reply = Reply.stream(
        TEXT, error=code, error_message=MESSAGE, error_after=0, error_shape=shape, comments=1
    )
    known, message = ("server_error", UNTOLD) if shape == "bare" else (code, MESSAGE)
    return _before(str(name or code), reply, status, known, message, waits)


def _truncated(name: str, *events: bytes) -> Failure:
    return _before(name, _events(*events), 502, "stream_truncated", TRUNCATED, THRICE)


def _renamed(failures: Iterable[Failure], place: str) -> tuple[Failure, ...]:
    """Names are those of tests: one failure is met before content and after it."""
    return tuple(replace(one, name=f"{one.name}, {place}", row=one.title) for one in failures)


BEFORE_CONTENT: Final = _renamed(
    (
        _chunk("rate_limit", 429, THRICE),
        _chunk("rate_limit", 429, THRICE, "openrouter", "rate_limit, OpenRouter's shape"),
        _chunk("server_error", 502, THRICE),
        _chunk("server_error", 502, THRICE, "openrouter", "server_error, OpenRouter's shape"),
        _chunk("server_error", 502, THRICE, "bare", "no more than finish_reason"),
        _chunk("context_length_exceeded", 400, NEVER),
        _chunk("content_filter", 400, NEVER),
        _chunk("content_filter", 400, NEVER, "openrouter", "content_filter, OpenRouter's shape"),
        _chunk("insufficient_quota", 429, NEVER),
        _chunk("unheard_of", 502, NEVER),
        _chunk(429, 429, THRICE),
        _chunk(503, 503, THRICE),
        _chunk(500, 500, ONCE),
        _chunk(402, 402, NEVER),
        _chunk("503", 503, THRICE, name="503 as text"),
        _before("event: error", _events(_ROLE, _NAMED), 502, "server_error", MESSAGE, THRICE),
        replace(
            _chunk("rate_limit", 429, (9, 9, 9), name="rate_limit, Retry-After: 9"),
            reply=Reply.stream(
                error="rate_limit",
                error_message=MESSAGE,
                error_after=0,
                headers={"retry-after": "9"},
            ),
        ),
        _truncated("truncated", _COMMENT, _ROLE),
        _truncated("truncated in an event", _ROLE, _HALF),
        _truncated("comments only", _COMMENT, _COMMENT),
        _truncated("empty stream"),
    ),
    "before content",
)

# --- after content ---


def _after(name: str, reply: Reply, end: InStream) -> Failure:
    return Failure(name=name, modes=("stream",), reply=reply, end=end)


def _late_chunk(code: Any, shape: Any = "cline", name: str = "", **options: Any) -> Failure:
    reply = Reply.stream(
        TEXT, error=code, error_message=MESSAGE, error_after=2, error_shape=shape, **options
    )
    known, message = ("server_error", UNTOLD) if shape == "bare" else (code, MESSAGE)
    return _after(str(name or code), reply, InStream(code=known, message=message))


_CUT: Final = InStream(code="stream_truncated", message=TRUNCATED, event="added")

AFTER_CONTENT: Final = _renamed(
    (
        _late_chunk("rate_limit"),
        _late_chunk("rate_limit", "openrouter", "rate_limit, OpenRouter's shape"),
        _late_chunk("server_error"),
        _late_chunk("server_error", "openrouter", "server_error, OpenRouter's shape"),
        _late_chunk("server_error", "bare", "no more than finish_reason"),
        _late_chunk("context_length_exceeded"),
        _late_chunk("content_filter"),
        _late_chunk("insufficient_quota"),
        _late_chunk("unheard_of"),
        _late_chunk(503),
        _after(
            "event: error",
            _events(_ROLE, _WORD, _NAMED),
            InStream(code="server_error", message=MESSAGE),
        ),
        _after(
            "an error in both places",
            _events(_ROLE, _WORD, _both_places("rate_limit")),
            InStream(code="rate_limit", message=MESSAGE, event="as sent"),
        ),
        _after("truncated", Reply.stream(TEXT, cut_after=2), _CUT),
        _after("truncated in an event", _events(_ROLE, _WORD, _HALF), _CUT),
    ),
    "after content",
)

# --- encoded ---


def _encoded(failure: Failure, where: str) -> tuple[Failure, ...]:
    return tuple(
        replace(
            failure,
            name=f"{failure.name} in {encoding}, {where}",
            row=f"{failure.name}, {where}",
            reply=replace(failure.reply, encoding=encoding),
        )
        for encoding in ENCODINGS
    )


ENCODED: Final = (
    *_encoded(_chunk("rate_limit", 429, THRICE), "before content"),
    *_encoded(_chunk("content_filter", 400, NEVER), "before content"),
    *_encoded(_truncated("truncated", _ROLE), "before content"),
    *_encoded(_late_chunk("rate_limit"), "after content"),
    *_encoded(_after("truncated", Reply.stream(TEXT, cut_after=2), _CUT), "after content"),
)

# --- settings ---


def _with(failure: Failure, setting: str, **stream: Any) -> Failure:
    return replace(
        failure,
        name=f"{setting}: {failure.name}",
        settings=Settings(stream=StreamSettings(**stream)),
    )


CONFIGURED: Final = (
    _with(
        replace(
            _chunk("server_error", 502, THRICE, name="server_error after content"),
            reply=_late_chunk("server_error").reply,
        ),
        "retry = buffered",
        retry="buffered",
    ),
    _with(
        replace(_truncated("truncated after content"), reply=Reply.stream(TEXT, cut_after=2)),
        "retry = buffered",
        retry="buffered",
    ),
    _with(
        _after(
            "rate_limit before content",
            _chunk("rate_limit", 429, NEVER).reply,
            InStream(code="rate_limit", message=MESSAGE, text=""),
        ),
        "retry = never",
        retry="never",
    ),
    _with(
        Failure(
            name="rate_limit after content",
            modes=("stream",),
            reply=_late_chunk("rate_limit").reply,
            end=Raised(exception="StreamError", code="rate_limit", phase="mid_stream", text=SAID),
        ),
        "on_error = raise",
        on_error="raise",
    ),
    _with(
        _after(
            "rate_limit after content",
            _late_chunk("rate_limit").reply,
            InStream(code="rate_limit", message=MESSAGE, event="as sent", raises=False),
        ),
        "on_error = observe",
        on_error="observe",
    ),
)
