# SPDX-License-Identifier: Apache-2.0
"""Streamed bodies: errors are seen, everything else passes untouched and at once."""

from __future__ import annotations

from typing import Any

import pytest

from cline_transport import Settings, StreamSettings, error_info
from cline_transport.inspection import OnError
from cline_transport.simulator import Gate, Reply, Simulator

from .events import COMMENT, DONE, STOP, WORD, client, contents, events
from .rig import CHAT, Rig, unread

SHAPES = ["cline", "openrouter", "bare"]
NEWLINES = ["\n", "\r\n", "\r"]


def stream_settings(on_error: OnError) -> Settings:
    return Settings(stream=StreamSettings(on_error=on_error))


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("split", [None, 1, 7])
def test_a_good_stream_passes_byte_for_byte(
    rig: Rig, api: Simulator, url: str, newline: Any, split: int | None
) -> None:
    reply = Reply.stream(
        "Grüße, 世界 \u2028 and the word error.",
        newline=newline,
        split=split,
        comments=2,
        response_id="gen-1",
        request_id="req_1",
    )
    api.enqueue(reply, reply)
    ours = rig.client().post(url, json=CHAT)
    plain = rig.plain().post(url, json=CHAT)
    assert stable(ours.body) == stable(plain.body)
    assert [h for h in ours.raw_headers if h[0] != b"date"] == [
        h for h in plain.raw_headers if h[0] != b"date"
    ]
    record = ours.record
    assert (record.completed, record.finish_reason, record.response_id) == (True, "stop", "gen-1")
    assert record.usage.cost is not None
    assert record.time_to_first_chunk == 0.0


def stable(body: bytes) -> list[str]:
    """The stream without the time of day."""
    import re  # noqa: PLC0415 -- one helper's need

    return re.sub(r'"created":\s*\d+', "", body.decode()).splitlines()


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("split", [None, 1])
def test_an_error_after_content_is_rewritten_for_every_client(
    rig: Rig, api: Simulator, url: str, shape: Any, newline: Any, split: int | None
) -> None:
    api.enqueue(
        Reply.stream(
            "one two three",
            error="rate_limit",
            error_after=2,
            error_shape=shape,
            newline=newline,
            split=split,
        )
    )
    answer = rig.client().post(url, json=CHAT)
    text, [error] = contents(answer.body, newline)
    assert text == "one two"
    assert error["error"] == error["choices"][0]["error"]
    assert error["choices"][0]["finish_reason"] == "error"
    assert error["choices"][0]["delta"] == {}
    code = "server_error" if shape == "bare" else "rate_limit"
    assert error["error"]["code"] == code
    assert len(api.requests) == 1
    info = error_info(answer.response)
    assert info is not None
    assert (info.code, info.phase, info.status_code) == (code, "mid_stream", 200)
    assert info.request_id == api.requests[0].request_id
    assert info.model == "cline/ok"
    assert not answer.record.completed


@unread
@pytest.mark.parametrize("shape", SHAPES)
def test_raise_delivers_what_came_before_and_then_raises(
    rig: Rig, api: Simulator, url: str, shape: Any
) -> None:
    api.enqueue(Reply.stream("one two three", error="rate_limit", error_after=2, error_shape=shape))
    answer = rig.client(rig.transport(settings=stream_settings("raise"))).post(url, json=CHAT)
    assert contents(answer.body) == ("one two", [])
    assert isinstance(answer.exception, rig.ours.StreamError)
    assert isinstance(answer.exception, rig.exception("TransportError"))
    info = error_info(answer.exception)
    assert info is not None
    assert info.phase == "mid_stream"
    assert info.request_id == api.requests[0].request_id


@unread
def test_raise_raises_for_an_event_that_was_never_ended_too(
    rig: Rig, api: Simulator, url: str
) -> None:
    body = [
        b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n',
        b'data: {"choices":[{"finish_reason":"error","error":{"code":"rate_limit"}}]}',
    ]
    api.enqueue(Reply.raw(200, headers=[("content-type", "text/event-stream")], body=body))
    answer = rig.client(rig.transport(settings=stream_settings("raise"))).post(url, json=CHAT)
    assert contents(answer.body) == ("Hi", [])
    assert isinstance(answer.exception, rig.ours.StreamError)
    assert str(answer.exception) == "rate_limit: Rate limit hit during generation"


@pytest.mark.parametrize("shape", SHAPES)
def test_observe_leaves_the_bytes_and_knows(rig: Rig, api: Simulator, url: str, shape: Any) -> None:
    reply = Reply.stream(
        "one two", error="rate_limit", error_shape=shape, response_id="g", request_id="r"
    )
    api.enqueue(reply, reply)
    ours = rig.client(rig.transport(settings=stream_settings("observe"))).post(url, json=CHAT)
    plain = rig.plain().post(url, json=CHAT)
    assert stable(ours.body) == stable(plain.body)
    assert ours.record.error is not None


def test_each_event_leaves_before_the_next_one_comes(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(2)  # the role, which is held, and the first word
    api.enqueue(Reply.stream("a b c d", gate=gate, error="rate_limit"))
    client = rig.client()
    response = client.open("POST", url, json=CHAT)
    events = 0
    for chunk in client.chunks(response):
        events += chunk.count(b"\n\n")
        gate.release()  # only now does the server write the next event
    assert events == 1 + 4 + 1 + 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (
            "text/event-stream",
            b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n'
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
        ),
        (
            "text/event-stream",
            b'event: response.failed\ndata: {"type":"response.failed","response":{"error":'
            b'{"code":"server_error","message":"m"}}}\n\n',
        ),
        ("text/event-stream", b"data: tick error\n\ndata: tock\n\nretry: 5\n\n"),
        ("text/event-stream; charset=utf-8", b"\xff\xfe\x00error\n\n"),
        ("application/octet-stream", b"data: {}\n\nerror"),
        ("audio/mpeg", bytes(range(256)) * 100),
    ],
)
def test_a_stream_of_another_kind_passes_byte_for_byte(
    rig: Rig, api: Simulator, kind: str, body: bytes
) -> None:
    api.enqueue(Reply.raw(200, headers=[("content-type", kind)], body=[body[:50], body[50:]]))
    answer = rig.client().post(f"{api.base_url}/messages", json=CHAT)
    assert answer.body == body
    assert answer.record.completed
    assert answer.record.error is None


def test_a_stream_of_an_unknown_encoding_is_passed_on_as_it_is(
    rig: Rig, api: Simulator, url: str
) -> None:
    body = b"\x1f\x8b not really"
    headers = [("content-type", "text/event-stream"), ("content-encoding", "x-secret")]
    api.enqueue(Reply.raw(200, headers=headers, body=[body]))
    answer = rig.client().post(url, json=CHAT)
    assert answer.body == body
    assert answer.headers["content-encoding"] == "x-secret"


def test_a_connection_lost_in_mid_stream_raises_the_wires_own_exception(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.stream("one two three", cut_after=2, then="close"))
    answer = rig.client().post(url, json=CHAT)
    assert contents(answer.body)[0] == "one two"
    assert isinstance(answer.exception, rig.exception("RemoteProtocolError"))
    info = error_info(answer.exception)
    assert info is not None
    assert (info.code, info.request_id) == ("connection_closed", api.requests[0].request_id)
    assert (info.phase, info.status_code) == ("mid_stream", 200)
    assert len(api.requests) == 1


@unread
def test_a_closed_stream_frees_its_connection(rig: Rig, api: Simulator, url: str) -> None:
    inner = rig.inner()
    client = rig.client(rig.transport(inner))
    gate = Gate()
    gate.release(3)
    api.enqueue(Reply.stream("a b c d e f", gate=gate))
    response = client.open("POST", url, json=CHAT)
    chunks = client.chunks(response)
    next(chunks)
    client.close(response)
    assert inner._pool.connections == []
    record = response.extensions["cline_transport"]
    assert not record.completed
    assert record.error is None
    del chunks


@unread
def test_a_stream_that_is_closed_at_done_is_complete(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate()
    gate.release(20)
    api.enqueue(Reply.stream("a", gate=gate))
    client = rig.client()
    response = client.open("POST", url, json=CHAT)
    body = b""
    for chunk in client.chunks(response):
        body += chunk
        if b"[DONE]" in body:
            break
    client.close(response)
    assert response.extensions["cline_transport"].completed


@unread
def test_iterating_again_goes_on_where_it_stopped(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(2)
    api.enqueue(Reply.stream("a b c", gate=gate))
    client = rig.client()
    response = client.open("POST", url, json=CHAT)
    chunks = client.chunks(response)
    first = next(chunks)
    gate.release(20)
    rest = b"".join(client.chunks(_Again(response)))
    text, errors = contents(first + rest)
    assert (text, errors) == ("a b c", [])
    assert len(api.requests) == 1
    assert response.extensions["cline_transport"].completed
    client.close(response)


class _Again:
    """What the SDK does after `[DONE]`: the response's stream, iterated anew."""

    def __init__(self, response: Any) -> None:
        self._stream = response.stream

    def iter_raw(self) -> Any:
        return iter(self._stream)

    def aiter_raw(self) -> Any:
        return aiter(self._stream)


# --- iterators ---


def test_what_iterates_a_body_holds_it(sync_rig: Rig, api: Simulator, url: str) -> None:
    """Also where nobody else does, and other calls are made in the meantime."""
    words = [f"w{number} " for number in range(6)]
    api.enqueue(Reply.stream("".join(words), chunks=words), *[Reply.completion("x")] * 20)
    transport = sync_rig.transport()
    client = sync_rig.client(transport)
    request = client.raw.build_request("POST", url, json=CHAT)
    chunks: list[bytes] = []
    for chunk in transport.handle_request(request).stream:
        chunks.append(chunk)
        client.post(url, json=CHAT)
    assert contents(b"".join(chunks)) == ("".join(words), [])
    assert chunks[-1].endswith(b"data: [DONE]\n\n")


@unread
def test_an_iteration_after_an_error_raises_it_again(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stream("one two", error="server_error", error_after=1))
    client = rig.client(rig.transport(settings=stream_settings("raise")))
    response = client.open("POST", url, json=CHAT)
    chunks = client.chunks(_Again(response))
    for _ in range(2):
        with pytest.raises(rig.ours.StreamError, match="server_error"):
            list(chunks)
        chunks = client.chunks(_Again(response))
    client.close(response)


# --- connections ---


@unread  # httpx 0.28 leaves the generator that it puts around ours
def test_a_stream_left_at_done_leaves_its_connection_to_the_next_call(
    rig: Rig, api: Simulator, url: str
) -> None:
    subject = client(rig)
    api.enqueue(*[Reply.stream("a b")] * 20)
    for _ in range(20):
        response = subject.open("POST", url, json=CHAT)
        body = b""
        chunks = subject.chunks(response)
        while b"[DONE]" not in body:
            body += next(chunks)
        subject.close(response)
        chunks.close()
    assert api.connections_accepted == 1


@unread
def test_a_server_that_goes_on_after_done_is_not_waited_for(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(events(WORD, STOP, DONE, then="stall"), Reply.completion("next"))
    subject = client(rig)
    response = subject.open("POST", url, json=CHAT)
    chunks = subject.chunks(response)
    body = b""
    while b"[DONE]" not in body:
        body += next(chunks)
    subject.close(response)
    chunks.close()
    assert response.extensions["cline_transport"].completed
    assert subject.post(url, json=CHAT).status == 200


@unread
def test_an_asynchronous_stream_that_is_dropped_unread_is_ended_by_the_next_call(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    import gc  # noqa: PLC0415 -- this test's subject

    subject = async_rig.client(async_rig.transport(traced=True))
    api.enqueue(Reply.stream("a b c", gate=Gate(2)), Reply.completion("x"))
    response = subject.open("POST", url, json=CHAT)
    del response
    gc.collect()  # it may run where a lock is held: nothing is done in it
    assert async_rig.finished()[0] == []
    subject.post(url, json=CHAT)
    assert len(async_rig.finished()[0]) == 2


@unread
def test_what_comes_after_done_is_read_for_a_moment_only(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(events(WORD, STOP, DONE, *[COMMENT] * 100))
    subject = client(rig)
    response = subject.open("POST", url, json=CHAT)
    chunks = subject.chunks(response)
    body = b""
    while b"[DONE]" not in body:
        body += next(chunks)
    subject.close(response)
    chunks.close()
    assert response.extensions["cline_transport"].completed
