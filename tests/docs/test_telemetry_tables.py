# SPDX-License-Identifier: Apache-2.0
"""docs/reference/telemetry.md against what is told: names, types and units, none missing."""

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
from opentelemetry.sdk.metrics.export import Gauge, Histogram, InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cline_transport import LimitSettings, RetryPolicy, Settings, _names
from cline_transport._limiter import LINES
from cline_transport._protocols import Clock
from cline_transport._sharing import Sharing
from cline_transport.httpx import ClineTransport
from cline_transport.limits import Answer, LimitState, Report, Rules
from cline_transport.simulator import Reply, Simulator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "telemetry.md").read_text()
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


class Storage:
    """A storage that does not answer at first, and refuses later."""

    def __init__(self) -> None:
        self.state, self.answers, self.refuses = LimitState(), False, False

    def connect(self) -> None:
        if not self.answers:
            raise TimeoutError

    def sync(self, key: str, rules: Rules, report: Report, *, random: float) -> Answer:
        if not self.answers:
            raise TimeoutError(key)
        if self.refuses:
            raise TypeError(key)
        return self.state.sync(rules, report, now=0.0, random=random)

    def is_lost(self, exc: Exception) -> bool:
        return isinstance(exc, TimeoutError)

    def close(self) -> None:
        pass


class Told:
    """What a few calls tell that together have everything."""

    def __init__(self) -> None:
        self.spans, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.lines: list[logging.LogRecord] = []
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        providers: dict[str, Any] = {
            "tracer_provider": tracers,
            "meter_provider": MeterProvider(metric_readers=[self.reader]),
            "logger_provider": loggers,
        }
        transport = ClineTransport(settings=Settings(retry=RetryPolicy(jitter=0)), **providers)
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
            self._be_held_back(api, providers)
            self._share(api, providers)

    def _be_held_back(self, api: Simulator, providers: dict[str, Any]) -> None:
        """By a pace, and by a server that asks to wait, in a time that only waits move."""
        limits = LimitSettings(requests_per_minute=60, burst=1, max_concurrency=10)
        transport = ClineTransport(settings=Settings(limits=limits), **providers)
        now = [0.0]

        def wait(seconds: float) -> None:
            now[0] += seconds

        transport._loop.sleep = wait
        transport._loop.pause = lambda _, seconds: wait(seconds)
        transport._loop.clock = Clock(monotonic=lambda: now[0], random=lambda: 0.0)
        api.enqueue(Reply.stream("Hi"), Reply.error(429, retry_after=2), Reply.stream("Hi"))
        with httpx.Client(transport=transport) as client:
            for _ in range(2):
                client.post(f"{api.base_url}/chat/completions", json=CHAT)
        assert now[0] >= 3
        LINES.reset()

    def _share(self, api: Simulator, providers: dict[str, Any]) -> None:
        """With a storage that goes, comes back, and refuses a key for a while."""
        storage, url = Storage(), "redis://localhost:6379"
        sharing = LINES._sharing[url] = Sharing(storage, url)
        settings = Settings(limits=LimitSettings(max_concurrency=1, storage=url))
        transport = ClineTransport(settings=settings, **providers)
        try:
            with httpx.Client(transport=transport) as client:
                client.post(f"{api.base_url}/chat/completions", json=CHAT)
            storage.answers = True
            sharing._connect()
            [line] = sharing._keys
            for refuses in (True, False):
                storage.refuses = refuses
                sharing._report(line)
        finally:
            sharing.stop()
            LINES.reset()

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


def instrument_of(data: Any) -> str:
    if isinstance(data, Sum):
        return "counter" if data.is_monotonic else "up-down counter"
    return {Histogram: "histogram", Gauge: "gauge"}[type(data)]


def test_the_metrics(told: Told) -> None:
    rows = table("metric", "## Metrics")
    stated = {row["metric"].strip("`"): (row["instrument"], row["unit"]) for row in rows}
    assert stated == {
        name: (instrument_of(metric.data), metric.unit) for name, metric in told.metrics.items()
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
