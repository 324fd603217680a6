# SPDX-License-Identifier: Apache-2.0
"""One span for a call, one HTTP span for each attempt, at home in the traces people have."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation import httpx as instrumentation
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from wrapt import FunctionWrapper

from cline_transport import RetryPolicy, Settings, StreamSettings, TelemetrySettings, attach
from cline_transport.simulator import Gate, Reply, Simulator

from .conftest import CHAT, Rig, unread
from .telling import told_metrics


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def status_of(http_span: ReadableSpan) -> Any:
    found = attributes(http_span)
    return found.get("http.response.status_code", found.get("http.status_code"))


def assert_nested(call: ReadableSpan, attempts: list[ReadableSpan]) -> None:
    for span in [call, *attempts]:
        assert span.end_time is not None
    for span in attempts:
        assert span.parent is not None
        assert span.context is not None
        assert call.context is not None
        assert span.parent.span_id == call.context.span_id
        assert span.context.trace_id == call.context.trace_id
        assert span.kind is SpanKind.CLIENT


def traced(rig: Rig, settings: Settings | None = None, inner: Any = None) -> Any:
    return rig.client(rig.transport(inner, settings=settings, traced=True))


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


def key(api: Simulator) -> dict[str, str]:
    return {"authorization": f"Bearer {api.api_key}"}


def test_a_call_without_a_model_is_still_a_chat(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.completion("x"))
    traced(rig).post(url, content=b"{}")
    [call], _ = rig.finished()
    assert call.name == "chat"


def test_neither_key_nor_prompt_nor_completion_is_told(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.enqueue(
        Reply.error(503, message="key SECRET-KEY-123 is over its limit"),
        Reply.stream("COMPLETION text", error="server_error", error_message="SECRET-KEY-123 bad"),
    )
    with caplog.at_level(logging.DEBUG, "cline_transport"):
        traced(rig).post(
            f"{url}?q=QUERY",
            json={**CHAT, "messages": [{"role": "user", "content": "PROMPT"}]},
            headers={"authorization": "Bearer SECRET-KEY-123"},
        )
    told = "".join(str(s.to_json()) for s in rig.spans.get_finished_spans()) + caplog.text
    for secret in ("SECRET-KEY-123", "PROMPT", "COMPLETION"):
        assert secret not in told
    assert "[redacted] bad" in told


# --- the log ---


def test_a_retry_and_a_failure_are_a_line_each(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.enqueue(Reply.error(500, request_id="req_1"), Reply.error(500, request_id="req_2"))
    with caplog.at_level(logging.INFO, "cline_transport"):
        rig.client().post(url, json=CHAT)
    ours = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "cline_transport"]
    assert ours == [
        ("INFO", "retry 1 of POST 127.0.0.1 in 1.00 s: 500 (request ID req_1)"),
        (
            "WARNING",
            "POST 127.0.0.1 failed after 2 attempt(s): 500: Server-side issue "
            "(request ID req_2, immediate, not retried: exhausted)",
        ),
    ]


# --- at home in other people's traces ---


def three_attempts(api: Simulator) -> None:
    api.enqueue(
        Reply.error(503, code="overloaded"), Reply.error(502), Reply.stream("Hi", request_id="r3")
    )


def check_three_attempts(rig: Rig) -> None:
    [call], attempts = rig.finished()
    assert [status_of(span) for span in attempts] == [503, 502, 200]
    assert_nested(call, attempts)
    assert [attributes(a).get("cline.error.code") for a in attempts] == ["overloaded", "502", None]
    assert attributes(attempts[-1])["cline.request_id"] == "r3"
    assert attributes(call)["cline.retry.count"] == 2
    rig.spans.clear()


def test_an_application_that_instrumented_before_keeps_its_spans(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    client = traced(rig)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_so_does_one_that_instruments_after_and_one_that_stops(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    client = traced(rig)
    instrumentor.instrument(tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    instrumentor.uninstrument()
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_its_hooks_are_called_for_each_attempt(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    seen: list[int] = []

    def hook(span: Span, request: Any, response: Any) -> None:
        seen.append(response.status_code)

    async def async_hook(span: Span, request: Any, response: Any) -> None:
        hook(span, request, response)

    instrumentor.instrument(
        tracer_provider=rig.provider, response_hook=hook, async_response_hook=async_hook
    )
    three_attempts(api)
    traced(rig).post(url, json=CHAT)
    assert seen == [503, 502, 200]


def test_one_client_that_was_instrumented_before_keeps_its_spans(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    plain = rig.plain()
    instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
    plain.raw._transport = rig.transport(plain.raw._transport, traced=True)
    three_attempts(api)
    plain.post(url, json=CHAT)
    check_three_attempts(rig)


def test_one_client_that_is_instrumented_after_has_its_spans_at_the_attempts(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    client = traced(rig)
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    instrumentor.uninstrument_client(client.raw)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_both_global_and_client_instrumentation_make_one_span(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    client = traced(rig)
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_a_transport_of_opentelemetrys_beneath_keeps_its_spans(
    rig: Rig, api: Simulator, url: str
) -> None:
    name = ("Sync" if rig.is_sync else "Async") + "OpenTelemetryTransport"
    suffix = {"httpx": "", "httpx2": "Httpx2"}[rig.family]
    wrapped = getattr(instrumentation, name + suffix)(rig.inner(), tracer_provider=rig.provider)
    three_attempts(api)
    traced(rig, inner=wrapped).post(url, json=CHAT)
    check_three_attempts(rig)


def test_an_instrumented_transport_further_down_is_not_doubled(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    three_attempts(api)
    traced(rig, inner=passing_on(rig)).post(url, json=CHAT)
    check_three_attempts(rig)


def passing_on(rig: Rig) -> Any:
    """A transport of the application's own around a plain one."""
    inner = rig.inner()
    if rig.is_sync:

        class Passing(rig.library.BaseTransport):  # type: ignore[misc,name-defined]
            def handle_request(self, request: Any) -> Any:
                return inner.handle_request(request)

            def close(self) -> None:
                inner.close()

        return Passing()

    class AsyncPassing(rig.library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(request)

        async def aclose(self) -> None:
            await inner.aclose()

    return AsyncPassing()


@pytest.mark.parametrize("how", ["patched", "uninstrumented"])
def test_one_of_opentelemetrys_with_a_method_of_its_own_sends_once(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, how: str
) -> None:
    name = ("Sync" if rig.is_sync else "Async") + "OpenTelemetryTransport"
    name += {"httpx": "", "httpx2": "Httpx2"}[rig.family]
    wrapped = getattr(instrumentation, name)(rig.inner(), tracer_provider=rig.provider)
    plain = rig.client(wrapped)
    if how == "uninstrumented":
        instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
        instrumentor.uninstrument_client(plain.raw)
    else:
        method = "handle_request" if rig.is_sync else "handle_async_request"
        setattr(wrapped, method, getattr(wrapped, method))
    attach(plain.raw, tracer_provider=rig.provider)
    api.enqueue(Reply.completion("first"), Reply.completion("second"))
    answer = plain.post(url, json=CHAT)
    assert b"first" in answer.body
    assert len(api.requests) == len(answer.record.attempts) == 1


def test_an_answer_that_never_came_to_us_is_the_answer(rig: Rig, url: str) -> None:
    def handler(_: Any) -> Any:
        raise AssertionError("it is not asked")

    transport = rig.transport(rig.library.MockTransport(handler), traced=True)
    content = {"choices": [{"finish_reason": "stop"}], "id": "gen-1"}

    def answered(*_: Any) -> Any:
        return rig.library.Response(200, json=content)

    async def answered_later(*_: Any) -> Any:
        return answered()

    transport._loop.spans._own = answered if rig.is_sync else answered_later
    answer = rig.client(transport).post(url, json=CHAT)
    assert answer.json() == content
    assert len(answer.record.attempts) == 1


def test_another_patch_of_the_method_is_left_alone(rig: Rig, api: Simulator, url: str) -> None:
    calls: list[str] = []

    def note(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append("call")
        return wrapped(*args, **kwargs)

    transport = rig.transport(traced=True)
    method = "handle_request" if rig.is_sync else "handle_async_request"
    setattr(transport, method, FunctionWrapper(getattr(transport, method), note))
    three_attempts(api)
    rig.client(transport).post(url, json=CHAT)
    check_three_attempts(rig)
    assert calls == ["call"]


def test_the_trace_goes_out_once_per_attempt_with_the_attempt_as_parent(
    rig: Rig, api: Simulator, url: str
) -> None:
    three_attempts(api)
    traced(rig).post(url, json=CHAT)
    _, attempts = rig.finished()
    sent = [r.headers["traceparent"].split("-")[2] for r in api.requests]
    assert sent == [f"{a.context.span_id:016x}" for a in attempts if a.context]


def test_the_call_belongs_to_the_span_around_it(rig: Rig, api: Simulator, url: str) -> None:
    tracer = rig.provider.get_tracer("application")
    with tracer.start_as_current_span("outer") as outer:
        traced(rig).post(url, json=CHAT, headers=key(api))
    [call], _ = rig.finished()
    assert call.parent is not None
    assert call.parent.span_id == outer.get_span_context().span_id


def test_suppressed_instrumentation_is_suppressed(rig: Rig, api: Simulator, url: str) -> None:
    client = traced(rig)
    with suppress_instrumentation():
        assert client.post(url, json=CHAT, headers=key(api)).status == 200
    assert rig.spans.get_finished_spans() == ()


def test_excluded_urls_have_no_http_span_and_the_call_stays_unmarked(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "chat")
    api.enqueue(Reply.error(503), Reply.completion("fine"))
    traced(rig).post(url, json=CHAT)
    [call], attempts = rig.finished()
    assert attempts == []
    assert "http.request.resend_count" not in attributes(call)
    assert call.context is not None
    sent = {r.headers["traceparent"].split("-")[2] for r in api.requests}
    assert sent == {f"{call.context.span_id:016x}"}


def test_attempt_spans_can_be_switched_off(rig: Rig, api: Simulator, url: str) -> None:
    three_attempts(api)
    settings = Settings(telemetry=TelemetrySettings(attempt_spans=False))
    traced(rig, settings).post(url, json=CHAT)
    [call], attempts = rig.finished()
    assert attempts == []
    assert attributes(call)["cline.retry.count"] == 2
    assert call.context is not None
    sent = {r.headers["traceparent"].split("-")[2] for r in api.requests}
    assert sent == {f"{call.context.span_id:016x}"}  # the trace goes on all the same


def test_an_application_that_instruments_keeps_its_spans_in_the_trace(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    three_attempts(api)
    settings = Settings(telemetry=TelemetrySettings(attempt_spans=False))
    traced(rig, settings).post(url, json=CHAT)
    check_three_attempts(rig)


def test_telemetry_can_be_switched_off(rig: Rig, api: Simulator, url: str) -> None:
    three_attempts(api)
    settings = Settings(telemetry=TelemetrySettings(enabled=False))
    with rig.provider.get_tracer("application").start_as_current_span("outer"):
        assert traced(rig, settings).post(url, json=CHAT).status == 200
    [outer] = rig.spans.get_finished_spans()
    assert attributes(outer) == {}


@pytest.mark.parametrize("metered", [True, False])
def test_an_unsampled_call_still_sends_its_trace(
    rig: Rig, api: Simulator, url: str, *, metered: bool
) -> None:
    rig.provider.sampler = ALWAYS_OFF
    if not metered:
        rig.meter_provider = NoOpMeterProvider()  # type: ignore[assignment]
    api.enqueue(Reply.completion("x"))
    traced(rig).post(url, json=CHAT)
    assert rig.spans.get_finished_spans() == ()
    assert api.requests[0].headers["traceparent"].endswith(("-00", "-02"))  # 02: a random ID


@pytest.mark.parametrize("how", ["ours", "globally", "one client", "its transport"])
def test_an_unsampled_call_is_counted_by_those_who_count(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, how: str
) -> None:
    rig.provider.sampler = ALWAYS_OFF
    options: dict[str, Any] = {
        "tracer_provider": rig.provider,
        "meter_provider": rig.meter_provider,
    }
    counting, inner = rig.meter_provider, rig.inner()
    if how != "ours":
        rig.meter_provider = NoOpMeterProvider()  # type: ignore[assignment]
    if how == "globally":
        instrumentor.instrument(**options)
    if how == "its transport":
        name = ("Sync" if rig.is_sync else "Async") + "OpenTelemetryTransport"
        name += {"httpx": "", "httpx2": "Httpx2"}[rig.family]
        inner = getattr(instrumentation, name)(inner, **options)
    client = traced(rig, inner=inner)
    if how == "one client":
        instrumentor.instrument_client(client.raw, **options)
    rig.meter_provider = counting
    api.enqueue(Reply.completion("x"))
    client.post(url, json=CHAT)
    assert [name for scope, name, *_ in told_metrics(rig) if scope == "http"] == [
        "http.client.duration"
    ]


def test_baggage_goes_out_with_each_attempt(rig: Rig, api: Simulator, url: str) -> None:
    three_attempts(api)
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        traced(rig).post(url, json=CHAT)
    finally:
        context.detach(token)
    assert [r.headers["baggage"] for r in api.requests] == ["tenant=acme"] * 3


def test_a_sampler_knows_what_is_called(rig: Rig, api: Simulator, url: str) -> None:
    seen: list[dict[str, Any]] = []

    class Choosing(Sampler):
        def should_sample(
            self, parent_context: Any, trace_id: int, name: str, *more: Any, **_: Any
        ) -> Any:
            seen.append({"name": name, **dict(more[1] or {})})
            return ALWAYS_ON.should_sample(parent_context, trace_id, name)

        def get_description(self) -> str:
            return "choosing"

    rig.provider.sampler = Choosing()
    api.enqueue(Reply.completion("x"))
    traced(rig).post(url, json=CHAT)
    assert seen[0] == {
        "name": "chat cline/ok",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.request.model": "cline/ok",
        "server.address": "127.0.0.1",
        "server.port": api.port,
    }


# --- an application's instrumentation is never lost ---


@pytest.mark.parametrize(
    "settings",
    [
        Settings(enabled=False),
        Settings(telemetry=TelemetrySettings(enabled=False)),
        Settings(telemetry=TelemetrySettings(attempt_spans=False)),
        None,  # and no OpenTelemetry SDK for us
    ],
    ids=["disabled", "telemetry off", "attempt spans off", "no SDK"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_client_that_the_application_instrumented_keeps_its_span(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, settings: Settings | None, when: str
) -> None:
    plain = rig.plain()
    api.enqueue(Reply.completion("a"))
    if when == "before":
        instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
    attach(plain.raw, settings=settings)
    if when == "after":
        instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
    with rig.provider.get_tracer("application").start_as_current_span("outer") as outer:
        plain.post(url, json=CHAT)
    _, [attempt, _] = rig.finished()
    assert attempt.name == "POST"
    assert attempt.parent is not None
    if settings is not None:
        assert attempt.parent.span_id == outer.get_span_context().span_id
    rig.spans.clear()
    instrumentor.uninstrument_client(plain.raw)
    api.enqueue(Reply.completion("a"))
    plain.post(url, json=CHAT)
    assert rig.spans.get_finished_spans() == ()


def test_a_mock_that_was_instrumented_can_be_attached_to(rig: Rig, instrumentor: Any) -> None:
    def handler(_: Any) -> Any:
        return rig.library.Response(204)

    client = rig.client(rig.library.MockTransport(handler))
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    attach(client.raw)
    assert client.request("GET", "http://127.0.0.1/").status == 204
    assert len(rig.spans.get_finished_spans()) == 1


def test_another_patch_beneath_the_instrumentation_stays(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    calls: list[str] = []

    def note(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append("call")
        return wrapped(*args, **kwargs)

    method = "handle_request" if rig.is_sync else "handle_async_request"
    client = traced(rig)
    transport = client.raw._transport
    setattr(transport, method, FunctionWrapper(getattr(transport, method), note))
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    instrumentor.uninstrument_client(client.raw)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    assert calls == ["call", "call"]


def test_an_interruption_in_a_hook_leaves_no_connection_checked_out(
    sync_rig: Rig, api: Simulator, url: str
) -> None:
    def hook(*_: Any) -> None:
        raise KeyboardInterrupt

    inner = sync_rig.inner()
    client = traced(sync_rig, inner=inner)
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
    instrument = getattr(instrumentation, kind[sync_rig.family]).instrument_client
    instrument(client.raw, tracer_provider=sync_rig.provider, response_hook=hook)
    api.enqueue(Reply.stream("a b", gate=Gate(2)))
    with pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert inner._pool.connections == []


@unread
def test_a_cancellation_in_a_hook_leaves_none_either(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    scopes: list[anyio.CancelScope] = []

    async def hook(*_: Any) -> None:
        scopes[0].cancel()
        await anyio.lowlevel.checkpoint()

    inner = async_rig.inner()
    client = traced(async_rig, inner=inner)
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
    instrument = getattr(instrumentation, kind[async_rig.family]).instrument_client
    instrument(client.raw, tracer_provider=async_rig.provider, response_hook=hook)
    api.enqueue(Reply.stream("a b", gate=Gate(2)))

    async def go() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await client.raw.post(url, json=CHAT)

    client.run(go)
    assert [c for c in inner._pool.connections if not c.is_idle()] == []


def test_what_a_server_writes_is_made_fit_for_a_log_and_an_exporter(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "SECRET-KEY-123"
    body = json.dumps(
        {"error": {"code": f"{secret}\nWARNING forged {'A' * 9000}", "message": f"\ud83d {secret}"}}
    )
    api.enqueue(Reply.raw(400, headers=[("content-type", "application/json")], body=body.encode()))
    with caplog.at_level(logging.DEBUG, "cline_transport"):
        answer = traced(rig).post(
            url,
            content=b'{"model": "m\\ud83d"}',
            headers={"api-key": secret, "authorization": "Bearer other-key"},
        )
    [call], [attempt] = rig.finished()
    info = answer.record.error
    assert info is not None
    told = caplog.text + str(call.to_json()) + str(attempt.to_json()) + info.report()
    assert secret not in told
    for record in caplog.records:
        assert len(record.getMessage()) < 2000
        assert "\n" not in record.getMessage()
    for text in (call.name, call.status.description or "", str(attributes(call))):
        text.encode()
    assert attributes(call)["error.type"] == "_OTHER"


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
