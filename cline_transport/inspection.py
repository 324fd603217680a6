# SPDX-License-Identifier: Apache-2.0
"""From bytes to facts: what an answer says, whole or as a stream, and where it says "error".

A good stream costs a few byte searches per chunk. JSON is parsed only where one of them hits; what
cannot be parsed, or is of a surprising type, passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from cline_transport.record import CallRecord
from cline_transport.sse import Event, EventSplitter, parse_event, split_events, write_event
from cline_transport.wire import (
    WireError,
    as_list,
    as_mapping,
    clip,
    code_of,
    dump_json,
    load_json,
    read_chunk_error,
    read_error_object,
)

__all__ = [
    "OnError",
    "StreamFailure",
    "StreamReader",
    "may_hold_error",
    "read_answer",
    "read_completion",
]

OnError = Literal["normalize", "raise", "observe"]


def read_completion(payload: object, record: CallRecord) -> None:
    """Note ID, model, finish reason and usage of a completion or a chunk in the record."""
    top = as_mapping(payload)
    if top is None:
        return
    for name, attribute in (("id", "response_id"), ("model", "response_model")):
        value = top.get(name)
        if isinstance(value, str) and value:
            setattr(record, attribute, clip(value, 256))
    for choice in _choices(top):
        reason = (as_mapping(choice) or {}).get("finish_reason")
        if isinstance(reason, str) and reason:
            record.finish_reason = clip(reason, 64)
    usage = as_mapping(top.get("usage"))
    if usage is not None:
        _read_usage(usage, record)


def read_answer(body: bytes, record: CallRecord) -> None:
    """`read_completion` of a body that is not parsed yet."""
    read_completion(load_json(body), record)


def may_hold_error(body: bytes) -> bool:
    """Whether the JSON of a 2xx may hold an error: the word, or an escape that could stand in it.

    Examples:
        >>> may_hold_error(b'{"choices": [{"finish_reason": "stop"}]}')
        False
    """
    # A NUL: UTF-16, whose letters are two bytes each.
    return body.find(b'"error"') >= 0 or body.find(b"\\u00") >= 0 or 0 in body


def _choices(top: Mapping[str, Any]) -> list[object]:
    return as_list(top.get("choices"))


_MAX_COUNT: Final = 2**63
"""What a protobuf integer, and so an exporter, can hold."""


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -_MAX_COUNT < value < _MAX_COUNT else None


def _read_usage(usage: Mapping[str, Any], record: CallRecord) -> None:
    noted = record.usage
    noted.input_tokens = _count(usage.get("prompt_tokens"))
    noted.output_tokens = _count(usage.get("completion_tokens"))
    details = as_mapping(usage.get("prompt_tokens_details"))
    if details is not None:
        noted.cached_tokens = _count(details.get("cached_tokens"))
    cost = usage.get("cost")
    if isinstance(cost, float):
        noted.cost = cost
    else:
        whole = _count(cost)
        noted.cost = None if whole is None else float(whole)


class StreamFailure(NamedTuple):
    """An error in a stream, and how it is to be delivered (`None`: not at all)."""

    error: WireError
    event: bytes | None
    after_content: bool


# An event of one line that has a text as its content: what stands before it, and after it.
_CONTENT_EVENT: Final = re.compile(
    rb'(data:[^\r\n]*?"content": ?")(?:[^"\\\r\n]|\\.)*("[^\r\n]*\n\n)'
).fullmatch
_LF: Final = 0x0A
_CR: Final = 0x0D
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_UNLIKE: Final = (b"", b"", -1)
"""What most events begin and end with, and its size; here: nothing."""
_USUAL: Final = 2048
"""Bytes of an event that may be taken for one of many: the pattern's work grows with the square."""
_TRIES: Final = 8
"""How often a stream's events are looked at to find what they have in common."""


def _has_needle(run: bytes) -> bool:
    """What makes a run worth parsing. Gateways write JSON with and without a space."""
    # Not `in`, which raises an exception and drops it, to see that bytes are no number.
    find = run.find
    return (
        find(b"error") >= 0
        or find(b'"finish_reason":"') >= 0
        or find(b'"usage":{') >= 0
        or find(b"[DONE]") >= 0
        or find(b'"finish_reason": "') >= 0
        or find(b'"usage": {') >= 0
    )


_CONTENT: Final = (
    "content",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
)
_NO_EVENT: Final = Event("", None)
_TRUNCATED: Final = WireError("stream_truncated", "The stream ended before the answer did")


class StreamReader:
    """Reads one event stream as it passes.

    `feed` and `finish` return the bytes to deliver now. After the first error `failure` is set, and
    with `on_error="raise"` nothing more is returned.

    Args:
        record: Where ID, model, finish reason and usage are noted.
        on_error: `normalize` rewrites an error event so that every client sees it; `raise` holds
            it back; `observe` leaves it as it is.
        max_event_bytes: A larger event passes unread.
        chat: The call went to a chat completions endpoint. A stream of chat chunks is recognised
            anywhere; in any other stream an `error` is somebody else's field, and passes.
        detect_truncation: Whether an end without finish reason and `[DONE]` is a failure.
    """

    __slots__ = (
        "_chat", "_chunks", "_detect", "_endpoint", "_events", "_finished", "_like", "_on_error",
        "_opaque", "_record", "_splitter", "_steady", "_tries", "committed", "done", "failure",
    )  # fmt: skip

    def __init__(
        self,
        record: CallRecord,
        *,
        on_error: OnError,
        max_event_bytes: int,
        chat: bool = True,
        detect_truncation: bool = True,
    ) -> None:
        self._record = record
        self._on_error = on_error
        self._splitter = EventSplitter(max_event_bytes=max_event_bytes)
        self._detect = detect_truncation
        self._endpoint = chat
        self._chat = chat
        self._chunks = False  # chat chunks have come
        self._events = False  # events with data have come
        self._opaque = False  # an event passed unread
        self._finished = False  # a finish reason has come
        self._like = _UNLIKE
        self._tries = _TRIES
        self._steady = False  # whole events have come so far, and content among them
        self.committed = False
        """Whether content has come."""
        self.done = False
        """Whether `[DONE]` has come."""
        self.failure: StreamFailure | None = None

    def passes(self, chunk: bytes) -> bool:
        """Whether a chunk passes as it is: after the first content, whole events, nothing to see.

        It is asked of every chunk of a good stream. Most differ from the one before in a word only:
        that is seen by comparing what stands before it and after it.
        """
        before, after, size = self._like
        word = chunk.removeprefix(before).removesuffix(after)
        # Without a quote or a line end, or what could make one of the closing quote, it is a text
        # within a JSON string. Numbers are looked for, as `bytes in bytes` costs ten times as much.
        if (
            len(chunk) - len(word) == size
            and _QUOTE not in word
            and _LF not in word
            and _CR not in word
            and (_BACKSLASH not in word or word[-1] != _BACKSLASH)
        ):
            return self._steady
        return self._steady and chunk[-2:] == b"\n\n" and not self._note_needle(chunk)

    def _note_needle(self, chunk: bytes) -> bool:
        """Whether there is something to see in a chunk; if not, what others like it look like."""
        if _has_needle(chunk):
            return True
        if self._tries and self._chat and len(chunk) <= _USUAL:
            self._tries -= 1
            found = _CONTENT_EVENT(chunk)
            self._like = _UNLIKE
            if found:
                before, after = found.groups()
                self._like = (before, after, len(before) + len(after))
        return False

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk as it came; return what may be delivered: whole events, at once."""
        out = self._feed(chunk)
        self._steady = not self._eager and self._splitter.idle and self.failure is None
        # `observe` holds nothing back, not even an event's first half.
        return chunk if self._on_error == "observe" else out

    def _feed(self, chunk: bytes) -> bytes:
        out = b""
        for data, opaque in self._splitter.feed(chunk):
            if opaque:
                self._opaque = self.committed = True
            if opaque or not self._interesting(data):
                out = out + data if out else data
                continue
            seen = bytearray(out)
            for raw in split_events(data):
                seen += self._inspect(raw)
                if self._stopped:
                    return bytes(seen)
            out = bytes(seen)
        return out

    def finish(self) -> bytes:
        """The end of the stream: what is left of it, and what has to be said of it."""
        rest = self._splitter.flush()
        event = parse_event(rest) if rest else _NO_EVENT
        data = event.data or b""
        whole = bool(data) and (load_json(data) is not None or data.strip() == b"[DONE]")
        out = rest
        # Half an event of a chat is none, not even the first; what is called an error is one.
        chat = self._chunks or (self._endpoint and event.name != "error")
        if rest and (whole or not chat):
            out = b"" if self._stopped else self._inspect(rest)
        if self._truncated():
            told = None if self._on_error == "raise" else _rewrite(b"", None, _TRUNCATED)
            self.failure = StreamFailure(_TRUNCATED, told, self.committed)
            # Half an event would spoil the error's: it goes no further. A whole one is ended.
            out = (rest + b"\n\n" if whole else b"") + (told or b"")
        return b"" if self._on_error == "observe" or (self._stopped and not whole) else out

    @property
    def began(self) -> bool:
        """Whether an event has come that is neither a comment nor an error."""
        return self.failure is None and (self._events or self._opaque)

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end: a finish reason, or `[DONE]`."""
        return self.done or self._finished

    def _truncated(self) -> bool:
        if not self._detect or self.failure is not None or self._opaque or self.complete:
            return False
        return self._chunks or (self._endpoint and not self._events)

    @property
    def _stopped(self) -> bool:
        return self._on_error == "raise" and self.failure is not None

    def _interesting(self, run: bytes) -> bool:
        return self._eager or _has_needle(run)

    @property
    def _eager(self) -> bool:
        """Whether each event is looked at: for content, or to see whether it is a chunk at all."""
        return not self.committed or (self._endpoint and not self._chunks)

    def _inspect(self, raw: bytes) -> bytes:
        """Look at one event; return what is delivered in its place."""
        try:
            return self._look_at(raw)
        except Exception:  # noqa: BLE001 -- inspection never breaks a call
            self.committed = self._opaque = True
            return raw

    def _look_at(self, raw: bytes) -> bytes:
        event = parse_event(raw)
        if event.data is None:
            return raw
        if event.data.strip() == b"[DONE]":
            self.done = self.committed = True
            return raw
        payload = load_json(event.data)
        self._events = True
        is_chunk = _is_chunk(as_mapping(payload) or {})
        if is_chunk:
            self._chat = self._chunks = True
        error = None
        if self._chat:
            error = read_chunk_error(payload)
            if error is None and event.name == "error":
                error = _error_of_named_event(payload, event.data)
        read_completion(payload, self._record)
        if error is None:
            self._finished = self._finished or self._record.finish_reason is not None
            self.committed = self.committed or not is_chunk or _has_content(payload)
            return raw
        delivered: bytes | None = raw
        if self._on_error != "observe":
            delivered = None if self._on_error == "raise" else _rewrite(raw, payload, error)
        if self.failure is None:
            self.failure = StreamFailure(error, delivered, self.committed)
        return delivered or b""


def _is_chunk(top: Mapping[str, Any]) -> bool:
    return isinstance(top.get("choices"), list) or top.get("object") == "chat.completion.chunk"


def _has_content(payload: object) -> bool:
    for choice in _choices(as_mapping(payload) or {}):
        entry = as_mapping(choice) or {}
        delta = as_mapping(entry.get("delta")) or as_mapping(entry.get("message")) or {}
        if entry.get("finish_reason") or any(delta.get(name) for name in _CONTENT):
            return True
    return False


def _error_of_named_event(payload: object, data: bytes) -> WireError | None:
    """The error of an event that is called `error` and is not a chat chunk."""
    top = as_mapping(payload) or {}
    if isinstance(top.get("message"), str) or "code" in top:
        return read_error_object(top)
    return WireError(
        None, data.decode("utf-8", "replace").strip() or "The stream ended with an error"
    )


def _rewrite(raw: bytes, payload: object, error: WireError) -> bytes:
    """The event with its error where every known client looks for it.

    At the top level (the OpenAI SDK, OpenRouter's clients) and in `choices[0]` (the Cline API's
    documentation), with `finish_reason: "error"` and an empty `delta`.
    """
    top = as_mapping(payload) or {}
    entries = list(_choices(top))
    first = (as_mapping(entries[0]) if entries else None) or {}
    documented: dict[str, Any] = {
        **(as_mapping(first.get("error")) or as_mapping(top.get("error")) or {}),
        "code": code_of(error),
        "message": error.message,
    }
    wanted = {"delta": {}, "finish_reason": "error", "error": documented}
    if (
        top.get("error") == documented
        and all(first.get(name) == value for name, value in wanted.items())
        and raw.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
    ):
        return raw
    entries[:1] = [{"index": 0, **first, **wanted}]
    return write_event(raw, dump_json({**top, "choices": entries, "error": documented}))
