# SPDX-License-Identifier: Apache-2.0
"""What an answer says, what a stream says, where it says "error"."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport import inspection
from cline_transport.inspection import (
    OnError,
    StreamReader,
    read_completion,
)
from cline_transport.record import CallRecord
from cline_transport.wire import WireError

MAX = 8 * 1024 * 1024
FIRST = b'data: {"id":"gen-1","model":"m-2","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
CLINE = (
    b'data: {"choices":[{"finish_reason":"error",'
    b'"error":{"code":"rate_limit","message":"slow"}}]}\n\n'
)
OPENROUTER = (
    b'data: {"id":"gen-1","error":{"code":"server_error","message":"gone","metadata":{"p":"x"}},'
    b'"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}\n\n'
)
BARE = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def reader(
    on_error: OnError = "normalize", *, chat: bool = True, detect_truncation: bool = True
) -> StreamReader:
    return StreamReader(
        CallRecord(),
        on_error=on_error,
        max_event_bytes=MAX,
        chat=chat,
        detect_truncation=detect_truncation,
    )


def data(event: bytes) -> dict[str, Any]:
    [line] = [line for line in event.splitlines() if line.startswith(b"data: ")]
    payload: dict[str, Any] = json.loads(line[6:])
    return payload


def test_a_completion_is_noted_in_the_record() -> None:
    record = CallRecord()
    read_completion(
        {
            "id": "gen-1",
            "model": "m",
            "choices": [{"finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 12,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 3},
                "cost": 0.5,
            },
        },
        record,
    )
    assert (record.response_id, record.response_model, record.finish_reason) == (
        "gen-1",
        "m",
        "stop",
    )
    usage = record.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cost) == (
        12,
        4,
        3,
        0.5,
    )


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        {"id": 7, "model": None, "choices": "none", "usage": []},
        {"choices": [None, {"finish_reason": ""}, {"finish_reason": 3}]},
        {"usage": {"prompt_tokens": "12", "completion_tokens": True, "cost": "much"}},
        {"usage": {"prompt_tokens_details": None, "cost": True}},
    ],
)
def test_surprising_types_are_passed_over(odd: object) -> None:
    record = CallRecord()
    read_completion(odd, record)
    assert record == CallRecord()


# --- the stream ---


def test_a_good_stream_passes_and_is_noted() -> None:
    record = CallRecord()
    stream = StreamReader(record, on_error="normalize", max_event_bytes=MAX)
    last = (
        b'data: {"id":"gen-1","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}\n\n'
    )
    for chunk in (b": OPENROUTER PROCESSING\n\n", FIRST, last, DONE):
        assert stream.feed(chunk) == chunk
    assert stream.finish() == b""
    assert (record.response_id, record.response_model) == ("gen-1", "m-2")
    assert (record.finish_reason, record.usage.input_tokens) == ("stop", 3)
    assert stream.done
    assert stream.failure is None


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (CLINE, WireError("rate_limit", "slow", {})),
        (OPENROUTER, WireError("server_error", "gone", {"p": "x"})),
        (BARE, WireError(None, "The stream ended with an error", {})),
    ],
)
def test_an_error_event_is_rewritten_for_every_known_client(event: bytes, error: WireError) -> None:
    stream = reader()
    assert stream.feed(FIRST) == FIRST
    delivered = stream.feed(event + DONE)
    assert delivered.endswith(b"\n\n" + DONE)
    payload = data(delivered.removesuffix(DONE))
    details = payload["error"]
    assert details["message"] == error.message
    assert details["code"] == (error.code or "server_error")
    choice = payload["choices"][0]
    assert choice["error"] == details
    assert (choice["finish_reason"], choice["delta"], choice["index"]) == ("error", {}, 0)
    assert stream.failure is not None
    assert stream.failure.error == error
    assert stream.failure.event == delivered.removesuffix(DONE)


def test_what_is_in_that_shape_already_passes_byte_for_byte() -> None:
    once = reader().feed(CLINE)
    again = reader()
    assert again.feed(once) is once or again.feed(once) == once
    spaced = (
        b'data: {"error": {"code": 1, "message": "m"}, "choices": [{"delta": {}, "error": '
        b'{"code": 1, "message": "m"}, "finish_reason": "error"}]}\n\n'
    )
    assert reader().feed(spaced) == spaced


def test_its_other_fields_are_kept() -> None:
    payload = data(reader().feed(OPENROUTER))
    assert payload["id"] == "gen-1"
    assert payload["error"]["metadata"] == {"p": "x"}


def test_raise_holds_the_event_back_and_everything_after_it() -> None:
    stream = reader("raise")
    assert stream.feed(FIRST + CLINE + DONE) == FIRST
    assert stream.failure is not None
    assert stream.failure.event is None
    assert stream.finish() == b""


def test_observe_leaves_every_byte_where_it_was() -> None:
    stream = reader("observe")
    for chunk in (FIRST[:20], FIRST[20:], CLINE[:30], CLINE[30:], b"data: half"):
        assert stream.feed(chunk) == chunk
    assert stream.finish() == b""
    assert stream.failure is not None
    assert stream.failure.error.code == "rate_limit"


def test_an_error_in_two_halves_is_seen() -> None:
    stream = reader()
    assert stream.feed(FIRST + CLINE[:40]) == FIRST
    assert b'"delta":{}' in stream.feed(CLINE[40:])


def test_an_error_without_its_blank_line_is_delivered_as_a_whole_event() -> None:
    stream = reader()
    assert stream.feed(CLINE.rstrip()) == b""
    delivered = stream.finish()
    assert delivered.endswith(b"\n\n")
    assert data(delivered)["error"]["code"] == "rate_limit"


def test_only_the_first_failure_is_reported() -> None:
    stream = reader()
    stream.feed(CLINE)
    stream.feed(OPENROUTER)
    assert stream.failure is not None
    assert stream.failure.error.code == "rate_limit"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b"event: error\ndata: gateway lost\n\n", "gateway lost"),
        (b'event: error\ndata: {"message": "lost"}\n\n', "lost"),
        (b'event: error\ndata: {"a": 1}\n\n', '{"a": 1}'),
        (b"event: error\ndata: \n\n", "The stream ended with an error"),
    ],
)
def test_an_event_called_error_is_one(event: bytes, message: str) -> None:
    stream = reader()
    delivered = stream.feed(event)
    assert delivered.startswith(b"event: error\n")
    assert data(delivered)["error"] == {"code": "server_error", "message": message}


@pytest.mark.parametrize(
    "chunk",
    [
        b'data: {"choices":[{"delta":{"content":"an \\"error\\": {"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"error"},"finish_reason":null}],"error":null}\n\n',
        b"data: not json: error\n\n",
        b": error in a comment\n\n",
        b"event: ping\n\n",
        b'data: ["error"]\n\n',
        b"data: " + b"[" * 100_000 + b"error\n\n",
        b"data: \xff\xfeerror\n\n",
        b"\n\n",
    ],
)
def test_the_word_alone_is_no_error(chunk: bytes) -> None:
    stream = reader()
    assert stream.feed(FIRST) == FIRST
    assert stream.feed(chunk) == chunk
    assert stream.failure is None


def test_an_event_of_another_kind_of_stream_passes() -> None:
    stream = reader(chat=False)
    rpc = b'data: {"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no such method"}}\n\n'
    named = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
    assert stream.feed(rpc + named) == rpc + named
    assert stream.failure is None


def test_chat_chunks_are_recognised_on_any_endpoint() -> None:
    stream = reader(chat=False)
    assert stream.feed(CLINE) != CLINE
    assert stream.failure is not None


def test_an_event_above_the_bound_passes_unread() -> None:
    stream = StreamReader(CallRecord(), on_error="normalize", max_event_bytes=20)
    assert stream.feed(CLINE[:50]) == CLINE[:50]
    assert stream.feed(CLINE[50:] + FIRST) == CLINE[50:] + FIRST
    assert stream.failure is None


good_payloads = st.fixed_dictionaries(
    {"choices": st.just([{"index": 0, "delta": {"content": "x"}, "finish_reason": None}])},
    optional={"id": st.text(), "usage": st.none(), "error": st.none(), "x": st.text()},
)


@given(
    st.lists(good_payloads.map(lambda p: f"data: {json.dumps(p, ensure_ascii=False)}")),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["normalize", "raise", "observe"]),
    st.integers(1, 30),
)
def test_a_good_stream_comes_out_as_it_went_in(
    events: list[str], newline: str, on_error: OnError, size: int
) -> None:
    stream = "".join(event + newline * 2 for event in events).encode("utf-8", "surrogatepass")
    subject = reader(on_error, detect_truncation=False)
    out = b"".join(subject.feed(stream[i : i + size]) for i in range(0, len(stream), size))
    assert out + subject.finish() == stream
    assert subject.failure is None


@pytest.mark.parametrize("on_error", ["normalize", "raise", "observe"])
@pytest.mark.parametrize("cut", range(1, len(FIRST) - 3))
def test_a_chat_that_ends_in_its_first_event_is_truncated(cut: int, on_error: OnError) -> None:
    subject = reader(on_error)
    out = subject.feed(FIRST[:cut]) + subject.finish()
    assert subject.failure is not None
    assert subject.failure.error.code == "stream_truncated"
    assert not subject.failure.after_content
    assert out == (FIRST[:cut] if on_error == "observe" else subject.failure.event or b"")


def test_an_error_event_without_its_end_is_an_error() -> None:
    subject = reader()
    subject.feed(b"event: error\ndata: overloaded")
    subject.finish()
    assert subject.failure is not None
    assert subject.failure.error.message == "overloaded"


@given(st.lists(st.binary(max_size=60)), st.sampled_from(["normalize", "raise", "observe"]))
def test_any_bytes_at_all_raise_nothing(chunks: list[bytes], on_error: OnError) -> None:
    subject = reader(on_error)
    for chunk in chunks:
        subject.feed(chunk)
    subject.finish()


def test_an_event_that_cannot_be_rewritten_passes_as_it_is() -> None:
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    event = b'data: {"choices":[{"finish_reason":"error"}],"x":' + deep + b"}\n\n"
    stream = reader()
    for _ in range(3):
        assert stream.feed(event)
    stream.finish()


def test_an_inspection_that_fails_lets_the_event_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("cline_transport.inspection.read_chunk_error", broken)
    stream = reader()
    assert stream.feed(CLINE) == CLINE
    assert stream.finish() == b""
    assert stream.failure is None


def test_a_large_event_is_not_taken_for_one_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pattern that finds out what events have in common is for small ones: it tries again."""
    tried: list[int] = []

    def note(chunk: bytes) -> None:
        tried.append(len(chunk))

    monkeypatch.setattr(inspection, "_CONTENT_EVENT", note)
    stream = reader()
    large = b"data: {" + b'"content":"",' * 5_000 + b'"x":1}\ndata: \n\n'
    for chunk in (FIRST, large, FIRST, large):
        assert stream.feed(chunk) == chunk
        stream.passes(large)
        stream.passes(FIRST)
    assert set(tried) == {len(FIRST)}


@pytest.mark.parametrize("whole", [False, True])
def test_what_makes_a_stream_a_chat_is_seen_however_it_is_cut(*, whole: bool) -> None:
    """Elsewhere than at a chat's endpoint, where the first event is no chunk."""
    events = [
        b'data: {"type":"start"}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"an error of mine"}}]}\n\n',
        b'data: {"error":{"code":429,"message":"m"}}\n\n',
    ]
    stream = reader(chat=False)
    for chunk in [b"".join(events)] if whole else events:
        if not stream.passes(chunk):
            stream.feed(chunk)
    stream.finish()
    assert stream.failure is not None
    assert stream.failure.error.code == 429
