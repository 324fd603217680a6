# SPDX-License-Identifier: Apache-2.0
"""Which instrumentation a call runs within; `tests/instrumentations` has the real ones."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation import instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from cline_transport._enclosing import recorded_around
from cline_transport._protocols import RequestHead

DURATION = "gen_ai.client.operation.duration"
TOKENS = "gen_ai.client.token.usage"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
SDK = {"x-stainless-lang": "python"}


def around(headers: dict[str, str] | None = None, *, stream: bool = False) -> set[str] | None:
    head = RequestHead("POST", "https", "h", None, "/", headers or {})
    found = recorded_around(head, stream=stream)
    return None if found is None else set(found)


@contextmanager
def span(
    attributes: dict[str, str] | None = None, *, sampler: Sampler = ALWAYS_ON, scope: str = "test"
) -> Generator[None, None, None]:
    tracer = TracerProvider(sampler=sampler).get_tracer(scope)
    with tracer.start_as_current_span("outer", attributes=attributes):
        yield


def test_nothing_is_around() -> None:
    assert around() is None


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"gen_ai.operation.name": "invoke_agent"},
        {"gen_ai.operation.name": "execute_tool"},
        {"openinference.span.kind": "CHAIN"},
    ],
)
def test_a_span_that_is_no_inference_is_not_around(attributes: dict[str, str]) -> None:
    with span(attributes):
        assert around() is None


@pytest.mark.parametrize("operation", ["chat", "text_completion", "generate_content"])
def test_an_inference_of_one_that_is_not_known_counts_nothing(operation: str) -> None:
    with span({"gen_ai.operation.name": operation}):
        assert around() == set()


@pytest.mark.parametrize("attributes", [None, ["chat"], "chat"])
def test_a_span_of_another_kind_is_not_around(attributes: Any) -> None:
    class Odd(trace.NonRecordingSpan):
        pass

    odd: Any = Odd(trace.SpanContext(1, 2, is_remote=False))
    odd.attributes = attributes
    with trace.use_span(odd):
        assert around(SDK) is None


def test_openllmetry_counts_no_raw_stream() -> None:
    with span({"gen_ai.operation.name": "chat"}, scope="opentelemetry.instrumentation.openai.v1"):
        raw = {**SDK, "x-stainless-raw-response": "true"}
        assert around(raw, stream=True) == set()
        assert around(raw) == around(SDK, stream=True) == {DURATION, TOKENS}


def test_openllmetry_without_its_metrics_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACELOOP_METRICS_ENABLED", "False")
    with span({"gen_ai.operation.name": "chat"}, scope="opentelemetry.instrumentation.openai.v1"):
        assert around(SDK) == set()


def test_openinference_counts_nothing() -> None:
    with span({"openinference.span.kind": "LLM", "gen_ai.operation.name": "chat"}):
        assert around() == set()


def test_opentelemetrys_own_counts_all_and_says_so_in_the_context() -> None:
    key = "opentelemetry.genai.client.inference.context"
    token = context.attach(context.set_value(key, object()))
    try:
        assert around() == {DURATION, TOKENS, FIRST_CHUNK}
    finally:
        context.detach(token)


def test_a_remote_parent_is_no_span_of_this_process() -> None:
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(remote)):
        assert around(SDK) is None


class Instrumentor(instrumentor.BaseInstrumentor):  # type: ignore[misc,name-defined]
    """As OpenLLMetry's is."""

    def instrumentation_dependencies(self) -> list[str]:
        return []

    def _instrument(self, **_: Any) -> None: ...

    def _uninstrument(self, **_: Any) -> None: ...


@pytest.fixture
def openllmetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Instrumentor]:
    module: Any = ModuleType("opentelemetry.instrumentation.openai")
    module.OpenAIInstrumentor = Instrumentor
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = Instrumentor()
    made.instrument()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()


def test_openllmetry_is_known_though_its_span_is_not_sampled(openllmetry: Instrumentor) -> None:
    with span(sampler=ALWAYS_OFF):
        assert around(SDK) == {DURATION, TOKENS}
        assert around() is None  # a request that is not the SDK's
        openllmetry.uninstrument()
        assert around(SDK) is None


def test_without_it_a_span_that_is_not_sampled_is_not_around() -> None:
    with span(sampler=ALWAYS_OFF):
        assert around(SDK) is None
