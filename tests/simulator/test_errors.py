# SPDX-License-Identifier: Apache-2.0
"""Errors as documented, as the official SDK and a plain client read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openai
import pytest

from cline_transport.simulator import Reply

from .support import MESSAGES, MODEL, ask

if TYPE_CHECKING:
    import httpx

    from cline_transport.simulator import Simulator
    from cline_transport.simulator._answer import ErrorShape


@pytest.mark.parametrize(
    ("status", "expected", "message"),
    [
        (400, openai.BadRequestError, "Malformed JSON, missing required fields"),
        (401, openai.AuthenticationError, "Invalid API key"),
        (402, openai.APIStatusError, "Insufficient account credits"),
        (403, openai.PermissionDeniedError, "Key does not have access to this resource"),
        (404, openai.NotFoundError, "Invalid endpoint path or model ID"),
        (429, openai.RateLimitError, "Rate limit exceeded"),
        (500, openai.InternalServerError, "Server-side issue"),
        (502, openai.InternalServerError, "Upstream provider error"),
        (503, openai.InternalServerError, "Service temporarily down"),
        (504, openai.InternalServerError, "Gateway Timeout"),
        (529, openai.InternalServerError, "Error 529"),
    ],
)
def test_an_http_error_has_the_documented_format(
    cline_api: Simulator,
    sdk: openai.OpenAI,
    status: int,
    expected: type[openai.APIStatusError],
    message: str,
) -> None:
    cline_api.enqueue(Reply.error(status))
    with pytest.raises(expected) as caught:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.status_code == status
    assert caught.value.body == {"code": status, "message": message, "metadata": {}}
    assert caught.value.request_id == cline_api.requests[0].request_id


def test_code_message_metadata_and_waits_can_be_set(
    cline_api: Simulator, http: httpx.Client
) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    cline_api.enqueue(
        Reply.error(429, code="slow", message="Später", metadata={"a": 1}, retry_after=2.0),
        Reply.error(503, retry_after=date, retry_after_ms=1500),
        Reply.error(503, retry_after=0.25, message=""),
    )
    first, second, third = (http.post("chat/completions", json=ask()) for _ in range(3))
    assert first.json() == {"error": {"code": "slow", "message": "Später", "metadata": {"a": 1}}}
    assert first.headers["retry-after"] == "2"
    assert second.headers["retry-after"] == date
    assert second.headers["retry-after-ms"] == "1500"
    assert third.headers["retry-after"] == "0.25"
    assert third.json()["error"]["message"] == ""


def test_a_proxy_answers_with_a_page(cline_api: Simulator, sdk: openai.OpenAI) -> None:
    cline_api.enqueue(Reply.html(502), Reply.html(503, html="<p>Grüße</p>"))
    for status, text in ((502, "502 Bad Gateway"), (503, "<p>Grüße</p>")):
        with pytest.raises(openai.InternalServerError) as caught:
            sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert caught.value.status_code == status
        assert text in caught.value.response.text
        assert caught.value.response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("context_length_exceeded", "The input exceeds the model's maximum context length."),
        ("content_filter", "Content was blocked by a safety filter."),
        ("rate_limit", "Rate limit hit during generation."),
        ("server_error", "Upstream provider failed during generation."),
        ("made_up", "made_up"),
        (502, "Upstream provider error"),
    ],
)
def test_an_error_chunk_is_exactly_the_documented_one(
    cline_api: Simulator, http: httpx.Client, code: str | int, message: str
) -> None:
    cline_api.enqueue(Reply.stream(error=code, done=False))
    *_, last = http.post("chat/completions", json=ask()).text.split("\n\n")[:-1]
    assert json.loads(last.removeprefix("data: ")) == {
        "choices": [{"finish_reason": "error", "error": {"code": code, "message": message}}]
    }


def test_the_sdk_hands_a_documented_error_chunk_over_and_raises_nothing(
    cline_api: Simulator, sdk: openai.OpenAI
) -> None:
    cline_api.enqueue(Reply.stream("one two", error="rate_limit", error_after=1))
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        *content, last = list(stream)
    assert [c.choices[0].delta.content for c in content] == ["", "one"]
    assert last.to_dict()["choices"] == [
        {
            "finish_reason": "error",
            "error": {"code": "rate_limit", "message": "Rate limit hit during generation."},
        }
    ]


def test_the_sdk_raises_for_an_error_at_the_top_level(
    cline_api: Simulator, sdk: openai.OpenAI
) -> None:
    cline_api.enqueue(
        Reply.stream(
            "one two", error="server_error", error_message="Ouch", error_shape="openrouter"
        )
    )
    seen: list[str | None] = []
    with (  # noqa: PT012 - it raises while it is read
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream,
        pytest.raises(openai.APIError, match="Ouch") as caught,
    ):
        for chunk in stream:
            seen.append(chunk.choices[0].delta.content)  # noqa: PERF401 - the last one raises
    assert seen == ["", "one", " two"]
    assert caught.value.body == {"code": "server_error", "message": "Ouch"}


@pytest.mark.parametrize(
    ("shape", "top_level"),
    [("openrouter", {"error": {"code": "x", "message": "y"}}), ("bare", {})],
)
def test_other_gateways_send_a_whole_chunk(
    cline_api: Simulator, http: httpx.Client, shape: ErrorShape, top_level: dict[str, object]
) -> None:
    cline_api.enqueue(
        Reply.stream("Hi", error="x", error_message="y", error_shape=shape, response_id="gen-1")
    )
    *_, last, done, rest = http.post("chat/completions", json=ask()).text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    document = json.loads(last.removeprefix("data: "))
    assert isinstance(document.pop("created"), int)
    assert document == {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "model": MODEL,
        "provider": "Simulator",
        **top_level,
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }


def test_a_200_json_document_can_carry_an_error(cline_api: Simulator, http: httpx.Client) -> None:
    error = {"code": "rate_limit", "message": "Rate limit hit during generation."}
    cline_api.enqueue(
        Reply.json_error_in_200("rate_limit"),
        Reply.json_error_in_200("rate_limit", shape="openrouter"),
        Reply.ok("one two three", error="rate_limit", error_after=2, error_shape="bare"),
        Reply.error(200, code="rate_limit"),
    )
    responses = [http.post("chat/completions", json=ask(False)) for _ in range(4)]
    assert {r.status_code for r in responses} == {200}
    assert {r.headers["content-type"] for r in responses} == {"application/json"}
    cline, openrouter, bare, envelope = (r.json() for r in responses)
    assert cline == {"choices": [{"finish_reason": "error", "error": error}]}
    assert openrouter["error"] == error
    assert openrouter["choices"][0]["finish_reason"] == "error"
    assert openrouter["object"] == "chat.completion"
    assert "error" not in bare
    assert bare["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "one two"},
            "finish_reason": "error",
        }
    ]
    assert envelope["error"] == {"code": "rate_limit", "message": "OK", "metadata": {}}
