# SPDX-License-Identifier: Apache-2.0
"""An instrumentation of the SDK, and everything that was told of a call: by it and by us."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanContext, SpanKind
from wrapt import FunctionWrapper

from tests.clients.support import Traces

DURATION: Final = "gen_ai.client.operation.duration"
FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
TOKENS: Final = "gen_ai.client.token.usage"

OURS: Final = "cline_transport"
SAMPLED: Final = 0x01
TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})")


@dataclass(frozen=True, kw_only=True)
class Instrumentation:
    """One instrumentation of the SDK, as it is.

    Attributes:
        group: The dependency group that installs it.
        module: Its module.
        span: The name of its span.
        kind: The kind of its span.
        records: Which of the conventions' metrics it records; the others are ours.
        input_tokens: The attribute of its span that counts the tokens of the prompt.
    """

    group: str
    module: str
    span: str
    kind: SpanKind
    records: frozenset[str]
    input_tokens: str

    def skip_unless_installed(self) -> None:
        """Skip the module that calls it, and say how to run it."""
        command = (
            "uv run --no-default-groups --group test --group openai3 "
            f"--group {self.group} -- python -m pytest tests/instrumentations"
        )
        pytest.importorskip(self.module, reason=f"{self.module} is not installed here: {command}")

    def instrumentor(self) -> Any:
        return import_module(self.module).OpenAIInstrumentor()

    def recorder(self, metric: str) -> str:
        """Who records a metric of a call."""
        return "theirs" if metric in self.records else "ours"


class Told(Traces):
    """Traces and metrics of the instrumentation and of the transport together."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.provider.sampler = sampler
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(
            [self.reader], resource=Resource.get_empty(), shutdown_on_exit=False
        )

    @property
    def theirs(self) -> list[ReadableSpan]:
        """The spans of the instrumentation of the SDK."""
        others = {_key(span) for span in (*self.calls, *self.attempts, *self.application)}
        return [span for span in self.spans if _key(span) not in others]

    @property
    def application(self) -> list[ReadableSpan]:
        """The application's own spans."""
        return [span for span in self.spans if scope(span) == "application"]

    def counted(self, metric: str) -> list[str]:
        """Who recorded it, once for each time."""
        return sorted(
            whose for whose, point in self._points(metric) for _ in range(int(point.count))
        )

    def tokens(self) -> dict[str, list[tuple[str, int]]]:
        """Of each type of token: who counted how many."""
        found: dict[str, list[tuple[str, int]]] = {}
        for whose, point in self._points(TOKENS):
            kind = str(point.attributes["gen_ai.token.type"])
            found.setdefault(kind, []).append((whose, point.sum))
        return found

    def added(self, metric: str) -> dict[str, float]:
        """Who added how much to a counter."""
        found: Counter[str] = Counter()
        for whose, point in self._points(metric):
            found[whose] += point.value
        return dict(found)

    def _points(self, metric: str) -> Iterator[tuple[str, Any]]:
        data: Any = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scoped in resource.scope_metrics:
                whose = "ours" if scoped.scope.name == OURS else "theirs"
                for one in scoped.metrics:
                    if one.name == metric:
                        yield from ((whose, point) for point in one.data.data_points)


def scope(span: ReadableSpan) -> str:
    assert span.instrumentation_scope is not None
    return span.instrumentation_scope.name


def context_of(span: ReadableSpan) -> SpanContext:
    context: SpanContext | None = span.context
    assert context is not None
    return context


def _key(span: ReadableSpan) -> int:
    return context_of(span).span_id


def column(spans: tuple[ReadableSpan, ...] | list[ReadableSpan], name: str) -> list[Any]:
    """An attribute, of those spans that have it."""
    return [span.attributes[name] for span in spans if span.attributes and name in span.attributes]


def _is_wrapper(method: object) -> bool:
    return isinstance(method, FunctionWrapper)


def unwrap_the_sdk() -> list[str]:
    """Take off whatever an instrumentation left on the SDK; the methods it was left on."""
    left: list[str] = []
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("openai.resources."):
            continue
        for kind in list(vars(module).values()):
            if not isinstance(kind, type) or kind.__module__ != module_name:
                continue
            for name, method in list(vars(kind).items()):
                plain: Any = method
                while _is_wrapper(plain):
                    plain = plain.__wrapped__
                if plain is not method:
                    left.append(f"{kind.__name__}.{name}")
                    setattr(kind, name, plain)
    return left
