# SPDX-License-Identifier: Apache-2.0
"""Streams that fail before their first word are retried unseen, or become the error they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cline_transport import RetryPolicy, Settings, StreamSettings, error_info
from cline_transport.simulator import Gate, Reply, Simulator

from .events import COMMENT, DONE, ROLE, STOP, WORD, client, contents, error, events
from .rig import CHAT, Rig, unread


@pytest.mark.parametrize(
    "failure",
    [
        events(ROLE, error("rate_limit")),
        events(ROLE, error("server_error")),
        events(ROLE, error(503)),
        events(ROLE, error("429")),
        events(b'data: {"choices":[{"finish_reason":"error"}]}\n\n'),
        events(ROLE),
        events(),
        events(COMMENT, COMMENT),
        events(COMMENT, ROLE, b'data: {"choices":[{"delta":{"cont'),
        events(ROLE, b'data: {"choices":[{"delta":{"content":""},"finish_reason":""}]}\n\n'),
        events(ROLE, then="close"),
        events(COMMENT, then="reset"),
    ],
)
def test_a_transient_failure_before_content_is_never_seen(
    rig: Rig, api: Simulator, url: str, failure: Reply
) -> None:
    api.enqueue(failure, events(ROLE, WORD, STOP, DONE))
    answer = client(rig).post(url, json={**CHAT, "stream": True})
    assert answer.body == ROLE + WORD + STOP + DONE
    assert rig.time.waits == [1.0]
    record = answer.record
    assert (record.completed, record.retries, record.error) == (True, 1, None)
    assert record.attempts[0].error is not None
    assert record.attempts[0].status_code == 200
    [call], attempts = rig.finished()
    assert len(attempts) == 2
    assert call.status.is_unset
    assert dict(attempts[0].attributes or {})["error.type"] not in (None, "200")


@pytest.mark.parametrize(
    ("failure", "status", "code", "attempts"),
    [
        (events(ROLE, error("rate_limit")), 429, "rate_limit", 4),
        (events(ROLE, error("server_error")), 502, "server_error", 4),
        (events(ROLE), 502, "stream_truncated", 4),
        (events(), 502, "stream_truncated", 4),
        (events(error(500)), 500, 500, 2),
        (events(ROLE, error("context_length_exceeded")), 400, "context_length_exceeded", 1),
        (events(error("content_filter")), 400, "content_filter", 1),
        (events(error("insufficient_quota")), 429, "insufficient_quota", 1),
        (events(error("odd_code")), 502, "odd_code", 1),
        (events(error(402)), 402, 402, 1),
    ],
)
@pytest.mark.parametrize("on_error", ["normalize", "raise"])
def test_a_failure_that_stays_becomes_the_http_error_that_it_is(
    rig: Rig,
    api: Simulator,
    url: str,
    failure: Reply,
    status: int,
    code: object,
    attempts: int,
    on_error: str,
) -> None:
    api.enqueue(*[failure] * 5)
    answer = client(rig, on_error=on_error).post(url, json=CHAT)
    assert (answer.status, len(api.requests)) == (status, attempts)
    assert answer.json()["error"]["code"] == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"] == api.requests[-1].request_id
    info = error_info(answer.response)
    assert info is not None
    assert (info.code, info.status_code, info.phase) == (code, status, "mid_stream")
    assert (info.attempts, info.request_id) == (attempts, api.requests[-1].request_id)
    [call], spans = rig.finished()
    assert len(spans) == attempts
    assert dict(call.attributes or {})["cline.error.phase"] == "mid_stream"


def test_a_retry_may_meet_another_failure(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(events(ROLE), Reply.error(503), Reply.close(), events(WORD, STOP))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body == WORD + STOP
    assert [a.error and a.error.code for a in answer.record.attempts] == [
        "stream_truncated",
        503,
        "connection_closed",
        None,
    ]
    assert answer.record.attempts[0].request_id == api.requests[0].request_id


def test_a_retry_after_of_the_stream_is_waited_for(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(events(error("rate_limit"), retry_after="9"), events(WORD, STOP))
    client(rig).post(url, json=CHAT)
    assert rig.time.waits == [9.0]


def test_a_read_timeout_before_content_is_not_retried(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(events(ROLE, then="stall"))
    timeout = rig.library.Timeout(10, read=0.05)
    answer = client(rig).post(url, json=CHAT, timeout=timeout)
    assert isinstance(answer.exception, rig.exception("ReadTimeout"))
    info = error_info(answer.exception)
    assert info is not None
    assert (info.code, info.phase) == ("read_timeout", "mid_stream")
    assert info.request_id == api.requests[0].request_id


# --- after content ---


@pytest.mark.parametrize(
    ("tail", "delivered"),
    [
        (b"", b""),
        (b'data: {"choices":[{"delta":{"cont', b""),
        (
            b'data: {"choices":[{"delta":{"content":"!"}}]}',
            b'data: {"choices":[{"delta":{"content":"!"}}]}\n\n',
        ),
    ],
)
def test_a_truncated_stream_gets_an_error_event(
    rig: Rig, api: Simulator, url: str, tail: bytes, delivered: bytes
) -> None:
    api.enqueue(events(ROLE, WORD, tail) if tail else events(ROLE, WORD))
    answer = client(rig).post(url, json=CHAT)
    assert answer.status == 200
    assert answer.body.startswith(ROLE + WORD + delivered)
    [chunk] = contents(answer.body)[1]
    assert chunk["error"]["code"] == chunk["choices"][0]["error"]["code"] == "stream_truncated"
    assert (chunk["choices"][0]["finish_reason"], chunk["choices"][0]["delta"]) == ("error", {})
    assert answer.body.endswith(b"\n\n")
    assert len(api.requests) == 1
    info = error_info(answer.response)
    assert info is not None
    assert (info.code, info.phase, info.retryable) == ("stream_truncated", "mid_stream", True)
    assert answer.record.attempts[0].error == info


def test_under_raise_it_raises(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(events(ROLE, WORD))
    answer = client(rig, on_error="raise").post(url, json=CHAT)
    assert answer.body == ROLE + WORD
    assert isinstance(answer.exception, rig.ours.StreamError)


@unread
def test_content_and_error_in_one_chunk_are_after_content(
    rig: Rig, api: Simulator, url: str
) -> None:
    for on_error in ("normalize", "raise"):
        api.enqueue(events(ROLE + WORD + error("server_error") + DONE))
        answer = client(rig, on_error=on_error).post(url, json=CHAT)
        assert answer.status == 200
        assert contents(answer.body)[0] == "Hi"
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    "complete",
    [
        [ROLE, WORD, STOP],
        [WORD, STOP.rstrip()],
        [ROLE, WORD, DONE],
        [DONE],
        [b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'],
    ],
)
def test_a_finish_reason_or_done_is_an_end(
    rig: Rig, api: Simulator, url: str, complete: list[bytes]
) -> None:
    api.enqueue(events(*complete))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body == b"".join(complete)
    assert answer.record.completed


def test_truncation_is_a_setting(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(events(ROLE, WORD))
    answer = client(rig, detect_truncation=False).post(url, json=CHAT)
    assert (answer.body, answer.record.error) == (ROLE + WORD, None)


@pytest.mark.parametrize(
    "body", [[b"data: tick\n\n"], [b'event: ping\ndata: {"type":"ping"}\n\n'], [b": hello\n\n"], []]
)
def test_a_stream_that_is_no_chat_has_no_end_to_miss(
    rig: Rig, api: Simulator, body: list[bytes]
) -> None:
    api.enqueue(events(*body))
    answer = client(rig).post(f"{api.base_url}/events", json={})
    assert answer.body == b"".join(body)
    assert answer.record.error is None


CONTENTS: list[dict[str, Any]] = [
    {"content": "x"},
    {"reasoning": "x"},
    {"reasoning_details": [{}]},
    {"refusal": "no"},
    {"tool_calls": [{}]},
    {"function_call": {"name": "f"}},
    {"audio": {"id": "a"}},
]


@pytest.mark.parametrize("content", CONTENTS)
def test_content_is_more_than_text(
    rig: Rig, api: Simulator, url: str, content: dict[str, Any]
) -> None:
    chunk = b"data: " + json.dumps({"choices": [{"delta": content}]}).encode() + b"\n\n"
    api.enqueue(events(chunk, error("server_error")))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body.startswith(chunk)
    assert len(api.requests) == 1


# --- the other modes ---


def test_buffered_retries_after_content_too(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(
        events(ROLE, WORD, error("server_error")),
        events(ROLE, WORD, then="close"),
        events(ROLE, WORD),
        events(ROLE, WORD, STOP, DONE),
    )
    answer = client(rig, retry="buffered").post(url, json=CHAT)
    assert answer.body == ROLE + WORD + STOP + DONE
    assert answer.record.retries == 3
    assert answer.record.completed


def test_buffered_ends_as_an_http_error(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(events(ROLE, WORD, error("content_filter")))
    answer = client(rig, retry="buffered").post(url, json=CHAT)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "content_filter")


def test_never_holds_nothing(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(1)
    api.enqueue(events(ROLE, error("server_error"), gate=gate))
    subject = client(rig, retry="never")
    response = subject.open("POST", url, json=CHAT)
    chunks = subject.chunks(response)
    assert next(chunks) == ROLE
    gate.release()
    assert b'"delta":{}' in b"".join(chunks)
    assert len(api.requests) == 1
    subject.close(response)


def test_observe_holds_nothing_either(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(1)
    api.enqueue(events(ROLE, gate=gate))
    subject = client(rig, on_error="observe")
    response = subject.open("POST", url, json=CHAT)
    chunks = subject.chunks(response)
    assert next(chunks) == ROLE
    gate.release()
    assert list(chunks) == []
    assert response.extensions["cline_transport"].error.code == "stream_truncated"
    subject.close(response)


def test_without_retries_a_failure_before_content_is_still_an_http_error(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(events(ROLE, error("rate_limit")))
    transport = rig.transport(settings=Settings(retry=RetryPolicy(enabled=False)))
    answer = rig.client(transport).post(url, json=CHAT)
    assert answer.status == 429
    assert "x-should-retry" not in answer.headers


@unread
def test_what_is_held_is_bounded_in_bytes(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(3)
    api.enqueue(events(COMMENT, COMMENT, COMMENT, error("server_error"), gate=gate))
    subject = client(rig, hold_bytes=60)
    response = subject.open("POST", url, json=CHAT)
    assert response.status_code == 200
    gate.release()
    body = b"".join(subject.chunks(response))
    assert body.startswith(COMMENT * 3)
    assert b'"delta":{}' in body
    assert len(api.requests) == 1
    subject.close(response)


@unread
def test_and_in_seconds(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(1)
    api.enqueue(events(COMMENT, error("server_error"), gate=gate))
    transport = rig.transport(settings=Settings(stream=StreamSettings(hold_seconds=5)))
    clock = iter(range(1000))
    transport._loop.clock = type(rig.time.clock)(monotonic=lambda: 10.0 * next(clock))
    subject = rig.client(transport)
    response = subject.open("POST", url, json=CHAT)
    assert response.status_code == 200
    gate.release()
    assert b"".join(subject.chunks(response)).startswith(COMMENT)
    subject.close(response)
