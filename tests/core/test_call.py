# SPDX-License-Identifier: Apache-2.0
"""One call as a state machine: told what happened, and at what time, it says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from cline_transport import LimitSettings, RetryPolicy, Settings, StreamSettings
from cline_transport._decisions import Body, Deliver, Raise, Try
from cline_transport._protocols import RequestHead, ResponseHead
from cline_transport.call import Call
from cline_transport.inspection import StreamFailure
from cline_transport.retry import RetryThrottle
from cline_transport.wire import WireError

CHAT = b'{"model": "a/b", "stream": true}'
ERROR = {"error": {"code": 503, "message": "Service temporarily down"}}


def request(body: bytes | None = CHAT, headers: Mapping[str, str] | None = None) -> RequestHead:
    path = "/api/v1/chat/completions"
    return RequestHead("POST", "https", "api.cline.bot", None, path, headers or {}, body)


def response(status: int, **headers: str) -> ResponseHead:
    kind = {"content-type": "application/json"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ResponseHead(status, kind | named)


def body(value: object = ERROR) -> Body:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Body(raw, raw, complete=True)


class Told:
    """A call whose time passes as a test says."""

    def __init__(
        self,
        settings: Settings | None = None,
        head: RequestHead | None = None,
        throttle: RetryThrottle | None = None,
    ) -> None:
        self.now = 0.0
        made = throttle or RetryThrottle()
        self.call = Call(settings or Settings(), head or request(), throttle=made, now=0.0)

    def gets(self, head: ResponseHead, read: Body | None = None) -> Try | Deliver:
        self.call.begin(self.now)
        self.now += 1
        return self.call.on_response(head, read, now=self.now, epoch=0.0, random=0.0)

    def streams(self, failure: StreamFailure | None) -> Try | Deliver:
        self.call.begin(self.now)
        self.now += 1
        head = response(200, x_request_id="req_1")
        return self.call.on_stream(head, failure, now=self.now, epoch=0.0, random=0.0)

    def raises(self, exc: Exception, head: ResponseHead | None = None) -> Try | Raise:
        self.call.begin(self.now)
        self.now += 1
        return self.call.on_exception(head, exc, now=self.now, random=0.0)


# --- responses ---


def test_a_good_response_is_delivered_as_it_came() -> None:
    told = Told()
    assert told.gets(response(200), body({"id": "gen-1", "choices": []})) == Deliver()
    assert (told.call.record.response_id, told.call.record.error) == ("gen-1", None)


def test_a_transient_one_is_tried_again_until_its_rule_is_spent() -> None:
    told = Told()
    waits: list[float] = []
    while isinstance(decision := told.gets(response(503), body()), Try):
        waits.append(decision.wait)
    assert waits == [1.0, 2.0, 4.0]
    assert (decision.rewrite, decision.no_retry, decision.reason) == (None, True, "exhausted")
    assert [attempt.number for attempt in told.call.record.attempts] == [1, 2, 3, 4]
    assert [attempt.started for attempt in told.call.record.attempts] == [0, 1, 2, 3]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_one_that_no_retry_mends_is_delivered_at_once(status: int) -> None:
    decision = Told().gets(response(status), body({"error": {"code": status, "message": "m"}}))
    assert isinstance(decision, Deliver)
    assert (decision.rewrite, decision.no_retry, decision.reason) == (None, True, "not_retryable")


def test_a_page_is_rewritten_and_a_documented_body_is_not() -> None:
    told = Told(Settings(retry=RetryPolicy(rules={})))
    decision = told.gets(response(502, content_type="text/html"), body(b"<h1>Bad gateway</h1>"))
    assert isinstance(decision, Deliver)
    assert decision.rewrite is not None
    assert decision.rewrite.status_code == 502
    assert json.loads(decision.rewrite.body or b"")["error"]["code"] == 502


def test_an_error_in_a_200_is_ruled_on_by_its_code_and_delivered_under_its_status() -> None:
    told = Told(Settings(retry=RetryPolicy(rules={})))
    inside = {"choices": [{"finish_reason": "error", "error": {"code": "rate_limit"}}]}
    decision = told.gets(response(200), body(inside))
    assert isinstance(decision, Deliver)
    assert decision.rewrite is not None
    assert decision.rewrite.status_code == 429
    assert isinstance(Told().gets(response(200), body(inside)), Try)


def test_a_body_that_cannot_be_sent_again_is_not_and_the_layer_above_may() -> None:
    decision = Told(head=request(None)).gets(response(503), body())
    assert isinstance(decision, Deliver)
    assert (decision.no_retry, decision.reason) == (False, "not_replayable")


def test_without_retries_the_layer_above_may_retry() -> None:
    decision = Told(Settings(retry=RetryPolicy(enabled=False))).gets(response(503), body())
    assert isinstance(decision, Deliver)
    assert (decision.no_retry, decision.reason) == (False, "disabled")


def test_a_429_that_names_a_time_is_a_cooldown_for_others_too() -> None:
    told = Told()
    limited = {"error": {"code": 429, "message": "m"}}
    assert isinstance(told.gets(response(429, retry_after="7"), body(limited)), Try)
    assert told.call.cooldown == 7.0
    assert told.gets(response(200)) == Deliver()
    assert told.call.cooldown == 0.0


def test_a_closed_throttle_ends_the_call_at_its_first_failure() -> None:
    throttle = RetryThrottle()
    throttle.tokens = 10
    decision = Told(throttle=throttle).gets(response(503), body())
    assert isinstance(decision, Deliver)
    assert decision.reason == "throttled"


def test_what_cannot_be_read_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    told = Told()
    monkeypatch.setattr(Call, "_read", fail)
    assert told.gets(response(200), body({})) == Deliver()
    failed = told.gets(response(404), body())
    assert isinstance(failed, Deliver)
    assert failed.error is not None
    assert (failed.rewrite, failed.error.code) == (None, 404)


# --- streams ---

BEFORE = StreamFailure(WireError("rate_limit", "Slow down"), None, after_content=False)


def test_a_stream_that_fails_before_content_is_tried_again_then_an_http_error() -> None:
    told = Told(Settings(retry=RetryPolicy(rules={})))
    assert isinstance(Told().streams(BEFORE), Try)
    decision = told.streams(BEFORE)
    assert isinstance(decision, Deliver)
    assert decision.rewrite is not None
    assert decision.rewrite.status_code == 429
    assert decision.error is not None
    assert (decision.error.phase, decision.error.request_id) == ("mid_stream", "req_1")


def test_one_that_fails_while_it_is_delivered_is_the_delivered_attempts_failure() -> None:
    told = Told()
    assert told.streams(None) == Deliver()
    error = told.call.on_stream_failure(BEFORE, epoch=0.0)
    [attempt] = told.call.record.attempts
    assert (attempt.error, told.call.record.error) == (error, error)
    assert (error.status_code, error.request_id) == (200, "req_1")


@pytest.mark.parametrize(
    ("settings", "size", "since", "held"),
    [
        ({}, 256 * 1024, 30.0, True),
        ({}, 256 * 1024 + 1, 0.0, False),
        ({}, 0, 30.1, False),
        ({"retry": "buffered"}, 1 << 30, 3600.0, True),
    ],
)
def test_what_has_no_content_is_held_within_bounds(
    settings: Mapping[str, Any], size: int, since: float, *, held: bool
) -> None:
    call = Told(Settings(stream=StreamSettings(**settings))).call
    assert call.held_enough(call.open_stream(), size, 0.0, since) is not held


# --- exceptions ---


def test_no_response_is_tried_again_but_not_where_the_sdk_does_so_already() -> None:
    refused = httpx.ConnectError("refused")
    assert isinstance(Told().raises(refused), Try)
    again = request(headers={"x-stainless-retry-count": "1"})
    decision = Told(head=again).raises(refused)
    assert isinstance(decision, Raise)
    assert (decision.reason, decision.error.phase) == ("exhausted", "connection")


def test_a_connection_lost_after_the_headers_has_their_status_and_request_id() -> None:
    told = Told(Settings(retry=RetryPolicy(rules={})))
    decision = told.raises(httpx.ReadError("reset"), response(200, x_request_id="req_1"))
    assert isinstance(decision, Raise)
    error = decision.error
    assert (error.phase, error.status_code, error.request_id) == ("mid_stream", 200, "req_1")


# --- time ---


def test_timeouts_are_cut_to_what_the_deadline_leaves() -> None:
    call = Told(Settings(retry=RetryPolicy(deadline=10))).call
    cut = call.timeouts({"connect": 2.0, "read": 60.0}, now=7.0)
    assert cut == {"connect": 2.0, "read": 3.0, "write": 3.0, "pool": 3.0}
    assert Told().call.timeouts({"read": 60.0}, now=7.0) is None


def test_a_call_held_back_past_its_deadline_ends_as_a_429_of_ours() -> None:
    limits = Settings(limits=LimitSettings(requests_per_minute=1))
    decision = Told(limits).call.on_limit("pace")
    assert decision.rewrite is not None
    assert decision.rewrite.status_code == 429
    assert json.loads(decision.rewrite.body or b"")["error"]["code"] == "limit_timeout"
    assert (decision.no_retry, decision.reason) == (True, "deadline")
