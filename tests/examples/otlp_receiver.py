# SPDX-License-Identifier: Apache-2.0
"""A collector on loopback: the OTLP over HTTP that it is sent, as plain values."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Attributes = dict[str, Any]


def plain(value: Any) -> Any:
    """What an `AnyValue` of OTLP holds."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    held = getattr(value, kind)
    return tuple(plain(one) for one in held.values) if kind == "array_value" else held


def pairs(key_values: Iterable[Any]) -> Attributes:
    named = {one.key: plain(one.value) for one in key_values}
    return dict(sorted(named.items()))


@dataclass
class Span:
    scope: tuple[str, str]
    name: str
    kind: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start: int
    attributes: Attributes
    status: tuple[str, str]
    events: int


@dataclass
class Metric:
    scope: tuple[str, str]
    kind: str
    unit: str
    bounds: set[tuple[float, ...]]
    points: list[tuple[Attributes, float, int]]
    """Attributes, sum, and the count of a histogram or 1."""


@dataclass
class Log:
    scope: tuple[str, str]
    severity: str
    event: str
    body: Any
    attributes: Attributes
    trace_id: bytes
    span_id: bytes


@dataclass
class Collector:
    """What has been exported to it."""

    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list[tuple[str, str | None]])
    raw: bytes = b""
    services: set[str] = field(default_factory=set[str])
    spans: list[Span] = field(default_factory=list[Span])
    metrics: dict[str, Metric] = field(default_factory=dict[str, Metric])
    logs: list[Log] = field(default_factory=list[Log])

    def receive(self, path: str, encoding: str | None, body: bytes) -> None:
        self.requests.append((path, encoding))
        if encoding == "gzip":
            body = gzip.decompress(body)
        self.raw += body
        decoded: Any
        if path == "/v1/traces":
            decoded = ExportTraceServiceRequest.FromString(body)
            for scope, span in self._unpack(decoded.resource_spans, "scope_spans", "spans"):
                self._add_span(scope, span)
        elif path == "/v1/metrics":
            decoded = ExportMetricsServiceRequest.FromString(body)
            for scope, metric in self._unpack(decoded.resource_metrics, "scope_metrics", "metrics"):
                self._add_metric(scope, metric)
        else:
            assert path == "/v1/logs"
            decoded = ExportLogsServiceRequest.FromString(body)
            for scope, record in self._unpack(decoded.resource_logs, "scope_logs", "log_records"):
                self._add_log(scope, record)

    def _unpack(
        self, resources: Iterable[Any], scopes: str, items: str
    ) -> Iterator[tuple[tuple[str, str], Any]]:
        for resource in resources:
            self.services.add(pairs(resource.resource.attributes)["service.name"])
            for scoped in getattr(resource, scopes):
                for item in getattr(scoped, items):
                    yield (scoped.scope.name, scoped.scope.version), item

    def _add_span(self, scope: tuple[str, str], span: Any) -> None:
        one = Span(
            scope=scope,
            name=span.name,
            kind=span.SpanKind.Name(span.kind),
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_id=span.parent_span_id,
            start=span.start_time_unix_nano,
            attributes=pairs(span.attributes),
            status=(span.status.StatusCode.Name(span.status.code), span.status.message),
            events=len(span.events),
        )
        assert span.start_time_unix_nano < span.end_time_unix_nano
        self.spans.append(one)
        self.spans.sort(key=lambda span: span.start)

    def _add_metric(self, scope: tuple[str, str], metric: Any) -> None:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        points = list(data.data_points)
        if kind == "histogram":
            values = [(pairs(one.attributes), one.sum, one.count) for one in points]
        else:
            assert data.is_monotonic
            values = [(pairs(one.attributes), one.as_int or one.as_double, 1) for one in points]
        bounds = {tuple(one.explicit_bounds) for one in points if kind == "histogram"}
        self.metrics[metric.name] = Metric(scope, kind, metric.unit, bounds, values)

    def _add_log(self, scope: tuple[str, str], record: Any) -> None:
        one = Log(
            scope=scope,
            severity=record.severity_text,
            event=record.event_name,
            body=plain(record.body),
            attributes=pairs(record.attributes),
            trace_id=record.trace_id,
            span_id=record.span_id,
        )
        self.logs.append(one)


@contextmanager
def running_collector() -> Generator[Collector, None, None]:
    """One that listens, until the end of the block."""
    received = Collector()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            assert self.headers["content-type"] == "application/x-protobuf"
            with lock:
                received.receive(self.path, self.headers["content-encoding"], body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
