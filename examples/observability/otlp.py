# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "cline-transport[openai]",
#   "opentelemetry-exporter-otlp-proto-http>=1.44",
#   "opentelemetry-instrumentation-logging>=0.65b0",
#   "opentelemetry-sdk>=1.44",
# ]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
r"""Export the spans, metrics and log lines of calls by OTLP over HTTP, to any backend.

The standard variables say where telemetry goes (OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS,
_COMPRESSION, ...) and what it is from (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES); by default to
http://localhost:4318, where a collector listens.

Live: CLINE_API_KEY=... uv run examples/observability/otlp.py
Against a simulator: uv run cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
CLINE_MODEL=sim/429-once uv run examples/observability/otlp.py
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from openai import APIError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from cline_transport.openai import http_client

QUESTION: ChatCompletionUserMessageParam = {
    "role": "user",
    "content": "Say hello in five languages.",
}


@contextmanager
def telemetry() -> Generator[None, None, None]:
    """Record everything within the block, and have sent it when the block is left."""
    name = os.environ.get("OTEL_SERVICE_NAME", "cline-transport-example")
    resource = Resource.create({"service.name": name})

    spans = TracerProvider(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(spans)

    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    metrics.set_meter_provider(meters)

    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(logs)
    logger = logging.getLogger("cline_transport")
    logger.setLevel(logging.INFO)  # retries; failures are warnings
    handler = LoggingHandler(logger_provider=logs)
    logger.addHandler(handler)

    try:
        yield
    finally:
        logger.removeHandler(handler)
        # Each sends what it still holds.
        for provider in (spans, meters, logs):
            provider.shutdown()


def stream(client: OpenAI, model: str) -> None:
    """Print an answer as it comes."""
    chunks = client.chat.completions.create(model=model, messages=[QUESTION], stream=True)
    for chunk in chunks:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print()


def complete(client: OpenAI, model: str) -> None:
    """Print an answer when it is there."""
    completion = client.chat.completions.create(model=model, messages=[QUESTION], stream=False)
    print(completion.choices[0].message.content)


def succeeds(ask: Callable[[OpenAI, str], None], client: OpenAI, model: str) -> bool:
    """Make a call; whether it succeeded."""
    try:
        ask(client, model)
    except APIError as exc:
        print(f"\n{type(exc).__name__}: {exc}", file=sys.stderr)
        return False
    return True


def main() -> int:
    """Ask twice. Returns the exit status: 1 if a call failed."""
    model = os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6")
    with (
        telemetry(),
        OpenAI(
            base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
            api_key=os.environ["CLINE_API_KEY"],
            http_client=http_client(),
        ) as client,
    ):
        succeeded = [succeeds(ask, client, model) for ask in (stream, complete)]
    return 0 if all(succeeded) else 1


if __name__ == "__main__":
    sys.exit(main())
