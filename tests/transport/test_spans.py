# SPDX-License-Identifier: Apache-2.0
"""One span for a call, one HTTP span for each attempt, at home in the traces people have."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from cline_transport import RetryPolicy, Settings, StreamSettings
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, unread
from .spans import assert_nested, attributes, key, status_of, traced


def test_a_call_that_recovered_is_described_whole(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(
        Reply.error(429, retry_after=2, request_id="req_1"),
        Reply.stream("Hi", response_id="gen-1", model="cline/answered", request_id="req_2"),
    )
    traced(rig).post(url, json={**CHAT, "stream": True})
    [call], [first, second] = rig.finished()
    assert_nested(call, [first, second])
    assert call.name == "chat cline/ok"
    assert call.kind is SpanKind.CLIENT
    assert call.status.status_code is StatusCode.UNSET
    assert call.events == ()
    usage = attributes(call)
    assert usage.pop("gen_ai.usage.input_tokens") > 0
    assert usage.pop("gen_ai.usage.output_tokens") > 0
    assert usage.pop("gen_ai.usage.cache_read.input_tokens") >= 0
    assert usage.pop("cline.usage.cost") > 0
    assert usage == {
        "server.address": "127.0.0.1",
        "server.port": api.port,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.request.model": "cline/ok",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "gen-1",
        "gen_ai.response.model": "cline/answered",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 2.0,
        "cline.request_id": "req_2",
        "cline.retry.count": 1,
        "cline.stream.completed": True,
    }
    assert (first.name, second.name) == ("POST", "POST")
    failed, good = attributes(first), attributes(second)
    assert (status_of(first), status_of(second)) == (429, 200)
    assert first.status.status_code is StatusCode.ERROR
    assert (failed["error.type"], failed["cline.error.code"]) == ("429", "429")
    assert failed["cline.request_id"] == "req_1"
    assert failed["http.response.header.x-request-id"] == ("req_1",)
    assert "http.request.resend_count" not in failed
    assert good["http.request.resend_count"] == 1
    assert good["cline.request_id"] == "req_2"
    assert "cline.error.code" not in good


def test_a_call_that_failed_says_so_once(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(*[Reply.error(503, code="overloaded", message="Too\nmuch")] * 4)
    traced(rig).post(url, json=CHAT)
    [call], attempts = rig.finished()
    assert len(attempts) == 4
    assert_nested(call, attempts)
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description == "Too much"
    found = attributes(call)
    assert found["error.type"] == found["cline.error.code"] == "overloaded"
    assert found["cline.error.message"] == "Too much"
    assert found["cline.error.phase"] == "immediate"
    assert found["cline.request_id"] == api.requests[-1].request_id
    assert found["cline.retry.count"] == 3
    assert [attributes(a)["cline.error.code"] for a in attempts] == ["overloaded"] * 4
    assert [attributes(a).get("http.request.resend_count") for a in attempts] == [None, 1, 2, 3]
    assert [attributes(a)["cline.request_id"] for a in attempts] == [
        r.request_id for r in api.requests
    ]


def test_a_failed_connection_has_no_request_id(rig: Rig, url: str, api: Simulator) -> None:
    client = traced(rig, Settings(retry=RetryPolicy(rules={})))
    with api.refusing():
        client.post(url, json=CHAT)
    [call], [attempt] = rig.finished()
    assert_nested(call, [attempt])
    assert attributes(call)["error.type"] == "connect_error"
    assert attributes(call)["cline.error.phase"] == "connection"
    assert attributes(attempt)["cline.error.code"] == "connect_error"
    assert "cline.request_id" not in attributes(call) | attributes(attempt)


def test_an_error_in_a_stream_shows_on_the_call_and_lasts_until_its_end(
    rig: Rig, api: Simulator, url: str
) -> None:
    gate = Gate(2)  # the role and a first word
    api.enqueue(Reply.stream("one two", error="rate_limit", gate=gate))
    client = traced(rig)
    response = client.open("POST", url, json=CHAT)
    assert rig.finished()[0] == []  # the HTTP span has ended with the headers, the call's has not
    assert len(rig.finished()[1]) == 1
    gate.release(20)
    for _ in client.chunks(response):
        pass
    client.close(response)
    [call], [attempt] = rig.finished()
    assert call.status.status_code is StatusCode.ERROR
    found = attributes(call)
    assert (found["error.type"], found["cline.error.phase"]) == ("rate_limit", "mid_stream")
    assert found["cline.stream.completed"] is False
    assert found["gen_ai.response.finish_reasons"] == ("error",)
    assert status_of(attempt) == 200


def test_a_json_error_in_a_200_marks_its_attempt(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.json_error_in_200("content_filter"))
    traced(rig).post(url, json=CHAT)
    [call], [attempt] = rig.finished()
    assert attempt.status.status_code is StatusCode.ERROR
    assert attributes(attempt)["cline.error.code"] == "content_filter"
    assert attributes(call)["error.type"] == "content_filter"


@unread
@pytest.mark.parametrize("on_error", ["normalize", "raise", "observe"])
def test_the_span_ends_however_a_failed_stream_is_delivered(
    rig: Rig, api: Simulator, url: str, on_error: Any
) -> None:
    api.enqueue(Reply.stream("one two", error="server_error"))
    traced(rig, Settings(stream=StreamSettings(on_error=on_error))).post(url, json=CHAT)
    [call], _ = rig.finished()
    assert attributes(call)["error.type"] == "server_error"


@unread
def test_closing_early_is_normal(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate()
    gate.release(2)
    api.enqueue(Reply.stream("a b c d", gate=gate))
    client = traced(rig)
    response = client.open("POST", url, json=CHAT)
    chunks = client.chunks(response)
    next(chunks)
    client.close(response)
    chunks.close()
    [call], _ = rig.finished()
    assert call.status.status_code is StatusCode.UNSET
    assert attributes(call)["cline.stream.completed"] is False


def test_a_lost_connection_in_mid_stream_shows(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stream("one two", cut_after=1, then="close"))
    traced(rig).post(url, json=CHAT)
    [call], _ = rig.finished()
    assert attributes(call)["error.type"] == "connection_closed"
    assert attributes(call)["cline.request_id"] == api.requests[0].request_id


def test_another_endpoint_is_an_internal_span(rig: Rig, api: Simulator) -> None:
    traced(rig).request("GET", f"{api.base_url}/models", headers=key(api))
    [call], [attempt] = rig.finished()
    assert (call.name, call.kind) == ("GET", SpanKind.INTERNAL)
    assert not any(name.startswith("gen_ai.") for name in attributes(call))
    assert_nested(call, [attempt])


def test_a_scheme_without_a_port_has_none(rig: Rig) -> None:
    def handler(_: Any) -> Any:
        return rig.library.Response(204)

    traced(rig, inner=rig.library.MockTransport(handler)).request("GET", "local://host/")
    [call], _ = rig.finished()
    assert "server.port" not in attributes(call)


def test_a_call_without_a_model_is_still_a_chat(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.completion("x"))
    traced(rig).post(url, content=b"{}")
    [call], _ = rig.finished()
    assert call.name == "chat"


def test_a_response_that_is_given_out_twice_keeps_its_headers(rig: Rig) -> None:
    """A cache's, a test double's: the span sees no headers of it, and nobody else misses any."""
    seen: list[tuple[object, int]] = []

    class Shared(rig.library.Response):  # type: ignore[misc, name-defined]
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "headers":
                seen.append((self, len(value)))
            object.__setattr__(self, name, value)

    def handler(_: Any) -> Any:
        return shared

    shared = Shared(200, headers={"a": "b", "c": "d"}, content=b"x")
    client = rig.client(rig.transport(rig.library.MockTransport(handler), traced=True))
    answer = client.request("GET", "http://127.0.0.1/")
    assert answer.headers["a"] == shared.headers["a"] == "b"
    assert [count for whose, count in seen if whose is shared] == [2]  # when it was made
