# SPDX-License-Identifier: Apache-2.0
"""The table "Mid-stream errors" of the error page, in each of the shapes it is met in."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import _streaming

from cline_transport import ErrorInfo, Settings, StreamSettings, error_info
from cline_transport.simulator import Reply, Simulator

from .support import (
    MODEL,
    OURS,
    PROMPT,
    Answer,
    Colour,
    Connect,
    Sdk,
    make_client,
    sdk_leaves_generators,
)

pytestmark = sdk_leaves_generators

RETRYABLE = {
    "context_length_exceeded": False,
    "content_filter": False,
    "rate_limit": True,
    "server_error": True,
}
MESSAGE = "message-marker-41d0"

codes = pytest.mark.parametrize("code", RETRYABLE)
shapes = pytest.mark.parametrize("shape", ["cline", "openrouter", "bare"])


def failing(code: str, shape: Any, **options: Any) -> Reply:
    return Reply.ok(
        "one two three",
        error=code,
        error_message=MESSAGE,
        error_after=2,
        error_shape=shape,
        **options,
    )


def said(code: str, shape: str) -> tuple[str, str]:
    """The code and the message that can be known of an error in this shape."""
    if shape == "bare":
        return "server_error", "The stream ended with an error"
    return code, MESSAGE


def assert_explained(answer: Answer, code: str, shape: str, api: Simulator) -> None:
    known, message = said(code, shape)
    (request,) = api.requests
    info = error_info(answer.raised)
    assert info is not None
    assert info == ErrorInfo(
        code=known,
        message=message,
        status_code=200,
        phase="mid_stream",
        request_id=request.request_id,
        model=MODEL,
        attempts=1,
        retryable=RETRYABLE[known],
    )
    assert info.report().splitlines()[:4] == [
        f"1. Error code and message: {known}: {message}",
        f"2. Model ID: {MODEL}",
        f"3. Request ID (x-request-id): {request.request_id}",
        '4. Immediate or mid-stream: mid-stream (finish_reason: "error")',
    ]


@codes
@shapes
def test_an_error_after_text_is_raised_and_the_text_was_delivered_once(
    code: str, shape: str, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(failing(code, shape), Reply.ok())

    answer = sdk.ask("stream")

    assert answer.text_so_far == "one two"
    assert type(answer.raised) is openai.APIError
    assert answer.api_error.code == said(code, shape)[0]
    assert answer.api_error.message == said(code, shape)[1]
    assert sdk.waits == sdk.sdk_waits == []
    assert_explained(answer, code, shape, cline_api)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("split", [1, 7, None])
def test_an_error_is_raised_however_its_bytes_arrive(
    newline: Any, split: int | None, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(failing("rate_limit", "cline", newline=newline, split=split))

    answer = sdk.ask("stream")

    assert answer.text_so_far == "one two"
    assert answer.api_error.code == "rate_limit"


@codes
@shapes
def test_with_on_error_raise_the_body_raises_and_the_error_is_explained_all_the_same(
    code: str, shape: str, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(settings=Settings(stream=StreamSettings(on_error="raise")))
    cline_api.enqueue(failing(code, shape), Reply.ok())

    answer = sdk.ask("stream")

    assert answer.text_so_far == "one two"
    if hasattr(_streaming, "request_exceptions"):  # such an SDK maps what a body raises
        assert type(answer.raised) is openai.APIConnectionError
        assert type(answer.raised.__cause__) is OURS.StreamError
    else:
        assert type(answer.raised) is OURS.StreamError
    assert sdk.waits == sdk.sdk_waits == []
    assert_explained(answer, code, shape, cline_api)


@codes
@shapes
def test_with_on_error_observe_the_caller_gets_what_the_bare_sdk_gives(
    code: str, shape: str, colour: Colour, connect: Connect, cline_api: Simulator
) -> None:
    bare = Sdk(colour, make_client(colour, cline_api), connect().traces)
    sdk = connect(settings=Settings(stream=StreamSettings(on_error="observe")))
    cline_api.enqueue(*[failing(code, shape, response_id="gen-1")] * 2)

    expected = bare.ask("stream")
    bare.close()
    answer = sdk.ask("stream")

    assert answer.chunks == expected.chunks
    assert answer.text_so_far == "one two"
    assert type(answer.error) is type(expected.error)
    assert repr(answer.error) == repr(expected.error)
    assert len(cline_api.requests) == 2
    assert sdk.waits == []
    assert [(span.attributes or {}).get("cline.error.code") for span in sdk.traces.calls] == [
        said(code, shape)[0]
    ]


def test_with_on_error_observe_the_documented_error_raises_nothing(
    connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(settings=Settings(stream=StreamSettings(on_error="observe")))
    cline_api.enqueue(failing("rate_limit", "cline"))

    assert sdk.ask("stream").text == "one two"


@pytest.mark.parametrize("on_error", ["normalize", "raise", "observe"])
def test_a_stream_without_an_error_is_delivered_as_it_is(
    on_error: Any, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(settings=Settings(stream=StreamSettings(on_error=on_error)))
    cline_api.enqueue(Reply.ok("an error and a finish_reason", reasoning="hm", comments=3))

    answer = sdk.ask("stream", prompt=PROMPT)

    assert answer.text == "an error and a finish_reason"
    assert answer.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert answer.chunks[-1]["usage"]["prompt_tokens"] == 12
