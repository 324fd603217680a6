# SPDX-License-Identifier: Apache-2.0
"""Where the demo's spans go: an OpenTelemetry SDK of its own, in memory, nothing global."""

from __future__ import annotations

import os
from importlib import import_module

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

__all__ = ["Recorder", "own_provider"]

# Loaded here, so that the first attempt of the first call does not show the time it takes.
import_module("opentelemetry.instrumentation.httpx")


def own_provider(processor: SpanProcessor) -> TracerProvider:
    """A provider that records everything, whatever `OTEL_*` says of samplers and resources.

    Raises:
        ValueError: `OTEL_SDK_DISABLED` is set: there would be no spans.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise ValueError("OTEL_SDK_DISABLED is true: there would be no trace to show")
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource.get_empty(), shutdown_on_exit=False
    )
    provider.add_span_processor(processor)
    return provider


class Recorder:
    """Keeps the spans of a call until they are taken.

    Example:
        ```python
        recorder = Recorder()
        client = OpenAI(http_client=http_client(tracer_provider=recorder.provider))
        client.chat.completions.create(...)
        spans = recorder.take()
        ```
    """

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = own_provider(SimpleSpanProcessor(self._exporter))

    def take(self) -> tuple[ReadableSpan, ...]:
        """The spans that ended since the last time."""
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return spans
