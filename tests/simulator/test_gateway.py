# SPDX-License-Identifier: Apache-2.0
"""What the simulator answers by itself, with no reply in the queue."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import openai
import pytest

from cline_transport.simulator import Reply, Simulator
from cline_transport.simulator.scenarios import SCENARIOS

from .support import CHAT, MESSAGES, MODEL, ask

if TYPE_CHECKING:
    import httpx

GOOD = "Hello from the simulator."


def text_of(sdk: openai.OpenAI, model: str) -> str | None:
    answer = sdk.chat.completions.create(model=model, messages=MESSAGES, stream=False)
    return answer.choices[0].message.content


def last_chunk(sdk: openai.OpenAI, model: str) -> dict[str, object]:
    with sdk.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
        *_, last = stream
    return last.to_dict()


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1", ""])
def test_a_good_request_is_answered_under_each_prefix(
    cline_api: Simulator, http: httpx.Client, prefix: str
) -> None:
    root = f"http://127.0.0.1:{cline_api.port}{prefix}"
    assert http.post(f"{root}/chat/completions", json=ask(False)).status_code == 200
    assert http.get(f"{root}/models").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/embeddings"), ("GET", CHAT), ("POST", "/api/v1/models"), ("GET", "/")],
)
def test_an_unknown_endpoint_is_answered_with_404(
    cline_api: Simulator, http: httpx.Client, method: str, path: str
) -> None:
    response = http.request(method, f"http://127.0.0.1:{cline_api.port}{path}")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": 404,
        "message": f"Invalid endpoint: {method} {path}",
        "metadata": {},
    }


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "sk-simulator"])
def test_a_bad_key_is_answered_with_401(http: httpx.Client, authorization: str) -> None:
    http.headers["authorization"] = authorization
    for response in (http.post("chat/completions", json=ask()), http.get("models")):
        assert response.status_code == 401
        assert response.json()["error"]["message"] == "Invalid API key"


def test_a_missing_key_is_answered_with_401(http: httpx.Client) -> None:
    del http.headers["authorization"]
    assert http.post("chat/completions", json=ask()).status_code == 401


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Malformed JSON"),
        (b"\xff", "Malformed JSON"),
        (b"[]", "Malformed JSON"),
        (b'{"messages": [{}]}', "Missing required field: model"),
        (b'{"messages": [{}], "model": 1}', "Missing required field: model"),
        (b'{"messages": [{}], "model": ""}', "Missing required field: model"),
        (b'{"model": "cline/ok"}', "Missing required field: messages"),
        (b'{"model": "cline/ok", "messages": "Hi"}', "Missing required field: messages"),
        (b'{"model": "cline/ok", "messages": []}', "Missing required field: messages"),
    ],
)
def test_a_bad_body_is_answered_with_400(http: httpx.Client, body: bytes, message: str) -> None:
    response = http.post("chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(message)


def test_an_unknown_model_is_answered_with_404(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Invalid model ID: no/model"):
        text_of(sdk, "no/model")


def test_a_queued_reply_is_served_whatever_the_request(
    cline_api: Simulator, http: httpx.Client
) -> None:
    del http.headers["authorization"]
    cline_api.enqueue(Reply.completion("Hi"), Reply.stream("Hi"))
    first = http.get("nowhere").json()
    assert first["choices"][0]["message"]["content"] == "Hi"
    assert first["model"] == "simulator"
    assert http.post("chat/completions", content=b"{").text.endswith("data: [DONE]\n\n")


def test_models_are_listed_with_those_that_were_added() -> None:
    with (
        Simulator(models=["my/model"], api_key="mine") as api,
        openai.OpenAI(base_url=api.base_url, api_key="mine", max_retries=0) as sdk,
    ):
        assert {model.id for model in sdk.models.list()} == {*SCENARIOS, "my/model"}
        assert text_of(sdk, "my/model") == GOOD


@pytest.mark.parametrize("model", [MODEL, "anthropic/claude-sonnet-4.6", "sim/comments"])
def test_a_good_model_answers_as_asked(sdk: openai.OpenAI, model: str) -> None:
    assert text_of(sdk, model) == GOOD
    with sdk.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == GOOD


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 502, 503])
def test_a_status_is_a_model(sdk: openai.OpenAI, status: int) -> None:
    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as caught:
            text_of(sdk, f"sim/{status}")
        assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("model", "statuses"),
    [
        ("sim/429-once", [429, 200, 429, 200]),
        ("sim/500-once", [500, 200, 500, 200]),
        ("sim/502-twice", [502, 502, 200, 502]),
    ],
)
def test_some_models_fail_first_and_begin_again(
    http: httpx.Client, model: str, statuses: list[int]
) -> None:
    responses = [http.post("chat/completions", json=ask(model=model)) for _ in statuses]
    assert [response.status_code for response in responses] == statuses
    assert len({response.headers["x-request-id"] for response in responses}) == len(statuses)
    assert ("retry-after" in responses[0].headers) == (statuses[0] == 429)


def test_attempts_are_counted_by_model_and_forgotten_by_a_reset(
    cline_api: Simulator, http: httpx.Client
) -> None:
    def status(model: str) -> int:
        return http.post("chat/completions", json=ask(model=model)).status_code

    assert [status("sim/429-once"), status("sim/500-once")] == [429, 500]
    cline_api.reset()
    assert [status("sim/429-once"), status("sim/429-once")] == [429, 200]


@pytest.mark.parametrize(
    "code", ["context_length_exceeded", "content_filter", "rate_limit", "server_error"]
)
def test_a_mid_stream_code_is_a_model_in_each_shape(sdk: openai.OpenAI, code: str) -> None:
    cline = last_chunk(sdk, f"sim/mid-stream/{code}")
    assert f"'code': '{code}'" in str(cline["choices"])
    assert "'finish_reason': 'error'" in str(last_chunk(sdk, f"sim/mid-stream/{code}/bare"))
    with pytest.raises(openai.APIError) as caught:
        last_chunk(sdk, f"sim/mid-stream/{code}/openrouter")
    assert f"'code': '{code}'" in str(caught.value.body)


def test_an_early_error_comes_before_any_content(http: httpx.Client) -> None:
    def events(model: str) -> int:
        return http.post("chat/completions", json=ask(model=model)).text.count("data: ")

    assert events("sim/early/rate_limit") == 3
    assert [events("sim/early/server_error-once") for _ in range(2)] == [3, 7]


def test_a_stream_can_be_truncated(http: httpx.Client) -> None:
    def text(model: str) -> str:
        return http.post("chat/completions", json=ask(model=model)).text

    assert text("sim/truncated").count("data: ") == 3
    assert [text("sim/truncated-once").count("data: ") for _ in range(2)] == [1, 7]


def test_an_error_can_come_in_a_200_or_as_a_page(http: httpx.Client) -> None:
    hidden = http.post("chat/completions", json=ask(model="sim/error-in-200"))
    assert hidden.status_code == 200
    assert json.loads(hidden.text)["choices"][0]["error"]["code"] == "server_error"
    page = http.post("chat/completions", json=ask(model="sim/html-502"))
    assert (page.status_code, page.text[:15]) == (502, "<!DOCTYPE html>")


@pytest.mark.parametrize("model", ["sim/close", "sim/reset", "sim/cut"])
def test_a_connection_can_be_lost(sdk: openai.OpenAI, model: str) -> None:
    # Inside a stream the SDK lets the exception of its HTTP library through.
    with pytest.raises(Exception, match=r"(?i)connection|peer closed") as caught:
        last_chunk(sdk, model)
    assert type(caught.value).__name__ in {"APIConnectionError", "RemoteProtocolError"}


def test_a_model_can_stall(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        text_of(sdk.with_options(timeout=openai.Timeout(20.0, read=0.01)), "sim/stall")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_an_encoding_is_a_model(http: httpx.Client, sdk: openai.OpenAI, encoding: str) -> None:
    response = http.post("chat/completions", json=ask(model=f"sim/encoding/{encoding}"))
    assert response.headers["content-encoding"] == encoding
    assert text_of(sdk, f"sim/encoding/{encoding}") == GOOD


def test_an_encoding_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, http: httpx.Client
) -> None:
    for module in ("brotli", "brotlicffi"):
        monkeypatch.setitem(sys.modules, module, None)
    response = http.post("chat/completions", json=ask(model="sim/encoding/br"))
    assert response.status_code == 501
    assert "pip install 'cline-transport[brotli]'" in response.json()["error"]["message"]


def test_a_model_can_drip() -> None:
    assert SCENARIOS["sim/drip"].reply(1) == Reply.ok(drip=(64, 0.05))


def test_every_scenario_says_what_it_is() -> None:
    assert all(scenario.description for scenario in SCENARIOS.values())
    assert isinstance(SCENARIOS["cline/ok"].reply(1), Reply)
