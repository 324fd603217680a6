# SPDX-License-Identifier: Apache-2.0
"""Limits over real sockets: who waits, for how long, and that nothing is held for ever."""

from __future__ import annotations

import gc
import json
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from cline_transport import RetryPolicy, _dropped, error_info
from cline_transport._dropped import settle
from cline_transport._limiter import LINES
from cline_transport._line import Waiter
from cline_transport.simulator import Gate, Reply, Simulator

from .limited import KEY, ONCE, limited, line, really_waiting
from .rig import CHAT, Rig, unread

# --- cooldown ---


def test_after_a_429_the_next_call_waits_for_its_end(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig)
    api.enqueue(Reply.error(429, retry_after=7), Reply.completion("good"))
    assert client.request("POST", url, json=CHAT).status == 429
    assert rig.time.held == []
    answer = client.request("POST", url, json=CHAT)
    assert answer.status == 200
    assert rig.time.held == [7]
    assert answer.record.limit_wait == 7
    assert answer.record.attempts[0].wait == 7
    assert len(api.requests) == 2


def test_the_call_that_was_refused_waits_once(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, retry=RetryPolicy(jitter=0))
    api.enqueue(Reply.error(429, retry_after=7), Reply.completion("good"))
    answer = client.request("POST", url, json=CHAT)
    assert answer.status == 200
    assert (rig.time.waits, rig.time.held) == ([7], [])


@pytest.mark.parametrize(
    "metadata",
    [
        {"retry_after_seconds": 7},
        {"headers": {"Retry-After": "7"}},
        {"headers": {"Retry-After": "7"}, "retry_after_seconds": 9.5},
        {"headers": {"Retry-After": "7", "other": 1}, "retry_after_seconds": 1e300},
    ],
)
def test_a_stream_says_in_its_error_how_long_to_wait(
    rig: Rig, api: Simulator, url: str, metadata: dict[str, Any]
) -> None:
    client = limited(rig)
    chunk = {
        "choices": [
            {
                "finish_reason": "error",
                "error": {"code": "rate_limit", "message": "slow down", "metadata": metadata},
            }
        ]
    }
    event = f"data: {json.dumps(chunk)}\n\n".encode()
    content = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    headers = {"content-type": "text/event-stream"}
    api.enqueue(
        Reply.raw(headers=headers, body=[event]),
        Reply.raw(headers=headers, body=[content, event]),
        Reply.completion("good"),
    )
    assert client.request("POST", url, json=CHAT).status == 429
    # After content it is in the stream, and holds the others all the same.
    assert client.request("POST", url, json=CHAT).record.error is not None
    assert client.request("POST", url, json=CHAT).status == 200
    assert rig.time.held[0] == rig.time.held[1] == 7


def test_all_transports_with_the_same_key_wait_and_no_others(
    rig: Rig, api: Simulator, url: str
) -> None:
    refused, same, other = limited(rig), limited(rig, max_concurrency=9), limited(rig)
    api.respond = lambda _: Reply.completion("good")
    same.request("POST", url, json=CHAT, headers=KEY)
    limited(rig, max_concurrency=8, cooldown=False).request("POST", url, json=CHAT, headers=KEY)
    limited(rig, max_concurrency=7).request("POST", url, json=CHAT)
    api.respond = lambda _: Reply.error(429, retry_after=7)
    refused.request("POST", url, json=CHAT, headers=KEY)
    api.respond = lambda _: Reply.completion("good")
    limited(rig, max_concurrency=9).request("POST", url, json=CHAT)
    limited(rig, max_concurrency=8, cooldown=False).request("POST", url, json=CHAT, headers=KEY)
    other.request("POST", url, json=CHAT, headers={"authorization": "Bearer another"})
    other.request("POST", url, json=CHAT, headers={**KEY, "x-api-key": "another"})
    other.request("POST", url.replace("127.0.0.1", "localhost"), json=CHAT, headers=KEY)
    assert rig.time.held == []
    same.request("POST", url, json=CHAT, headers=KEY)
    assert rig.time.held == [7]


def test_nothing_of_a_key_is_kept(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(429, retry_after=7))
    limited(rig).request("POST", url, json=CHAT, headers={"authorization": "Bearer sk-secret-123"})
    assert "secret" not in repr(vars(LINES)) + repr(vars(line()))


@pytest.mark.parametrize(
    ("reply", "settings"),
    [
        (Reply.error(429), {}),
        (Reply.error(503, retry_after=7), {}),
        (Reply.error(429, retry_after=61), {}),
        (Reply.error(429, retry_after=7), {"cooldown": False}),
    ],
    ids=["no wait is known", "no 429", "longer than is waited for", "switched off"],
)
def test_nobody_is_held_without_need(
    rig: Rig, api: Simulator, url: str, reply: Reply, settings: dict[str, Any]
) -> None:
    client = limited(rig, **settings)
    api.enqueue(reply, Reply.completion("good"))
    client.request("POST", url, json=CHAT)
    answer = client.request("POST", url, json=CHAT)
    assert rig.time.held == []
    assert answer.record.limit_wait == 0


def test_what_is_over_is_forgotten(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig)
    api.enqueue(Reply.error(429, retry_after=4), Reply.completion("good"))
    client.request("POST", url, json=CHAT)
    rig.time.now += 5
    client.request("POST", url, json=CHAT)
    assert rig.time.held == []
    assert not LINES


# --- a deadline ---


def test_a_wait_beyond_the_deadline_ends_the_call_at_once(
    rig: Rig, api: Simulator, url: str
) -> None:
    client = limited(rig, retry=RetryPolicy(deadline=5, rules={}), traced=True)
    api.enqueue(Reply.error(429, retry_after=7))
    client.request("POST", url, json=CHAT)
    answer = client.request("POST", url, json=CHAT)
    assert answer.status == 429
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "error": {
            "code": "limit_timeout",
            "message": "Not sent before the call's deadline: the API asked to wait",
            "metadata": {"limit": "cooldown"},
        }
    }
    assert (rig.time.held, len(api.requests)) == ([], 1)
    assert answer.record.attempts == []
    info = error_info(answer.response)
    assert info is not None
    assert (info.code, info.status_code, info.phase) == ("limit_timeout", 429, "connection")
    assert info.advice == "Raise the deadline or the limits, or make fewer calls at once"
    assert "no response (nothing was sent)" in info.report()
    [_, call], https = rig.finished()
    assert len(https) == 1
    assert call.attributes is not None
    assert call.attributes["error.type"] == "limit_timeout"


def test_a_retry_that_is_held_past_it_says_what_failed(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, retry=RetryPolicy(deadline=5, jitter=0), requests_per_second=0.2, burst=1)
    api.enqueue(Reply.error(503))
    answer = client.request("POST", url, json=CHAT)
    assert answer.status == 429
    assert answer.json()["error"]["message"] == (
        "Not sent before the call's deadline: the rate limit that is set is reached; "
        "the last attempt failed with 503"
    )
    assert len(answer.record.attempts) == 1


@unread
def test_a_permit_is_waited_for_until_the_deadline(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, retry=RetryPolicy(deadline=5), max_concurrency=1)
    api.enqueue(Reply.stream("a b"))
    first = client.open("POST", url, json=CHAT)
    answer = client.request("POST", url, json=CHAT)
    client.close(first)
    assert sum(rig.time.held) == 5
    assert "as many calls as may be are under way" in answer.json()["error"]["message"]
    assert line().held == 0


# --- pace ---


def test_calls_go_at_the_rate_that_is_set(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, requests_per_minute=30, burst=1)
    api.respond = lambda _: Reply.completion("good")
    waited = [client.request("POST", url, json=CHAT).record.limit_wait for _ in range(4)]
    assert waited == [0, 2, 2, 2]


def test_retries_count_too(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, retry=RetryPolicy(jitter=0), requests_per_minute=30, burst=1)
    api.enqueue(Reply.error(503), Reply.completion("good"))
    answer = client.request("POST", url, json=CHAT)
    assert [a.wait for a in answer.record.attempts] == [0, 2]
    assert (rig.time.waits, rig.time.held, answer.record.limit_wait) == ([1], [1], 1)


# --- concurrency ---


def test_a_permit_is_held_until_the_body_ends(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, max_concurrency=1)
    waits = really_waiting(rig, client)
    gate = Gate(3)
    api.enqueue(Reply.stream("a b", gate=gate), Reply.completion("good"))
    first = client.open("POST", url, json=CHAT)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(client.request, "POST", url, json=CHAT)
        assert waits.wait(10)
        assert len(api.requests) == 1
        gate.release(9)
        list(client.chunks(first))
        assert second.result(10).status == 200
    client.close(first)
    assert line().held == 0


ENDINGS = {
    "read": Reply.stream("a b"),
    "JSON": Reply.completion("a"),
    "an error": Reply.error(400),
    "a page": Reply.html(502),
    "an error in a 200": Reply.json_error_in_200(),
    "an error before content": Reply.stream(error="server_error", error_after=0),
    "an error after content": Reply.stream("a b", error="server_error", error_after=1),
    "truncated": Reply.stream("a b", cut_after=1),
    "cut": Reply.stream("a b", cut_after=1, then="close"),
    "closed": Reply.close(),
    "reset": Reply.reset(),
    "no body": Reply.raw(204),
}


@pytest.mark.parametrize("reply", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("retry", [ONCE, RetryPolicy(jitter=0)], ids=["one attempt", "retried"])
def test_no_ending_keeps_a_permit(
    rig: Rig, api: Simulator, url: str, reply: Reply, retry: RetryPolicy
) -> None:
    client = limited(rig, retry=retry, max_concurrency=1)
    api.respond = lambda _: reply
    client.request("POST", url, json=CHAT)
    assert line().held == 0
    api.respond = lambda _: Reply.completion("good")
    assert client.request("POST", url, json=CHAT).status == 200
    assert rig.time.held == []


@unread
def test_a_body_that_is_closed_early_gives_it_back(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, max_concurrency=1)
    api.enqueue(Reply.stream("a b", gate=Gate(2)))
    client.close(client.open("POST", url, json=CHAT))
    assert line().held == 0


@unread
def test_a_body_that_is_dropped_gives_it_back(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, max_concurrency=1)
    api.enqueue(Reply.stream("a b", gate=Gate(2)), Reply.completion("good"))
    response = client.open("POST", url, json=CHAT)
    assert line().held == 1
    del response
    gc.collect()
    assert client.request("POST", url, json=CHAT).status == 200
    assert rig.time.held == []


@unread
def test_who_waits_looks_for_bodies_that_were_dropped(rig: Rig, api: Simulator, url: str) -> None:
    settle()
    client = limited(rig, max_concurrency=1)
    api.enqueue(Reply.stream("a b", gate=Gate(2)), Reply.completion("good"))
    kept = [client.open("POST", url, json=CHAT)]

    def drop_it(wake: object, seconds: float) -> None:
        rig.time.held.append(seconds)
        kept.clear()
        gc.collect()

    async def drop_it_async(wake: object, seconds: float) -> None:
        drop_it(wake, seconds)

    client.raw._transport._loop.pause = drop_it if rig.is_sync else drop_it_async
    assert client.request("POST", url, json=CHAT).status == 200
    assert rig.time.held == [1.0]


@unread
def test_who_waits_collects_what_was_dropped_in_a_cycle(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dropped._Search, "due", 0.0)
    client = limited(rig, max_concurrency=1)
    held = Reply.stream("a b", gate=Gate(2))
    api.enqueue(held, Reply.completion("good"), replace(held, gate=Gate(2)))
    gc.disable()  # as good as a program that only waits
    try:
        response = client.open("POST", url, json=CHAT)
        response.itself = response
        del response
        assert client.request("POST", url, json=CHAT).status == 200
        assert rig.time.held == [1.0]
        collected = gc.get_stats()[2]["collections"]
        kept = client.open("POST", url, json=CHAT)
        line().join(late := Waiter(rig.time.now, math.inf))
        assert line().pause(late) == 1.0
        line().proceed(late)
        assert gc.get_stats()[2]["collections"] == collected, "not each time"
        line().finish(late, "neither", 0.0)
        client.close(kept)
    finally:
        gc.enable()


@unread
def test_adaptive_begins_with_a_few_permits_and_learns(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, max_concurrency="adaptive")
    api.enqueue(*[Reply.stream("a b")] * 4)
    bodies = [client.open("POST", url, json=CHAT) for _ in range(4)]
    waits = really_waiting(rig, client)
    api.enqueue(Reply.error(429))
    with ThreadPoolExecutor(1) as pool:
        fifth = pool.submit(client.request, "POST", url, json=CHAT)
        assert waits.wait(10)
        list(client.chunks(bodies[0]))
        assert fifth.result(10).status == 429
    assert line().limit < 5
    for body in bodies:
        client.close(body)
    assert line().held == 0


# --- what is told ---


def metrics(rig: Rig) -> dict[str, list[Any]]:
    data = rig.reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_the_wait_and_its_reason_are_told(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = limited(rig, traced=True, max_concurrency=2)
    api.enqueue(Reply.error(429, retry_after=7), Reply.completion("good"))
    with caplog.at_level(logging.INFO, "cline_transport"):
        client.request("POST", url, json=CHAT)
    assert "cooldown of 7.00 s for 127.0.0.1: calls with the same key wait" in caplog.messages
    client.request("POST", url, json=CHAT)
    [first, second], _ = rig.finished()
    assert first.attributes is not None
    assert second.attributes is not None
    assert "cline.limit.wait" not in first.attributes
    assert second.attributes["cline.limit.wait"] == 7
    assert second.attributes["cline.limit.reason"] == "cooldown"
    found = metrics(rig)
    [wait] = found["cline.client.limit.wait"]
    server = {"server.address": "127.0.0.1", "server.port": api.port}
    assert (wait.sum, wait.count) == (7, 1)
    assert dict(wait.attributes) == {**server, "cline.limit.reason": "cooldown"}
    [permits] = found["cline.client.limit.permits"]
    assert (permits.value, dict(permits.attributes)) == (0, server)
    [limit] = found["cline.client.limit.concurrency"]
    assert (limit.value, dict(limit.attributes)) == (2, server)
    assert "cline.client.limit.fallbacks" not in found


@unread
def test_permits_in_use_are_told(rig: Rig, api: Simulator, url: str) -> None:
    client = limited(rig, traced=True, max_concurrency=5)
    api.respond = lambda _: Reply.stream("a b")
    bodies = [client.open("POST", url, json=CHAT) for _ in range(3)]
    assert [point.value for point in metrics(rig)["cline.client.limit.permits"]] == [3]
    for body in bodies:
        client.close(body)
    assert [point.value for point in metrics(rig)["cline.client.limit.permits"]] == [0]


def test_without_limits_nothing_of_them_is_told(rig: Rig, api: Simulator, url: str) -> None:
    client = rig.client(rig.transport(traced=True))
    api.enqueue(Reply.completion("good"))
    client.request("POST", url, json=CHAT)
    assert not any("limit" in name for name in metrics(rig))
    assert not LINES
