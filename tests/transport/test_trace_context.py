# SPDX-License-Identifier: Apache-2.0
"""What goes out with a request, whose child it is, and what is sampled, suppressed or left out."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation import httpx as instrumentation
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from cline_transport import Settings, TelemetrySettings
from cline_transport.simulator import Reply, Simulator

from .rig import CHAT, Rig
from .spans import attributes, check_three_attempts, key, three_attempts, traced
from .telling import told_metrics


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
