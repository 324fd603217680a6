# SPDX-License-Identifier: Apache-2.0
"""What holds within every instrumentation of the SDK: theirs is the inference, and ours is what
became of it on the wire. Every span is there once, and nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode

from cline_transport.simulator import Reply, Simulator
from tests.clients.support import MODEL, Connect, Mode, Sdk, messages

from .support import (
    DURATION,
    FIRST_CHUNK,
    SAMPLED,
    TOKENS,
    TRACEPARENT,
    Instrumentation,
    Told,
    column,
    context_of,
    unwrap_the_sdk,
)

TEXT: Final = "one two three"
GOOD: Final = Reply.ok(TEXT, cost=0.25, response_id="gen-1")
INPUT, OUTPUT = 12, 3
"""The tokens of the prompt and of `TEXT`, as the simulator counts them."""

streams: Final = pytest.mark.parametrize("mode", ["stream"], indirect=True)
"""What only a stream can do."""

unsampled: Final = pytest.mark.parametrize("sampler", [ALWAYS_OFF], ids=["unsampled"])
sampled_or_not: Final = pytest.mark.parametrize(
    "sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"]
)
beneath_what_is_no_inference: Final = pytest.mark.parametrize(
    "outer",
    [{}, {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}],
    ids=["beneath plain work", "beneath an agent"],
)


def application_span(told: Told, attributes: dict[str, Any]) -> AbstractContextManager[Any]:
    """A span of the application's own, of kind INTERNAL."""
    tracer = told.provider.get_tracer("application")
    return tracer.start_as_current_span("work", attributes=attributes)


def post(sdk: Sdk, api: Simulator, mode: Mode) -> None:
    """Make the call by the HTTP client itself, without the SDK."""
    body = {"model": MODEL, "messages": messages("Hello"), "stream": mode == "stream"}
    url, headers = f"{api.base_url}/chat/completions", {"authorization": f"Bearer {api.api_key}"}
    if sdk.colour.is_sync:
        response = sdk.http.post(url, json=body, headers=headers)
    else:
        response = sdk.colour.run(lambda: sdk.http.post(url, json=body, headers=headers))
    assert response.status_code == 200


def ask_while_reading(client: Any) -> None:
    """Ask a second time between the chunks of a stream."""
    question = {"model": MODEL, "messages": messages("Hello")}
    with client.chat.completions.create(**question, stream=True) as chunks:
        next(chunks)
        client.chat.completions.create(**question)
        for _ in chunks:
            pass


async def ask_while_reading_async(client: Any) -> None:
    """The same."""
    question = {"model": MODEL, "messages": messages("Hello")}
    async with await client.chat.completions.create(**question, stream=True) as chunks:
        await anext(chunks)
        await client.chat.completions.create(**question)
        async for _ in chunks:
            pass


def read_raw(client: Any, mode: Mode) -> None:
    """Ask by way of `with_raw_response`."""
    question = {"model": MODEL, "messages": messages("Hello"), "stream": mode == "stream"}
    answer = client.chat.completions.with_raw_response.create(**question).parse()
    if mode == "stream":
        with answer as chunks:
            for _ in chunks:
                pass


async def read_raw_async(client: Any, mode: Mode) -> None:
    """The same."""
    question = {"model": MODEL, "messages": messages("Hello"), "stream": mode == "stream"}
    answer = (await client.chat.completions.with_raw_response.create(**question)).parse()
    if mode == "stream":
        async with answer as chunks:
            async for _ in chunks:
                pass


def run(sdk: Sdk, sync: Callable[..., None], asynchronous: Callable[..., Any], *args: Any) -> None:
    """Call the one that is of the client's colour."""
    if sdk.colour.is_sync:
        sync(sdk.client, *args)
    else:
        sdk.colour.run(asynchronous, sdk.client, *args)


def assert_nested(
    told: Told, theirs: Instrumentation, *, attempts: int, parent: ReadableSpan | None = None
) -> tuple[ReadableSpan, ReadableSpan]:
    """Theirs, ours beneath it, one HTTP span for each attempt beneath ours; nothing else."""
    (inference,) = told.theirs
    (call,) = told.calls
    assert (inference.name, inference.kind) == (theirs.span, theirs.kind)
    assert inference.parent == (None if parent is None else parent.context)
    assert (call.name, call.kind) == (f"chat {MODEL}", SpanKind.INTERNAL)
    assert call.parent == inference.context
    assert [span.parent for span in told.attempts] == [call.context] * attempts
    assert [span.kind for span in told.attempts] == [SpanKind.CLIENT] * attempts
    assert len(told.spans) == 2 + attempts + len(told.application)
    assert told.ledger.started == told.ledger.ended == len(told.spans)
    assert len({context_of(span).trace_id for span in told.spans}) == 1
    return inference, call


def assert_ours_is_the_inference(told: Told, *, parent: ReadableSpan | None = None) -> None:
    """There is no instrumentation around: ours says all that there is to say."""
    assert told.theirs == []
    (call,) = told.calls
    (attempt,) = told.attempts
    assert (call.name, call.kind) == (f"chat {MODEL}", SpanKind.CLIENT)
    assert call.parent == (None if parent is None else parent.context)
    assert attempt.parent == call.context
    attributes = call.attributes or {}
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.usage.input_tokens"] == INPUT
    assert attributes["gen_ai.usage.output_tokens"] == OUTPUT
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 4


def assert_counted_once(told: Told, theirs: Instrumentation | None, mode: Mode) -> None:
    """Of a good call every metric, once, whoever records it; without `theirs`, we do."""

    def recorder(metric: str) -> str:
        return "ours" if theirs is None else theirs.recorder(metric)

    assert told.counted(DURATION) == [recorder(DURATION)]
    assert told.counted(FIRST_CHUNK) == ([recorder(FIRST_CHUNK)] if mode == "stream" else [])
    whose = recorder(TOKENS)
    assert told.tokens() == {"input": [(whose, INPUT)], "output": [(whose, OUTPUT)]}
    assert told.added("cline.client.cost") == {"ours": 0.25}


class Specification:
    """Subclassed for each instrumentation, whose module has a fixture `instrumentation`."""

    def test_a_good_call_is_nested_within_theirs(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        assert sdk.ask(mode).text == TEXT

        inference, call = assert_nested(told, instrumentation, attempts=1)
        assert inference.status.status_code is not StatusCode.ERROR
        assert call.status.status_code is StatusCode.UNSET
        (attempt,) = told.attempts
        where = context_of(attempt)
        (request,) = cline_api.requests
        # OpenLLMetry puts a header of its own into the SDK's call: ours replaces it.
        assert TRACEPARENT.fullmatch(request.headers["traceparent"])
        assert f"-{where.trace_id:032x}-{where.span_id:016x}-" in request.headers["traceparent"]

    def test_what_they_tell_of_the_inference_ours_does_not_repeat(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        sdk.ask(mode)

        (call,) = told.calls
        known = dict(call.attributes or {})
        if mode == "stream":
            assert known.pop("cline.stream.completed") is True
            assert known.pop("gen_ai.response.time_to_first_chunk") is not None
        # No `gen_ai.operation.name`, by which inferences are counted, and no `gen_ai.usage.*`.
        assert known == {
            "server.address": "127.0.0.1",
            "server.port": cline_api.port,
            "gen_ai.provider.name": "127.0.0.1",
            "gen_ai.request.model": MODEL,
            "gen_ai.request.stream": mode == "stream",
            "gen_ai.response.id": "gen-1",
            "gen_ai.response.model": MODEL,
            "gen_ai.response.finish_reasons": ("stop",),
            "cline.usage.cost": 0.25,
            "cline.request_id": cline_api.requests[0].request_id,
            "cline.retry.count": 0,
        }
        names = {"gen_ai.usage.input_tokens", instrumentation.input_tokens}
        assert [one for name in names for one in column(told.spans, name)] == [INPUT]

    def test_every_metric_is_recorded_once(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        sdk.ask(mode)

        assert_counted_once(told, instrumentation, mode)
        assert told.added("cline.client.retries") == {}

    @unsampled
    def test_unsampled_every_metric_is_recorded_once_too(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        assert sdk.ask(mode).text == TEXT

        assert told.spans == ()
        assert_counted_once(told, instrumentation, mode)
        (request,) = cline_api.requests
        header = TRACEPARENT.fullmatch(request.headers["traceparent"])
        assert header is not None
        # Bit 1 may be set: SDKs from 1.45 on say with it that the trace's ID is random.
        assert int(header["flags"], 16) & SAMPLED == 0

    def test_a_retry_is_a_second_http_span_beneath_ours(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(Reply.error(429), GOOD)

        assert sdk.ask(mode).text == TEXT

        inference, call = assert_nested(told, instrumentation, attempts=2)
        assert inference.status.status_code is not StatusCode.ERROR
        assert call.status.status_code is StatusCode.UNSET
        assert [span.status.status_code for span in told.attempts] == [
            StatusCode.ERROR,
            StatusCode.UNSET,
        ]
        assert column([call], "cline.retry.count") == [1]
        assert column(told.attempts, "http.request.resend_count") == [1]
        assert told.added("cline.client.retries") == {"ours": 1}
        assert_counted_once(told, instrumentation, mode)

    def test_a_call_that_fails_is_marked_on_every_span_and_counted_once(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(Reply.error(402))

        assert sdk.ask(mode).status_error.status_code == 402

        inference, call = assert_nested(told, instrumentation, attempts=1)
        assert inference.status.status_code is StatusCode.ERROR
        assert call.status.status_code is StatusCode.ERROR
        assert column([call], "error.type") == column([call], "cline.error.code") == ["402"]
        assert column([call], "cline.error.phase") == ["immediate"]
        assert told.counted(DURATION) == [instrumentation.recorder(DURATION)]
        assert told.counted(FIRST_CHUNK) == []
        assert told.tokens() == {}
        assert told.added("cline.client.cost") == {}

    @streams
    @sampled_or_not
    def test_a_stream_that_fails_after_content_is_counted_once(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(Reply.ok(TEXT, error="server_error", error_after=1))

        assert type(sdk.ask(mode).raised) is openai.APIError

        assert told.counted(DURATION) == [instrumentation.recorder(DURATION)]
        assert told.counted(FIRST_CHUNK) == [instrumentation.recorder(FIRST_CHUNK)]
        assert told.tokens() == {}, "the API reports none"

    @streams
    def test_a_stream_that_fails_after_content_is_an_error_on_ours(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(Reply.ok(TEXT, error="server_error", error_after=1))

        sdk.ask(mode)

        inference, call = assert_nested(told, instrumentation, attempts=1)
        assert call.status.status_code is StatusCode.ERROR
        assert column([call], "error.type") == ["server_error"]
        assert column([call], "cline.error.code") == ["server_error"]
        assert column([call], "cline.error.phase") == ["mid_stream"]
        assert column([call], "cline.stream.completed") == [False]
        self.assert_theirs_after_a_stream_error(inference)

    def assert_theirs_after_a_stream_error(self, inference: ReadableSpan) -> None:
        """What theirs shows of a stream that failed."""
        assert inference.status.status_code is StatusCode.ERROR

    @streams
    @sampled_or_not
    def test_a_stream_that_is_left_early_is_counted_once(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        assert len(sdk.ask(mode, on_chunk=lambda: False).chunks) == 1

        assert told.counted(DURATION) == [instrumentation.recorder(DURATION)]
        assert told.counted(FIRST_CHUNK) == [instrumentation.recorder(FIRST_CHUNK)]
        assert told.tokens() == {}

    def test_a_call_that_is_made_while_a_stream_is_read_is_its_own(
        self, instrumentation: Instrumentation, sdk: Sdk, told: Told, cline_api: Simulator
    ) -> None:
        cline_api.enqueue(GOOD, GOOD)

        run(sdk, ask_while_reading, ask_while_reading_async)

        assert [span.parent for span in told.theirs] == [None, None]
        theirs = {context_of(span).span_id for span in told.theirs}
        assert {span.parent.span_id for span in told.calls if span.parent} == theirs
        assert told.counted(DURATION) == [instrumentation.recorder(DURATION)] * 2

    def test_each_request_of_the_sdk_is_a_call_of_ours_beneath_one_of_theirs(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(*[Reply.reset()] * 6)

        assert isinstance(sdk.ask(mode).raised, openai.APIConnectionError)

        (inference,) = told.theirs
        assert inference.status.status_code is StatusCode.ERROR
        # The SDK asks three times; we retry the first of these, and let it see to the rest.
        assert column(told.calls, "cline.retry.count") == [3, 0, 0]
        assert [span.parent for span in told.calls] == [inference.context] * 3
        assert [span.kind for span in told.calls] == [SpanKind.INTERNAL] * 3
        whose = instrumentation.recorder(DURATION)
        assert told.counted(DURATION) == [whose] * (1 if whose == "theirs" else 3)
        assert told.added("cline.client.retries") == {"ours": 3}

    @sampled_or_not
    def test_of_a_raw_response_every_metric_is_recorded_once(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        """The way of frameworks that want the headers."""
        cline_api.enqueue(GOOD)

        run(sdk, read_raw, read_raw_async, mode)

        assert_counted_once(told, instrumentation, mode)
        if told.provider.sampler is ALWAYS_ON:
            assert_nested(told, instrumentation, attempts=1)

    @pytest.mark.parametrize("first", ["httpx is instrumented", "the client is made"])
    def test_where_the_application_instruments_httpx_no_http_span_is_doubled(
        self,
        first: str,
        instrumentation: Instrumentation,
        mode: Mode,
        instrumentor: Any,
        httpx_instrumentor: Any,
        connect: Connect,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(Reply.error(502), GOOD)
        if first == "httpx is instrumented":
            httpx_instrumentor.instrument()
            sdk = connect()
        else:
            sdk = connect()
            httpx_instrumentor.instrument()

        assert sdk.ask(mode).text == TEXT

        assert_nested(told, instrumentation, attempts=2)
        assert_counted_once(told, instrumentation, mode)

    @beneath_what_is_no_inference
    def test_an_application_span_is_above_theirs(
        self,
        outer: dict[str, Any],
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        with application_span(told, outer):
            sdk.ask(mode)

        (work,) = told.application
        assert_nested(told, instrumentation, attempts=1, parent=work)
        assert_counted_once(told, instrumentation, mode)

    @beneath_what_is_no_inference
    @sampled_or_not
    def test_without_the_instrumentation_ours_is_the_inference(
        self,
        outer: dict[str, Any],
        mode: Mode,
        connect: Connect,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)
        sdk = connect()

        with application_span(told, outer):
            sdk.ask(mode)

        assert_counted_once(told, None, mode)
        if told.provider.sampler is ALWAYS_ON:
            (work,) = told.application
            assert_ours_is_the_inference(told, parent=work)

    @beneath_what_is_no_inference
    @sampled_or_not
    def test_of_a_call_that_the_sdk_does_not_make_ours_is_the_inference(
        self,
        outer: dict[str, Any],
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        with application_span(told, outer):
            post(sdk, cline_api, mode)

        assert_counted_once(told, None, mode)
        if told.provider.sampler is ALWAYS_ON:
            (work,) = told.application
            assert_ours_is_the_inference(told, parent=work)

    @sampled_or_not
    def test_uninstrumented_ours_is_the_inference_again(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        instrumentor: Any,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD, GOOD)
        sdk.ask(mode)
        assert_counted_once(told, instrumentation, mode)
        told.exporter.clear()

        self.uninstrument(instrumentor)
        sdk.ask(mode)

        if told.provider.sampler is ALWAYS_ON:
            assert_ours_is_the_inference(told)
        assert told.counted(DURATION) == sorted([instrumentation.recorder(DURATION), "ours"])
        if mode == "stream":
            first = instrumentation.recorder(FIRST_CHUNK)
            assert told.counted(FIRST_CHUNK) == sorted([first, "ours"])
        whose = {instrumentation.recorder(TOKENS), "ours"}
        counts = told.tokens()
        assert {who for of_type in counts.values() for who, _ in of_type} == whose
        assert {name: sum(many for _, many in counts[name]) for name in counts} == {
            "input": 2 * INPUT,
            "output": 2 * OUTPUT,
        }

    def uninstrument(self, instrumentor: Any) -> None:
        instrumentor.uninstrument()
        assert unwrap_the_sdk() == []
