# SPDX-License-Identifier: Apache-2.0
"""Attempts and waits, as the documentation's "Retry strategies" says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import pytest

from cline_transport import RetryPolicy, RetryRule, Settings
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, unread

TABLE: list[tuple[int, int, list[float]]] = [
    (400, 1, []),
    (401, 1, []),
    (402, 1, []),
    (403, 1, []),
    (404, 1, []),
    (408, 4, [1, 2, 4]),
    (409, 1, []),
    (429, 4, [1, 2, 4]),
    (500, 2, [1]),
    (502, 4, [1, 2, 4]),
    (503, 4, [1, 2, 4]),
    (504, 4, [1, 2, 4]),
    (520, 4, [1, 2, 4]),
    (529, 4, [1, 2, 4]),
]


@pytest.mark.parametrize(("status", "attempts", "waits"), TABLE)
def test_each_status_takes_its_number_of_attempts(
    rig: Rig, api: Simulator, url: str, status: int, attempts: int, waits: list[float]
) -> None:
    api.enqueue(*[Reply.error(status, code=status)] * 5)
    answer = rig.client().post(url, json=CHAT)
    assert answer.status == status
    assert len(api.requests) == attempts
    assert rig.time.waits == waits
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"] == api.requests[-1].request_id


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_recovers_is_delivered_as_if_nothing_had_happened(
    rig: Rig, api: Simulator, url: str, status: int
) -> None:
    api.enqueue(Reply.error(status), Reply.completion("fine"))
    answer = rig.client().post(url, json=CHAT)
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "fine"
    assert "x-should-retry" not in answer.headers
    assert [request.json() for request in api.requests] == [CHAT, CHAT]
    assert len({request.body for request in api.requests}) == 1


def test_the_record_tells_the_story(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(429, retry_after=2), Reply.close(), Reply.completion("fine"))
    record = rig.client().post(url, json=CHAT).record
    assert [(a.number, a.wait, a.status_code) for a in record.attempts] == [
        (1, 0.0, 429),
        (2, 2.0, None),
        (3, 2.0, 200),
    ]
    assert [a.error and a.error.code for a in record.attempts] == [429, "connection_closed", None]
    assert [a.request_id for a in record.attempts] == [r.request_id for r in api.requests]
    assert [a.started for a in record.attempts] == [0.0, 2.0, 4.0]
    assert (record.retries, record.completed, record.error) == (2, True, None)
    assert record.model == "cline/ok"
    assert record.request_id == api.requests[-1].request_id
    assert record.usage.cost is not None


def test_a_code_that_no_retry_mends_ends_the_call_under_any_status(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.error(429, code="insufficient_quota", message="Out of quota"))
    assert rig.client().post(url, json=CHAT).status == 429
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"retry_after": 7},
        {"retry_after_ms": 7000},
        {"retry_after": "Tue, 14 Nov 2023 22:13:27 GMT"},
        {"retry_after_ms": 7000, "retry_after": 1},
    ],
)
def test_retry_after_is_waited_for(
    rig: Rig, api: Simulator, url: str, options: dict[str, Any]
) -> None:
    api.enqueue(Reply.error(429, **options), Reply.completion("fine"))
    rig.time.random = 1.0
    assert rig.client().post(url, json=CHAT).status == 200
    assert rig.time.waits == [pytest.approx(7 * 1.25)]


def test_a_402_that_names_a_time_is_retried_then(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(402, retry_after=3), Reply.completion("fine"))
    assert rig.client().post(url, json=CHAT).status == 200
    assert rig.time.waits == [3.0]


def test_a_retry_after_beyond_the_cap_is_delivered_with_its_headers(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.error(429, retry_after=3600))
    answer = rig.client().post(url, json=CHAT)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3600")
    assert len(api.requests) == 1
    assert rig.time.waits == []


def test_the_servers_word_on_retrying_is_obeyed(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(
        Reply.error(400, headers=[("x-should-retry", "true")]),
        Reply.error(503, headers=[("x-should-retry", "false")]),
    )
    answer = rig.client().post(url, json=CHAT)
    assert answer.status == 503
    assert len(api.requests) == 2
    names = [name.lower() for name, _ in answer.raw_headers]
    assert names.count(b"x-should-retry") == 1


def test_disabled_retries_leave_the_layer_above_its_own(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503))
    transport = rig.transport(settings=Settings(retry=RetryPolicy(enabled=False)))
    answer = rig.client(transport).post(url, json=CHAT)
    assert "x-should-retry" not in answer.headers
    assert len(api.requests) == 1


def test_no_attempt_starts_past_the_deadline(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(*[Reply.error(503)] * 5)
    transport = rig.transport(settings=Settings(retry=RetryPolicy(deadline=5)))
    answer = rig.client(transport).post(url, json=CHAT)
    assert answer.status == 503
    assert rig.time.waits == [1.0, 2.0]
    assert answer.headers["x-should-retry"] == "false"


def test_timeouts_shrink_to_what_the_deadline_leaves(rig: Rig, api: Simulator, url: str) -> None:
    seen: list[dict[str, float]] = []
    inner = rig.inner()
    method = "handle_request" if rig.is_sync else "handle_async_request"
    send = getattr(inner, method)

    def look(request: Any) -> Any:
        seen.append(request.extensions["timeout"])
        return send(request)

    setattr(inner, method, look)
    api.enqueue(Reply.error(503), Reply.error(503), Reply.completion("fine"))
    transport = rig.transport(inner, settings=Settings(retry=RetryPolicy(deadline=6)))
    rig.client(transport).post(url, json=CHAT, timeout=rig.library.Timeout(None, connect=2))
    assert [timeout["read"] for timeout in seen] == [6.0, 5.0, 3.0]
    assert [timeout["connect"] for timeout in seen] == [2.0, 2.0, 2.0]


def test_an_outage_costs_about_one_attempt_per_call(rig: Rig, api: Simulator, url: str) -> None:
    client = rig.client()
    api.enqueue(*[Reply.error(503)] * 400)
    for _ in range(60):
        client.post(url, json=CHAT)
    assert 60 + 30 < len(api.requests) < 60 + 50
    before = len(api.requests)
    client.post(url, json=CHAT)
    assert len(api.requests) == before + 1


def test_the_rules_are_the_callers_to_change(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(*[Reply.error(409)] * 3)
    rules: dict[int | str, RetryRule] = {409: RetryRule(max_retries=2, initial=0.5)}
    transport = rig.transport(settings=Settings(retry=RetryPolicy(rules=rules)))
    rig.client(transport).post(url, json=CHAT)
    assert rig.time.waits == [0.5, 1.0]


# --- what can be sent twice ---


def generator() -> Iterator[bytes]:
    yield json.dumps(CHAT).encode()


async def async_generator() -> AsyncIterator[bytes]:
    yield json.dumps(CHAT).encode()


def test_a_generator_is_sent_once_and_its_original_error_comes_out(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.error(503), Reply.completion("never"))
    body = generator() if rig.is_sync else async_generator()
    answer = rig.client().post(url, content=body)
    assert answer.status == 503
    assert [request.body for request in api.requests] == [json.dumps(CHAT).encode()]
    # The layer above may be able to make the body again.
    assert "x-should-retry" not in answer.headers


def test_so_does_its_connection_error(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.close(), Reply.completion("never"))
    body = generator() if rig.is_sync else async_generator()
    answer = rig.client().post(url, content=body)
    assert isinstance(answer.exception, rig.exception("RemoteProtocolError"))
    assert len(api.requests) == 1


def test_a_multipart_upload_is_sent_once(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.completion("never"))
    answer = rig.client().post(url, files={"file": ("a.txt", BytesIO(b"content"))})
    assert answer.status == 503
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "body", [{"json": CHAT}, {"content": b"raw"}, {"content": "text"}, {"data": {"a": "1"}}, {}]
)
def test_what_is_held_in_memory_is_sent_again_whole(
    rig: Rig, api: Simulator, url: str, body: dict[str, Any]
) -> None:
    api.enqueue(Reply.error(503), Reply.close(), Reply.completion("fine"))
    assert rig.client().post(url, **body).status == 200
    bodies = [request.body for request in api.requests]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1


# --- connections ---


def test_a_connection_closed_before_a_response_is_retried(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.close(), Reply.reset(), Reply.completion("fine"))
    assert rig.client().post(url, json=CHAT).status == 200
    assert rig.time.waits == [1.0, 2.0]


def test_a_connection_that_is_refused_is_retried_until_it_is_not(
    rig: Rig, api: Simulator, url: str
) -> None:
    client = rig.client()
    refusing = api.refusing()
    refusing.__enter__()

    def listen_again() -> None:
        if len(rig.time.waits) == 2:
            refusing.__exit__(None, None, None)

    rig.time.on_wait = listen_again
    api.enqueue(Reply.completion("fine"))
    answer = client.post(url, json=CHAT)
    assert answer.status == 200
    assert [a.error and a.error.code for a in answer.record.attempts] == [
        "connect_error",
        "connect_error",
        None,
    ]


def test_the_original_exception_comes_out_in_the_end(rig: Rig, api: Simulator, url: str) -> None:
    client = rig.client()
    with api.refusing():
        answer = client.post(url, json=CHAT)
    assert isinstance(answer.exception, rig.exception("ConnectError"))
    assert rig.time.waits == [1.0, 2.0, 4.0]


def test_no_second_layer_where_the_sdk_is_retrying(rig: Rig, api: Simulator, url: str) -> None:
    client = rig.client()
    with api.refusing():
        client.post(url, json=CHAT, headers={"x-stainless-retry-count": "1"})
        assert rig.time.waits == []
        client.post(url, json=CHAT, headers={"x-stainless-retry-count": "0"})
    assert rig.time.waits == [1.0, 2.0, 4.0]


def test_a_read_timeout_is_not_retried(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stall(), Reply.completion("never"))
    answer = rig.client().post(url, json=CHAT, timeout=rig.library.Timeout(10, read=0.05))
    assert isinstance(answer.exception, rig.exception("ReadTimeout"))
    assert len(api.requests) == 1


@unread
def test_a_full_pool_is_not_retried(rig: Rig, api: Simulator, url: str) -> None:
    inner = rig.inner(limits=rig.library.Limits(max_connections=1))
    client = rig.client(rig.transport(inner))
    api.enqueue(Reply.stream("held", gate=Gate(2)))
    held = client.open("POST", url, json=CHAT)
    answer = client.post(url, json=CHAT, timeout=rig.library.Timeout(10, pool=0.05))
    assert isinstance(answer.exception, rig.exception("PoolTimeout"))
    assert rig.time.waits == []
    client.close(held)


def test_a_json_answer_that_breaks_off_is_a_closed_connection(
    rig: Rig, api: Simulator, url: str
) -> None:
    broken = Reply.raw(
        200,
        headers=[("content-type", "application/json")],
        body=[b'{"choices":'],
        then="close",
    )
    api.enqueue(broken, Reply.completion("fine"))
    answer = rig.client().post(url, json=CHAT)
    assert answer.json()["choices"][0]["message"]["content"] == "fine"
    assert rig.time.waits == [1.0]


def test_a_discarded_response_is_closed_before_the_wait(rig: Rig, api: Simulator, url: str) -> None:
    inner = rig.inner(limits=rig.library.Limits(max_connections=1))
    client = rig.client(rig.transport(inner))
    idle: list[bool] = []
    rig.time.on_wait = lambda: idle.append(
        all(c.is_idle() or c.is_closed() for c in inner._pool.connections)
    )
    api.enqueue(Reply.error(503), Reply.html(502), Reply.error(429), Reply.completion("fine"))
    assert client.post(url, json=CHAT).status == 200
    assert idle == [True, True, True]


@unread
def test_so_is_one_that_is_too_long_to_be_read(rig: Rig, api: Simulator, url: str) -> None:
    inner = rig.inner(limits=rig.library.Limits(max_connections=1))
    client = rig.client(rig.transport(inner))
    html = [("content-type", "text/html")]
    api.enqueue(
        Reply.raw(502, headers=html, body=[b"x" * 700_000] * 3),
        Reply.completion("fine"),
    )
    assert client.post(url, json=CHAT).status == 200
    assert all(c.is_idle() or c.is_closed() for c in inner._pool.connections)


def test_a_head_request_gets_its_retries_and_no_body(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(*[Reply.raw(503, headers=[("content-length", "9")], body=b"")] * 4)
    inner = rig.inner(limits=rig.library.Limits(max_connections=1))
    answer = rig.client(rig.transport(inner)).request("HEAD", url)
    assert (answer.status, answer.body) == (503, b"")
    assert answer.headers["content-length"] == "9"
    assert len(api.requests) == 4


@pytest.mark.parametrize("code", ["server_error", "rate_limit", "connection_closed"])
def test_a_code_is_ruled_on_by_its_name_though_the_prompt_repeats_it(
    rig: Rig, api: Simulator, url: str, code: str
) -> None:
    failed = Reply.close() if "conn" in code else Reply.stream("x", error=code, error_after=0)
    api.enqueue(failed, Reply.stream("fine"))
    chat = {"model": "cline/ok", "messages": [{"role": "user", "content": f"{code} of a tool"}]}
    answer = rig.client().post(url, params={"mode": code}, json=chat, headers={"cookie": code})
    assert answer.status == 200
    assert [str(a.error and a.error.code) for a in answer.record.attempts] == [code, "None"]


def test_so_is_one_that_is_never_retried(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(429, code="insufficient_quota"), Reply.stream("fine"))
    answer = rig.client().post(url, json=CHAT, headers={"cookie": "insufficient_quota"})
    assert answer.status == 429
    assert len(api.requests) == 1
