# SPDX-License-Identifier: Apache-2.0
"""Good answers, as the official SDK and a plain client read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cline_transport.simulator import Reply

from .support import MESSAGES, MODEL, ask

if TYPE_CHECKING:
    import httpx
    import openai

    from cline_transport.simulator import Simulator
    from cline_transport.simulator._answer import Newline

TEXT = "Grüße, 世界 🌍 again"


def lines_of(body: str, newline: str = "\n") -> list[str]:
    return [line for line in body.split(newline) if line]


def chunks_of(body: str) -> list[dict[str, object]]:
    return [json.loads(line[6:]) for line in lines_of(body) if line.startswith("data: {")]


def test_a_completion_has_text_usage_and_cost(cline_api: Simulator, sdk: openai.OpenAI) -> None:
    cline_api.enqueue(Reply.ok("Hello you", cost=0.25))
    answer = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=False)
    assert answer.choices[0].message.content == "Hello you"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 12
    assert answer.usage.completion_tokens == 2
    assert answer.usage.total_tokens == 14
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    assert answer.usage.model_extra == {"cost": 0.25}
    assert answer._request_id == cline_api.requests[0].request_id  # pyright: ignore[reportPrivateUsage]


def test_a_stream_has_role_text_finish_reason_and_usage(
    cline_api: Simulator, sdk: openai.OpenAI
) -> None:
    cline_api.enqueue(Reply.ok("Hello dear you", cost=0.5))
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        first, *content, last = list(stream)
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [c.choices[0].delta.content for c in content] == ["Hello", " dear", " you"]
    assert {c.choices[0].finish_reason for c in (first, *content)} == {None}
    assert [c.usage for c in (first, *content)] == [None] * 4
    assert last.choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == 3
    assert last.usage.model_extra == {"cost": 0.5}
    assert len({c.id for c in (first, *content, last)}) == 1


def test_a_request_without_stream_is_answered_with_a_stream(
    cline_api: Simulator, http: httpx.Client
) -> None:
    cline_api.enqueue(Reply.ok("Hi"))
    response = http.post("chat/completions", json=ask())
    assert response.headers["content-type"] == "text/event-stream"
    assert lines_of(response.text)[-1] == "data: [DONE]"


@pytest.mark.parametrize("stream", [True, False, None])
def test_stream_and_completion_do_not_care_what_was_asked(
    cline_api: Simulator,
    http: httpx.Client,
    stream: bool | None,  # noqa: FBT001 - JSON's own value
) -> None:
    cline_api.enqueue(Reply.stream(), Reply.completion())
    types = [
        http.post("chat/completions", json=ask(stream)).headers["content-type"] for _ in range(2)
    ]
    assert types == ["text/event-stream", "application/json"]


@pytest.mark.parametrize("text", ["", " ", "one", " one  two ", "one\n\ntwo\n", "\u2028x\u2028"])
def test_the_words_of_a_stream_make_up_the_text(
    cline_api: Simulator, sdk: openai.OpenAI, text: str
) -> None:
    cline_api.enqueue(Reply.stream(text))
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        assert "".join(c.choices[0].delta.content or "" for c in stream) == text


def test_chunks_are_sent_as_given(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(Reply.stream(chunks=["a b", "", "c"]))
    text = http.post("chat/completions", json=ask()).text
    deltas = [chunk["choices"] for chunk in chunks_of(text)][1:-1]
    assert deltas == [
        [{"index": 0, "delta": {"content": part}, "finish_reason": None}]
        for part in ("a b", "", "c")
    ]


def test_reasoning_comes_before_the_content(cline_api: Simulator, sdk: openai.OpenAI) -> None:
    cline_api.enqueue(Reply.stream("Yes", reasoning="Hm"), Reply.completion("Yes", reasoning="Hm"))
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        deltas = [c.choices[0].delta for c in stream]
    assert [d.model_extra for d in deltas] == [{}, {"reasoning": "Hm"}, {}, {}]
    assert [d.content for d in deltas] == ["", "", "Yes", None]
    answer = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=False)
    assert answer.choices[0].message.model_extra == {"reasoning": "Hm"}


def test_comments_come_first(cline_api: Simulator, http: httpx.Client, sdk: openai.OpenAI) -> None:
    cline_api.enqueue(Reply.stream("Hi", comments=2), Reply.stream("Hi", comments=2))
    lines = lines_of(http.post("chat/completions", json=ask()).text)
    assert lines[:2] == [": OPENROUTER PROCESSING"] * 2
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        assert "".join(c.choices[0].delta.content or "" for c in stream) == "Hi"


def test_model_id_and_finish_reason_can_be_set(cline_api: Simulator, http: httpx.Client) -> None:
    reply = Reply.ok("Hi", model="other/model", response_id="gen-1", finish_reason="length")
    cline_api.enqueue(reply, reply)
    answer = http.post("chat/completions", json=ask(False)).text
    *_, last, _ = lines_of(http.post("chat/completions", json=ask(True)).text)
    for document in (json.loads(answer), json.loads(last.removeprefix("data: "))):
        assert document["model"] == "other/model"
        assert document["id"] == "gen-1"
        assert document["choices"][0]["finish_reason"] == "length"


def test_usage_cost_role_and_done_can_be_left_out(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(
        Reply.stream("Hi", usage=False, done=False, role=False, finish_reason=None),
        Reply.stream("Hi", cost=None),
        Reply.stream("Hi", usage={"total_tokens": 7}),
    )
    texts = [http.post("chat/completions", json=ask()).text for _ in range(3)]
    bare, without_cost, own = (chunks_of(text) for text in texts)
    assert "[DONE]" not in texts[0]
    assert [chunk["choices"] for chunk in bare] == [
        [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": None}],
    ]
    assert "usage" not in bare[-1]
    assert without_cost[-1]["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 1,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert own[-1]["usage"] == {"total_tokens": 7}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_told(
    cline_api: Simulator, http: httpx.Client, sdk: openai.OpenAI, newline: Newline
) -> None:
    reply = Reply.stream(TEXT, newline=newline, comments=1)
    cline_api.enqueue(reply, reply)
    body = http.post("chat/completions", json=ask()).content.decode()
    assert body.endswith(f"data: [DONE]{newline * 2}")
    assert set(body) & {"\r", "\n"} == set(newline)
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        assert "".join(c.choices[0].delta.content or "" for c in stream) == TEXT


@pytest.mark.parametrize("size", [1, 7])
def test_a_stream_can_be_split_inside_a_character(
    cline_api: Simulator, http: httpx.Client, sdk: openai.OpenAI, size: int
) -> None:
    reply = Reply.stream(TEXT, split=size)
    cline_api.enqueue(reply, reply)
    with http.stream("POST", "chat/completions", json=ask()) as response:
        body = b"".join(response.iter_raw())
    assert TEXT.split(maxsplit=1)[0].encode() in body
    with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        assert "".join(c.choices[0].delta.content or "" for c in stream) == TEXT


def test_each_answer_has_its_own_request_id(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(
        Reply.ok(),
        Reply.error(500),
        Reply.html(),
        Reply.raw(),
        Reply.ok(request_id="req_mine"),
        Reply.error(500, request_id=None),
    )
    ids = [http.post("chat/completions", json=ask()).headers.get("x-request-id") for _ in range(6)]
    assert len({*ids[:4]}) == 4
    assert all(identity.startswith("req_") for identity in ids[:4])
    assert ids[4:] == ["req_mine", None]
    assert [request.request_id for request in cline_api.requests] == ids


def test_headers_are_sent_and_may_replace_the_content_type(
    cline_api: Simulator, http: httpx.Client
) -> None:
    cline_api.enqueue(
        Reply.ok(headers={"Content-Type": "text/event-stream; charset=utf-8", "x-a": "1"}),
        Reply.error(500, headers=[("x-a", "1"), ("x-a", "2")]),
    )
    first, second = (http.post("chat/completions", json=ask()) for _ in range(2))
    assert first.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert first.headers["x-a"] == "1"
    assert second.headers.get_list("x-a") == ["1", "2"]
    assert second.headers["content-type"] == "application/json"


def test_raw_bytes_are_sent_with_a_length_and_a_sequence_in_chunks(
    cline_api: Simulator, http: httpx.Client
) -> None:
    cline_api.enqueue(Reply.raw(201, body=b"abc"), Reply.raw(body=[b"ab", b"c"]), Reply.raw(204))
    whole, chunked, empty = (http.post("chat/completions", json=ask()) for _ in range(3))
    assert (whole.status_code, whole.content) == (201, b"abc")
    assert whole.headers["content-length"] == "3"
    assert chunked.content == b"abc"
    assert chunked.headers["transfer-encoding"] == "chunked"
    assert (empty.status_code, empty.content) == (204, b"")
