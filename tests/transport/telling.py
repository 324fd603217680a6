# SPDX-License-Identifier: Apache-2.0
"""Everything that a rig's calls have told, as plain values to compare whole."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk.trace import ReadableSpan

from .rig import Rig

SCOPES = {
    "cline_transport": "ours",
    "opentelemetry.instrumentation.httpx": "http",
}


@contextmanager
def log_lines_exported(rig: Rig) -> Generator[None, None, None]:
    """Lead the logger's lines through OpenTelemetry's handler, as an application does."""
    logger = logging.getLogger("cline_transport")
    handler = LoggingHandler(logger_provider=rig.logger_provider)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def scope_of(telling: Any) -> str:
    return SCOPES[telling.instrumentation_scope.name]


def told_spans(rig: Rig) -> list[dict[str, Any]]:
    """Each ended span in the order of their starts, its parent by its place in this list."""
    spans = sorted(rig.spans.get_finished_spans(), key=lambda span: span.start_time or 0)
    places = {span.context.span_id: place for place, span in enumerate(spans) if span.context}
    assert len({span.context.trace_id for span in spans if span.context}) <= 1
    return [_span(span, places) for span in spans]


def _span(span: ReadableSpan, places: dict[int, int]) -> dict[str, Any]:
    return {
        "scope": scope_of(span),
        "name": span.name,
        "kind": span.kind.name,
        "parent": None if span.parent is None else places[span.parent.span_id],
        "status": span.status.status_code.name,
        "description": span.status.description,
        "events": [event.name for event in span.events],
        "attributes": dict(span.attributes or {}),
    }


def told_metrics(rig: Rig) -> list[tuple[Any, ...]]:
    """Each point: scope, metric, unit, attributes, and its sum (of our own time) or its count."""
    points: list[tuple[Any, ...]] = []
    for scope, metric in metrics_of(rig):
        for point in metric.data.data_points:
            value = getattr(point, "value", None)
            if value is None:
                value = (point.count, point.sum) if scope == "ours" else (point.count,)
            points.append((scope, metric.name, metric.unit, dict(point.attributes), value))
    return sorted(points, key=repr)


def metrics_of(rig: Rig) -> Iterator[tuple[str, Any]]:
    """Each metric that has a point, with its scope."""
    data: Any = rig.reader.get_metrics_data()
    resources: list[Any] = [] if data is None else data.resource_metrics
    scopes: list[Any] = [scope for resource in resources for scope in resource.scope_metrics]
    for scope in scopes:
        metrics: list[Any] = scope.metrics
        for metric in metrics:
            yield SCOPES[scope.scope.name], metric


def told_logs(rig: Rig) -> list[dict[str, Any]]:
    """Each log record, with whether it is in the context of the call's span."""
    call = next(span for span in rig.spans.get_finished_spans() if scope_of(span) == "ours")
    assert call.context is not None
    told: list[dict[str, Any]] = []
    for data in rig.logs.get_finished_logs():
        record: Any = data.log_record
        assert record.timestamp
        told.append(
            {
                "event": record.event_name,
                "severity": record.severity_text,
                "body": record.body,
                "in the call": (record.trace_id, record.span_id)
                == (call.context.trace_id, call.context.span_id),
                "attributes": dict(record.attributes or {}),
            }
        )
    return told
