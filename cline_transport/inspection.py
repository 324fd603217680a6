"""From bytes to facts: what a request asks for, what a stream says, where it says "error".

A good stream costs a few byte searches per chunk. JSON is parsed only where one of them hits; what
cannot be parsed, or is of a surprising type, passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from cline_transport.record import CallRecord
from cline_transport.sse import EventSplitter, parse_event, split_events, write_event
from cline_transport.wire import (
    WireError,
    as_list,
    as_mapping,
    dump_json,
    load_json,
    read_chunk_error,
)

__all__ = [
    "OnError",
    "RequestFacts",
    "StreamFailure",
    "StreamReader",
    "read_completion",
    "read_request",
]

OnError = Literal["normalize", "raise", "observe"]


class RequestFacts(NamedTuple):
    """What a request body says; `None` where it does not."""

    model: str | None = None
    stream: bool | None = None


# A key inside a JSON string has its quotes escaped, so these match keys only.
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_STREAM: Final = re.compile(rb'"stream"\s*:\s*(true|false)')


def read_request(body: bytes) -> RequestFacts:
    """Read `model` and `stream` from a JSON request body, without parsing a long prompt for it.

    Example:
        >>> read_request(b'{"model": "anthropic/claude-sonnet-4.6", "stream": true}')
        RequestFacts(model='anthropic/claude-sonnet-4.6', stream=True)
    """
    models, streams = _MODEL.findall(body), _STREAM.findall(body)
    model: object = None
    stream: object = None
    if len(models) <= 1 and len(streams) <= 1:
        model = load_json(models[0]) if models else None
        stream = streams[0] == b"true" if streams else None
    else:
        # Nested objects use the same keys: only a parser tells which are the request's own.
        top = as_mapping(load_json(body)) or {}
        model, stream = top.get("model"), top.get("stream")
    return RequestFacts(
        model if isinstance(model, str) else None, stream if isinstance(stream, bool) else None
    )


def read_completion(payload: object, record: CallRecord) -> None:
    """Note ID, model, finish reason and usage of a completion or a chunk in the record."""
    top = as_mapping(payload)
    if top is None:
        return
    for name, attribute in (("id", "response_id"), ("model", "response_model")):
        value = top.get(name)
        if isinstance(value, str) and value:
            setattr(record, attribute, value)
    for choice in _choices(top):
        reason = (as_mapping(choice) or {}).get("finish_reason")
        if isinstance(reason, str) and reason:
            record.finish_reason = reason
    usage = as_mapping(top.get("usage"))
    if usage is not None:
        _read_usage(usage, record)


def _choices(top: Mapping[str, Any]) -> list[object]:
    return as_list(top.get("choices"))


def _read_usage(usage: Mapping[str, Any], record: CallRecord) -> None:
    def count(value: object) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    noted = record.usage
    noted.input_tokens = count(usage.get("prompt_tokens"))
    noted.output_tokens = count(usage.get("completion_tokens"))
    details = as_mapping(usage.get("prompt_tokens_details"))
    if details is not None:
        noted.cached_tokens = count(details.get("cached_tokens"))
    cost = usage.get("cost")
    if isinstance(cost, (int, float)) and not isinstance(cost, bool):
        noted.cost = float(cost)


class StreamFailure(NamedTuple):
    """An error event in a stream, and how it is to be delivered (`None`: not at all)."""

    error: WireError
    event: bytes | None


# What makes a run worth parsing. Each is one search; gateways write JSON with and without a space.
_ERROR: Final = b"error"
_FINISHES: Final = (b'"finish_reason":"', b'"finish_reason": "')
_USAGES: Final = (b'"usage":{', b'"usage": {')


class StreamReader:
    """Reads one event stream as it passes.

    `feed` and `flush` return the bytes to deliver now. After the first error event `failure` is
    set, and with `on_error="raise"` nothing more is returned.

    Args:
        record: Where ID, model, finish reason and usage are noted.
        on_error: `normalize` rewrites an error event so that every client sees it; `raise` holds
            it back; `observe` leaves it as it is.
        max_event_bytes: A larger event passes unread.
        chat: The call went to a chat completions endpoint. A stream of chat chunks is recognised
            anywhere; in any other stream an `error` is somebody else's field, and passes.
    """

    __slots__ = ("_chat", "_met", "_on_error", "_record", "_splitter", "done", "failure")

    def __init__(
        self, record: CallRecord, *, on_error: OnError, max_event_bytes: int, chat: bool = True
    ) -> None:
        self._record = record
        self._chat = chat
        self._on_error = on_error
        self._splitter = EventSplitter(max_event_bytes=max_event_bytes)
        self._met = False
        self.failure: StreamFailure | None = None
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk as it came; return what may be delivered: whole events, at once."""
        out = b""
        for data, opaque in self._splitter.feed(chunk):
            if opaque or not self._interesting(data):
                out = out + data if out else data
                continue
            for raw in split_events(data):
                out += self._inspect(raw)
                if self._stopped:
                    return out
        # `observe` holds nothing back, not even an event's first half.
        return chunk if self._on_error == "observe" else out

    def flush(self) -> bytes:
        """The end of the stream: what is left of an event without its blank line."""
        rest = self._splitter.flush()
        if not rest or self._stopped:
            return b""
        out = self._inspect(rest)
        return b"" if self._on_error == "observe" else out

    @property
    def _stopped(self) -> bool:
        return self._on_error == "raise" and self.failure is not None

    def _interesting(self, run: bytes) -> bool:
        if not self._met:
            return True  # the first events name the completion and its model
        if _ERROR in run:
            return True
        if b"[DONE]" in run:
            return True
        return any(needle in run for needle in _FINISHES + _USAGES)

    def _inspect(self, raw: bytes) -> bytes:
        """Look at one event; return what is delivered in its place."""
        event = parse_event(raw)
        if event.data is None:
            return raw
        if event.data.strip() == b"[DONE]":
            self.done = True
            return raw
        payload = load_json(event.data)
        self._met = True
        if _choices(as_mapping(payload) or {}):
            self._chat = True
        error = None
        if self._chat:
            error = read_chunk_error(payload)
            if error is None and event.name == "error":
                error = _error_of_named_event(payload, event.data)
        if error is None:
            read_completion(payload, self._record)
            return raw
        read_completion(payload, self._record)
        rewritten = _rewrite(raw, payload, error)
        delivered = {"normalize": rewritten, "raise": None, "observe": raw}[self._on_error]
        if self.failure is None:
            self.failure = StreamFailure(error, delivered)
        return delivered or b""


def _error_of_named_event(payload: object, data: bytes) -> WireError | None:
    """The error of an event that is called `error` and is not a chat chunk."""
    message = (as_mapping(payload) or {}).get("message")
    text = message if isinstance(message, str) else data.decode("utf-8", "replace")
    return WireError(None, text.strip() or "The stream ended with an error")


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
        "code": "server_error" if error.code is None else error.code,
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
