# SPDX-License-Identifier: Apache-2.0
"""Telemetry that fails never fails a call, and sends nothing twice."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import Aggregation, View
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig
from .telling import told_metrics


def traced(rig: Rig) -> Any:
    return rig.client(rig.transport(traced=True))


def recovers(rig: Rig, api: Simulator, url: str) -> None:
    """A call that is retried once: the usual bytes come out, after two requests."""
    api.enqueue(Reply.error(503), Reply.stream("fine"))
    answer = traced(rig).post(url, json=CHAT)
    assert answer.status == 200
    assert b"fine" in answer.body
    assert b"[DONE]" in answer.body
    assert len(api.requests) == 2


def fails(rig: Rig, api: Simulator, url: str) -> None:
    """A call that fails: in the documented format, after one request."""
    before = len(api.requests)
    api.enqueue(Reply.error(400, message="Too long"))
    answer = traced(rig).post(url, json=CHAT)
    assert (answer.status, answer.json()["error"]["message"]) == (400, "Too long")
    assert len(api.requests) == before + 1


class Raising(SpanProcessor):
    """A processor that fails, at the start or at the end of a span."""

    def __init__(self, when: str, name: str) -> None:
        self._when, self._name = when, name

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self._when == "start" and span.name == self._name:
            raise RuntimeError("processor")

    def on_end(self, span: ReadableSpan) -> None:
        if self._when == "end" and span.name == self._name:
            raise RuntimeError("processor")


@pytest.mark.parametrize("when", ["start", "end"])
@pytest.mark.parametrize("name", ["chat cline/ok", "POST"])
def test_a_processor(rig: Rig, api: Simulator, url: str, when: str, name: str) -> None:
    rig.provider = TracerProvider()
    rig.provider.add_span_processor(Raising(when, name))
    rig.provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    recovers(rig, api, url)
    fails(rig, api, url)
    # What has nothing to do with the failure is told as ever.
    durations = [p for p in told_metrics(rig) if p[1] == "gen_ai.client.operation.duration"]
    assert len(durations) == 2
    rig.provider.shutdown()


class RaisingExporter(SpanExporter):
    def export(self, spans: Any) -> Any:
        raise RuntimeError("exporter")


def test_an_exporter(rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture) -> None:
    rig.provider = TracerProvider()
    rig.provider.add_span_processor(SimpleSpanProcessor(RaisingExporter()))
    with caplog.at_level(logging.CRITICAL, "opentelemetry"):
        recovers(rig, api, url)
        fails(rig, api, url)
        rig.provider.shutdown()


class RaisingSampler(Sampler):
    """Fails for the call's span, or for those of the attempts."""

    def __init__(self, name: str) -> None:
        self._name = name

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any
    ) -> Any:
        if name == self._name:
            raise RuntimeError("sampler")

        return ALWAYS_ON.should_sample(parent_context, trace_id, name)

    def get_description(self) -> str:
        return "raising"


@pytest.mark.parametrize("name", ["chat cline/ok", "POST"])
def test_a_sampler(rig: Rig, api: Simulator, url: str, name: str) -> None:
    rig.provider.sampler = RaisingSampler(name)
    recovers(rig, api, url)
    fails(rig, api, url)


class Odd:
    """A provider, or what it makes, that is none of the SDK's: it fails where it is told to."""

    def __init__(self, fails: str) -> None:
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        if name == self._fails:
            raise RuntimeError(name)

        def made(*_: Any, **__: Any) -> Any:
            return None if self._fails == "none" else self

        return made


@pytest.mark.parametrize(
    "where", ["get_tracer", "start_span", "get_span_context", "is_recording", "none"]
)
def test_a_tracer(rig: Rig, api: Simulator, url: str, where: str) -> None:
    rig.provider = Odd(where)  # type: ignore[assignment]
    recovers(rig, api, url)
    fails(rig, api, url)


@pytest.mark.parametrize("where", ["get_meter", "create_histogram", "record", "add"])
def test_a_meter(rig: Rig, api: Simulator, url: str, where: str) -> None:
    rig.meter_provider = Odd(where)  # type: ignore[assignment]
    recovers(rig, api, url)
    fails(rig, api, url)


def test_a_stand_in_for_the_global_provider_is_the_global_provider(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans, rig.provider = rig.provider, trace.ProxyTracerProvider()  # type: ignore[assignment]
    transport = rig.transport(traced=True)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans)  # set up later
    api.enqueue(Reply.completion("fine"))
    rig.client(transport).post(url, json=CHAT)
    assert len(rig.finished()[0]) == 1
    rig.provider = spans


class RaisingAggregation(Aggregation):
    def _create_aggregation(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("aggregation")


@pytest.mark.parametrize("kind", [Counter, Histogram])
def test_a_view(rig: Rig, api: Simulator, url: str, kind: type) -> None:
    view = View(instrument_type=kind, aggregation=RaisingAggregation())
    rig.meter_provider = MeterProvider(metric_readers=[InMemoryMetricReader()], views=[view])
    recovers(rig, api, url)
    fails(rig, api, url)
    assert len(rig.finished()[0]) == 2
    rig.meter_provider.shutdown()


class RaisingLogs(LogRecordProcessor):
    def on_emit(self, log_record: Any) -> None:
        raise RuntimeError("logs")

    def shutdown(self) -> None:
        """Nothing to end."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def test_a_log_processor(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs")
    rig.logger_provider = LoggerProvider()
    rig.logger_provider.add_log_record_processor(RaisingLogs())
    recovers(rig, api, url)
    fails(rig, api, url)
    assert len(rig.finished()[0]) == 2


class RaisingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("handler")


def test_a_log_handler(rig: Rig, api: Simulator, url: str) -> None:
    logger, handler = logging.getLogger("cline_transport"), RaisingHandler(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        recovers(rig, api, url)
        fails(rig, api, url)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert len(rig.finished()[0]) == 2


@pytest.mark.parametrize("which", ["request_hook", "response_hook"])
def test_a_hook(rig: Rig, api: Simulator, url: str, instrumentor: Any, which: str) -> None:
    def hook(*_: Any) -> None:
        raise RuntimeError("hook")

    async def async_hook(*_: Any) -> None:
        raise RuntimeError("hook")

    hooks = {which: hook, f"async_{which}": async_hook}
    instrumentor.instrument(tracer_provider=rig.provider, **hooks)
    client = traced(rig)
    api.enqueue(Reply.error(503), Reply.completion("fine"), Reply.close(), Reply.completion("fine"))
    with rig.provider.get_tracer("application").start_as_current_span("outer"):
        assert client.post(url, json=CHAT).status == 200
        assert len(api.requests) == 2
        assert client.post(url, json=CHAT).status == 200
        assert len(api.requests) == 4
    [outer] = [s for s in rig.spans.get_finished_spans() if s.name == "outer"]
    assert dict(outer.attributes or {}) == {}


def test_a_provider_that_is_shut_down_during_a_call(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    gate.release(2)
    api.enqueue(Reply.error(503), Reply.stream("one two", gate=gate))
    client = traced(rig)
    response = client.open("POST", url, json=CHAT)
    with caplog.at_level(logging.CRITICAL, "opentelemetry"):
        rig.provider.shutdown()
        rig.meter_provider.shutdown()
        rig.logger_provider.shutdown()
        gate.release(20)
        body = b"".join(client.chunks(response))
        client.close(response)
        fails(rig, api, url)
    assert b"two" in body
    assert b"[DONE]" in body


def test_all_of_it_at_once(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    transport = rig.transport(traced=True)
    telemetry = transport._loop._telemetry
    for part in ("_tracer", "metrics", "events"):
        monkeypatch.setattr(telemetry, part, object())
    api.enqueue(Reply.error(503), Reply.stream("fine"), Reply.error(400))
    client = rig.client(transport)
    assert client.post(url, json=CHAT).status == 200
    assert client.post(url, json=CHAT).status == 400
    assert len(api.requests) == 3
