# SPDX-License-Identifier: Apache-2.0
"""What is told of the SDK's calls: answers to the questions of traces and metrics.

Each instrumentation is as it is when nothing is set, but for the recording of prompts and tools:
that is asked for as its documentation says where it is off.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import struct
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final
from unittest.mock import patch

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cline_transport.simulator import Reply, Simulator
from tests.benchmarks.work import named

from .callers import MODEL, Official, Ours
from .waits import WAITS

__all__ = ["TRACES", "Traced"]

INSTRUMENTORS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "OTel httpx": ("opentelemetry.instrumentation.httpx", "HTTPX2ClientInstrumentor"),
        "OTel genai": ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
        "OpenInference": ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
        "OpenLLMetry": ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
    }
)
SWITCHES: Final = {
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE": "x-request-id",
}
"""What has more told, of what is not told as it is."""

TEXT: Final = "answer-marker-81 two three"
PROMPT: Final = "prompt-marker-5f1c"
TOOL: Final = "tool-marker-9d2e"
REQUEST_ID: Final = "req_marker_4c7a"
COST: Final = 0.0625
INPUT, OUTPUT = 12, 3
"""The tokens of the prompt and of `TEXT`, as the simulator counts them."""
LONG: Final = 100_000.0


class Traced:
    """The SDK with one of them, and all that it told of a call."""

    def __init__(self, api: Simulator, contender: str) -> None:
        self.api = api
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        told = {"tracer_provider": self.provider, "meter_provider": meters}
        self.caller = Official() if contender in INSTRUMENTORS else Ours(**told)
        self.with_ours = Ours(tracer_provider=self.provider)
        """Its metrics are not those of the contender."""
        self.contender, self.told = contender, told
        self.raised = ""
        self.instrument()

    def instrument(self) -> None:
        """Put it around the SDK; anew, with the settings that there are now."""
        if self.contender in INSTRUMENTORS:
            instrumentor = named(*INSTRUMENTORS[self.contender])()
            if instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.uninstrument()
            instrumentor.instrument(**self.told)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Those that have ended."""
        return self.exporter.get_finished_spans()

    @property
    def outermost(self) -> ReadableSpan:
        """The call's span; where there is one for each attempt only, the last of them."""
        return [span for span in self.spans if span.parent is None][-1]

    @property
    def values(self) -> list[tuple[str, Any]]:
        """Every attribute of every span, and of its events."""
        things: list[Any] = [*self.spans, *(event for span in self.spans for event in span.events)]
        told: list[dict[str, Any]] = [dict(thing.attributes or {}) for thing in things]
        return [pair for attributes in told for pair in attributes.items()]

    def said(self, text: str) -> bool:
        """Whether a text is anywhere in what was told."""
        told = [*self.values, *((span.name, span.status.description) for span in self.spans)]
        return any(text in str(value) for _, value in told)

    def is_told(self, value: float | str) -> bool:
        """Whether something has this value, or the text of it."""
        return any(one in (value, str(value)) for _, one in self.values)

    @contextmanager
    def client(self, *replies: Reply) -> Generator[Any]:
        """A client whose calls get these replies."""
        WAITS.skip(LONG)
        self.api.reset()
        self.api.enqueue(*replies)
        self.exporter.clear()
        try:
            yield self.caller.client(self.api.base_url, self.api.api_key)
        finally:
            self.caller.close()

    def ask(self, *replies: Reply, stream: bool = True, **options: Any) -> None:
        """Make one call and read what comes, whatever it raises."""
        messages: Any = [{"role": "user", "content": PROMPT}]
        self.raised = ""
        with self.client(*replies) as client:
            create = client.chat.completions.create
            try:
                answer = create(model=MODEL, messages=messages, stream=stream, **options)
                for _ in answer if stream else ():
                    pass
            except named("openai", "OpenAIError"):
                pass
            except Exception as exc:  # noqa: BLE001 -- it is the instrumentation's
                self.raised = type(exc).__name__
        gc.collect()  # an instrumentation may end its span where its stream is forgotten


def _status(span: ReadableSpan) -> str:
    return "error" if span.status.status_code is StatusCode.ERROR else "no error"


def until_the_end(traced: Traced) -> str:
    messages: Any = [{"role": "user", "content": PROMPT}]
    with traced.client(Reply.stream(TEXT)) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        next(iter(chunks))
        begun = len([span for span in traced.spans if span.parent is None])
        for _ in chunks:
            pass
    ended = len([span for span in traced.spans if span.parent is None])
    assert ended == 1
    return "at the headers" if begun == ended else "with the stream"


def spans_of_a_retry(traced: Traced) -> str:
    traced.ask(Reply.error(429), Reply.ok(TEXT))
    outer = len([span for span in traced.spans if span.parent is None])
    inner = len(traced.spans) - outer
    assert len(traced.api.requests) == 2
    if inner:
        return f"{outer} call, {inner} attempts"
    return f"{outer} attempts" if outer == 2 else f"{outer} call"


def retries_told(traced: Traced) -> str:
    traced.ask(Reply.error(429), Reply.ok(TEXT))
    told = [
        name for name, value in traced.values
        if value == 1 and ("retry" in name or "resend" in name or "attempt" in name)
    ]  # fmt: skip
    return "yes" if told else "no"


def late_error(traced: Traced) -> str:
    return _after_words(traced)


def late_error_above_ours(traced: Traced) -> str:
    alone, traced.caller = traced.caller, traced.with_ours
    try:
        return _after_words(traced)
    finally:
        traced.caller = alone


def _after_words(traced: Traced) -> str:
    """The status of the span, and what the instrumentation adds to it."""
    traced.ask(Reply.ok(TEXT, error="rate_limit", error_after=2))
    status = _status(traced.outermost) if traced.spans else "no span"
    return f"{status}, and it raises `{traced.raised}`" if traced.raised else status


def late_code(traced: Traced) -> str:
    traced.ask(Reply.ok(TEXT, error="rate_limit", error_after=2))
    return "yes" if traced.said("rate_limit") else "no"


def truncated(traced: Traced) -> str:
    traced.ask(Reply.stream(TEXT, cut_after=2))
    return _status(traced.outermost)


def early_status(traced: Traced) -> str:
    traced.ask(Reply.error(402))
    return _status(traced.outermost)


def early_code(traced: Traced) -> str:
    traced.ask(Reply.error(402, code="budget_marker"))
    return "yes" if traced.said("budget_marker") else "no"


def request_id(traced: Traced) -> str:
    return _recorded(traced, lambda: traced.ask(Reply.ok(TEXT, request_id=REQUEST_ID)), REQUEST_ID)


def tokens(traced: Traced) -> str:
    traced.ask(Reply.ok(TEXT, usage=_usage()))
    return "yes" if traced.is_told(7001) and traced.is_told(7002) else "no"


def _usage() -> dict[str, object]:
    return {"prompt_tokens": 7001, "completion_tokens": 7002, "total_tokens": 14003}


def server_cost(traced: Traced) -> str:
    traced.ask(Reply.ok(TEXT, cost=COST))
    return "yes" if traced.is_told(COST) else "no"


def metrics(traced: Traced) -> str:
    traced.reader.get_metrics_data()
    traced.ask(Reply.error(429), Reply.ok(TEXT))
    data: Any = traced.reader.get_metrics_data()
    scopes = [
        scope for one in (data.resource_metrics if data else ()) for scope in one.scope_metrics
    ]
    names = {metric.name for scope in scopes for metric in scope.metrics}
    told = {
        "duration": any("duration" in name for name in names),
        "tokens": any("token" in name for name in names),
        "first chunk": any("first" in name for name in names),
        "retries": any("retries" in name for name in names),
        "cost": any("cost" in name for name in names),
    }
    return ", ".join(name for name, is_told in told.items() if is_told) or "none"


def _recorded(traced: Traced, call: Callable[[], object], *texts: str) -> str:
    """Whether these are told as it is, or once that is asked for."""

    def told() -> bool:
        call()
        return all(traced.said(text) for text in texts)

    if told():
        return "yes"
    with patch.dict(os.environ, SWITCHES):
        traced.instrument()
        found = told()
    traced.instrument()
    return "if asked for" if found else "no"


def prompts(traced: Traced) -> str:
    return _recorded(traced, lambda: traced.ask(Reply.ok(TEXT)), PROMPT, "answer-marker-81")


def tools(traced: Traced) -> str:
    function = {"name": TOOL, "arguments": '{"place": "arguments-marker"}'}
    called = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    document = {
        "id": "gen-1", "object": "chat.completion", "created": 0, "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": _usage(),
    }  # fmt: skip
    return _recorded(
        traced, lambda: traced.ask(_json(document), stream=False), TOOL, "arguments-marker"
    )


def embeddings(traced: Traced) -> str:
    vector = base64.b64encode(struct.pack("<2f", 0.25, 0.5)).decode()
    document = {
        "object": "list", "model": "embedder",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "usage": {"prompt_tokens": 7003, "total_tokens": 7003},
    }  # fmt: skip
    with traced.client(_json(document)) as client:
        client.embeddings.create(model="embedder", input=PROMPT)
    return "yes" if traced.is_told(7003) else "no"


def _json(document: object) -> Reply:
    headers = {"content-type": "application/json"}
    return Reply.raw(200, headers=headers, body=json.dumps(document).encode())


_ASKED: Final = (
    until_the_end, spans_of_a_retry, retries_told, late_error, late_error_above_ours, late_code,
    truncated, early_status, early_code, request_id, tokens, server_cost, metrics, prompts,
    tools, embeddings,
)  # fmt: skip
TRACES: Final[dict[str, Callable[[Traced], str]]] = {one.__name__: one for one in _ASKED}
