"""docs/telemetry.md against what is told: each table's names, types and units, none missing."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cline_transport import RetryPolicy, Settings, _names
from cline_transport.httpx import ClineTransport
from cline_transport.simulator import Reply, Simulator

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
CHAT = {"model": "cline/ok", "messages": [{"role": "user", "content": "hi"}], "stream": True}
UNREADABLE = Reply.stream("Hi", headers=[("content-encoding", "unheard-of")])


def table(first_column: str, section: str) -> list[dict[str, str]]:
    """The rows of the table after a heading whose first column is called so."""
    text = PAGE.partition(f"\n{section}\n")[2]
    rows = re.search(rf"^\| {first_column} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None, (first_column, section)
    header = re.search(rf"^\| {first_column} \|.*$", text, re.MULTILINE)
    assert header is not None
    names = [cell.strip() for cell in header.group().strip("|").split("|")]
    return [
        dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        for line in rows.group(1).splitlines()
    ]


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    return [row[name].strip("`") for row in rows]


class Told:
    """What a few calls tell that together have everything."""

    def __init__(self) -> None:
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.lines: list[logging.LogRecord] = []
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        transport = ClineTransport(
            settings=Settings(retry=RetryPolicy(jitter=0)),
            tracer_provider=tracers,
            meter_provider=MeterProvider(metric_readers=[self.reader]),
            logger_provider=loggers,
        )
        transport._loop.sleep = lambda _: None
        with Simulator() as api, httpx.Client(transport=transport, base_url=api.base_url) as client:
            url = f"{api.base_url}/chat/completions"
            api.enqueue(Reply.error(503), Reply.stream("Hi"), Reply.error(400), UNREADABLE)
            for _ in range(3):
                client.post(url, json=CHAT)
            api.enqueue(Reply.stream("a b", error="server_error"), Reply.close())
            client.post(url, json=CHAT)
            with pytest.raises(httpx.RemoteProtocolError):
                client.post(f"{api.base_url}/models", content=iter([b"once"]))
            transport._loop._throttle.tokens = 1
            api.enqueue(Reply.error(502))
            client.post(url, json=CHAT)

    @property
    def calls(self) -> dict[str, Any]:
        return self._attributes("cline_transport")

    @property
    def attempts(self) -> dict[str, Any]:
        return self._attributes("opentelemetry.instrumentation.httpx")

    def _attributes(self, scope: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for span in self.spans.get_finished_spans():
            if span.instrumentation_scope is not None and span.instrumentation_scope.name == scope:
                found |= span.attributes or {}
        return found

    @property
    def metrics(self) -> dict[str, Any]:
        data: Any = self.reader.get_metrics_data()
        scopes: list[Any] = data.resource_metrics[0].scope_metrics
        [ours] = [scope for scope in scopes if scope.scope.name == "cline_transport"]
        return {metric.name: metric for metric in ours.metrics}


@pytest.fixture(scope="module")
def told() -> Told:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs")
        lines: list[logging.LogRecord] = []
        handler = logging.Handler(logging.INFO)
        patch.setattr(handler, "emit", lines.append)
        logger = logging.getLogger("cline_transport")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            made = Told()
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        made.lines = lines
        return made


def type_of(value: Any) -> str:
    if isinstance(value, tuple):
        return "string[]"
    return {bool: "boolean", int: "int", float: "double", str: "string"}[type(value)]


def test_the_attributes_of_a_call(told: Told) -> None:
    rows = table("attribute", "### The call")
    stated = dict(zip(column(rows, "attribute"), column(rows, "type"), strict=True))
    assert stated == {name: type_of(value) for name, value in told.calls.items()}


def test_the_attributes_that_are_added_to_an_attempt(told: Told) -> None:
    rows = table("attribute", "### The attempts")
    stated = dict(zip(column(rows, "attribute"), column(rows, "type"), strict=True))
    theirs = {"http.method", "http.url", "http.status_code"}
    assert stated == {n: type_of(v) for n, v in told.attempts.items() if n not in theirs}


def test_the_metrics(told: Told) -> None:
    rows = table("metric", "## Metrics")
    stated = {row["metric"].strip("`"): (row["instrument"], row["unit"]) for row in rows}
    assert stated == {
        name: ("histogram" if isinstance(metric.data, Histogram) else "counter", metric.unit)
        for name, metric in told.metrics.items()
    }


def test_the_attributes_of_metrics_and_events_are_named_in_the_text(told: Told) -> None:
    points = [p for metric in told.metrics.values() for p in metric.data.data_points]
    used = {name for point in points for name in point.attributes}
    used |= {
        name for log in told.logs.get_finished_logs() for name in log.log_record.attributes or {}
    }
    for name in used:
        assert f"`{name}`" in PAGE


def test_the_lines(told: Told) -> None:
    stated = {
        re.sub(r"\\\{\w+\\\}", ".+", re.escape(row[next(iter(row))].strip("`"))): row["level"]
        for row in table("line of the logger `cline_transport`", "## The log")
    }
    written = {line.getMessage(): line.levelname for line in told.lines}
    assert len(written) >= 4
    matched: set[str] = set()
    for line, level in written.items():
        found = {pattern for pattern in stated if re.fullmatch(pattern, line)}
        assert {stated[pattern] for pattern in found} == {level}, line
        matched |= found
    assert matched == stated.keys()


def test_the_events(told: Told) -> None:
    stated = set(column(table("event", "## The log"), "event"))
    assert stated == {log.log_record.event_name for log in told.logs.get_finished_logs()}


def test_every_name_in_the_code_is_in_the_page() -> None:
    names = {
        value
        for name, value in vars(_names).items()
        if name.isupper() and isinstance(value, str) and "." in value and "/" not in value
    }
    missing = {name for name in names if f"`{name}`" not in PAGE}
    assert missing == set()


def test_conventions_and_stability_are_said_of_each() -> None:
    rows = table("attribute", "### The call") + table("attribute", "### The attempts")
    for row in rows + table("metric", "## Metrics"):
        name = row[next(iter(row))].strip("`")
        if name.startswith("cline."):
            assert row["convention"] == "ours"
        else:
            assert row["convention"] in ("GenAI", "HTTP", "errors", "general")
        assert row["stability"] == ("development" if name.startswith("gen_ai.") else "stable")
