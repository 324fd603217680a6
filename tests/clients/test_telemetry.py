# SPDX-License-Identifier: Apache-2.0
"""What the trace shows of a call: one span that lives as long as its body, one for each attempt."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from cline_transport.simulator import Reply, Simulator

from .support import MODEL, PROMPT, Connect, Mode, Sdk, Traces, ask_async, sdk_leaves_generators

pytestmark = sdk_leaves_generators

KEY = "sk-key-marker-0c55e1"
COMPLETION = "completion-marker-93b2"


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def column(spans: Sequence[ReadableSpan], name: str) -> list[Any]:
    return [attributes(span).get(name) for span in spans]


def assert_one_call(traces: Traces, *, attempts: int) -> ReadableSpan:
    """One span of a call, and beneath it one HTTP span for each attempt; nothing else."""
    (call,) = traces.calls
    assert call.name == f"chat {MODEL}"
    assert call.kind is SpanKind.CLIENT
    assert call.parent is None
    assert len(traces.attempts) == attempts
    assert len(traces.spans) == 1 + attempts
    assert traces.ledger.started == traces.ledger.ended == 1 + attempts
    for span in traces.attempts:
        assert span.parent == call.context
        assert span.kind is SpanKind.CLIENT
    assert column(traces.attempts, "http.request.resend_count") == [None, *range(1, attempts)]
    assert attributes(call)["cline.retry.count"] == attempts - 1
    return call


def assert_nothing_is_told(traces: Traces, logs: pytest.LogCaptureFixture) -> None:
    told = [span.to_json() for span in traces.spans]
    told += [record.getMessage() for record in logs.records if record.name == "cline_transport"]
    assert told
    for text in told:
        assert KEY not in text
        assert PROMPT not in text
        assert COMPLETION not in text


@pytest.fixture
def traced(connect: Connect) -> Sdk:
    return connect(api_key=KEY)


def test_a_good_call(
    mode: Mode, traced: Sdk, cline_api: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    cline_api.enqueue(Reply.ok(COMPLETION, response_id="gen-1", cost=0.25))

    assert traced.ask(mode).text == COMPLETION

    call = assert_one_call(traced.traces, attempts=1)
    assert call.status.status_code is StatusCode.UNSET
    streamed = mode == "stream"
    known = dict(attributes(call))
    assert (known.pop("gen_ai.response.time_to_first_chunk", None) is not None) is streamed
    assert known.pop("cline.stream.completed", None) is (True if streamed else None)
    assert known == {
        "server.address": "127.0.0.1",
        "server.port": cline_api.port,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.stream": streamed,
        "gen_ai.response.id": "gen-1",
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 1,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "cline.usage.cost": 0.25,
        "cline.request_id": cline_api.requests[0].request_id,
        "cline.retry.count": 0,
    }
    (attempt,) = traced.traces.attempts
    assert attempt.status.status_code is StatusCode.UNSET
    assert attributes(attempt)["cline.request_id"] == cline_api.requests[0].request_id
    assert "error.type" not in attributes(attempt)
    assert_nothing_is_told(traced.traces, caplog)


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (402, 1), (429, 4), (500, 2), (502, 4)])
def test_a_call_that_fails(
    status: int,
    attempts: int,
    mode: Mode,
    traced: Sdk,
    cline_api: Simulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cline_api.enqueue(*[Reply.error(status, message=f"No: {KEY}")] * 9)

    error = traced.ask(mode).status_error

    call = assert_one_call(traced.traces, attempts=attempts)
    ids = [one.request_id for one in cline_api.requests]
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description == "No: [redacted]"
    assert attributes(call)["error.type"] == str(status)
    assert attributes(call)["cline.error.code"] == str(status)
    assert attributes(call)["cline.error.message"] == "No: [redacted]"
    assert attributes(call)["cline.error.phase"] == "immediate"
    assert attributes(call)["cline.request_id"] == ids[-1] == error.request_id
    http = traced.traces.attempts
    assert [span.status.status_code for span in http] == [StatusCode.ERROR] * attempts
    assert column(http, "error.type") == [str(status)] * attempts
    assert column(http, "cline.error.code") == [str(status)] * attempts
    assert column(http, "cline.request_id") == ids
    assert column(http, "http.response.header.x-request-id") == [(one,) for one in ids]
    assert_nothing_is_told(traced.traces, caplog)


def test_a_call_that_recovers_is_not_marked(
    mode: Mode, traced: Sdk, cline_api: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    cline_api.enqueue(Reply.error(429), Reply.close(), Reply.html(502), Reply.ok(COMPLETION))

    assert traced.ask(mode).text == COMPLETION

    call = assert_one_call(traced.traces, attempts=4)
    ids = [one.request_id for one in cline_api.requests]
    assert call.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(call)
    assert "cline.error.code" not in attributes(call)
    assert attributes(call)["cline.request_id"] == ids[-1]
    http = traced.traces.attempts
    unset, failed = StatusCode.UNSET, StatusCode.ERROR
    assert [span.status.status_code for span in http] == [failed, failed, failed, unset]
    assert column(http, "cline.error.code") == ["429", "connection_closed", "502", None]
    assert column(http, "cline.request_id") == [ids[0], None, ids[2], ids[3]]
    assert_nothing_is_told(traced.traces, caplog)


@pytest.mark.parametrize("shape", ["cline", "openrouter", "bare"])
@pytest.mark.parametrize("code", ["content_filter", "server_error"])
def test_a_stream_that_fails_after_its_headers(
    code: str,
    shape: Any,
    traced: Sdk,
    cline_api: Simulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing = {"error": code, "error_after": 1, "error_message": f"No: {KEY}"}
    cline_api.enqueue(Reply.ok(COMPLETION, error_shape=shape, **failing))  # type: ignore[arg-type]  # the mapping holds the options' types

    answer = traced.ask("stream")

    assert type(answer.raised) is openai.APIError
    known = "server_error" if shape == "bare" else code
    call = assert_one_call(traced.traces, attempts=1)
    assert call.status.status_code is StatusCode.ERROR
    assert attributes(call)["error.type"] == attributes(call)["cline.error.code"] == known
    assert attributes(call)["cline.error.phase"] == "mid_stream"
    assert attributes(call)["cline.stream.completed"] is False
    assert attributes(call)["cline.request_id"] == cline_api.requests[0].request_id
    assert_nothing_is_told(traced.traces, caplog)


def test_connections_that_always_break_are_a_call_for_each_request_of_the_sdk(
    mode: Mode, traced: Sdk, cline_api: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    cline_api.enqueue(*[Reply.reset()] * 20)

    traced.ask(mode)

    traces = traced.traces
    assert column(traces.calls, "cline.retry.count") == [3, 0, 0]
    assert column(traces.calls, "error.type") == ["connection_closed"] * 3
    assert column(traces.calls, "cline.error.phase") == ["connection"] * 3
    assert [span.status.status_code for span in traces.spans] == [StatusCode.ERROR] * 9
    assert column(traces.attempts, "http.request.resend_count") == [None, 1, 2, 3, None, None]
    assert column(traces.attempts, "cline.error.code") == ["connection_closed"] * 6
    first, second, third = traces.calls
    parents = [first.context] * 4 + [second.context, third.context]
    assert [span.parent for span in traces.attempts] == parents
    assert_nothing_is_told(traces, caplog)


def test_each_retry_and_each_failed_call_is_one_line_in_the_log(
    mode: Mode, traced: Sdk, cline_api: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    cline_api.enqueue(*[Reply.error(503)] * 9)

    traced.ask(mode)

    lines = [record for record in caplog.records if record.name == "cline_transport"]
    assert [record.levelno for record in lines] == [logging.INFO] * 3 + [logging.WARNING]
    ids = [one.request_id for one in cline_api.requests]
    for number, (record, wait) in enumerate(zip(lines[:3], traced.waits, strict=True)):
        assert f"retry {number + 1} of POST 127.0.0.1 in {wait:.2f} s: 503" in record.getMessage()
    for record, request_id in zip(lines, ids, strict=True):
        assert f"request ID {request_id}" in record.getMessage()
        assert "\n" not in record.getMessage()


def test_a_stream_that_the_caller_closes_ends_its_span_without_an_error(
    traced: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.ok("one two three"))

    answer = traced.ask("stream", on_chunk=lambda: False)

    assert len(answer.chunks) == 1
    call = assert_one_call(traced.traces, attempts=1)
    assert call.status.status_code is StatusCode.UNSET
    assert attributes(call)["cline.stream.completed"] is False


@pytest.mark.parametrize("colour", ["asyncio", "trio"], indirect=True)
def test_a_stream_that_is_cancelled_says_so(traced: Sdk, cline_api: Simulator) -> None:
    cline_api.enqueue(Reply.stream("one two", cut_after=1, then="stall"))

    async def cancel_in_the_stream() -> None:
        def cancel() -> bool:
            scope.cancel()
            return True

        assert isinstance(traced.client, openai.AsyncOpenAI)
        with anyio.CancelScope() as scope:
            await ask_async(traced.client, "stream", on_chunk=cancel)

    traced.colour.run(cancel_in_the_stream)

    call = assert_one_call(traced.traces, attempts=1)
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description == "cancelled"
    assert attributes(call)["error.type"] in ("CancelledError", "Cancelled")
    assert attributes(call)["cline.stream.completed"] is False
