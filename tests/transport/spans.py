# SPDX-License-Identifier: Apache-2.0
"""The spans of a call and of its attempts, and what holds for them in every trace."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from cline_transport import Settings
from cline_transport.simulator import Reply, Simulator

from .rig import Rig


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def status_of(http_span: ReadableSpan) -> Any:
    found = attributes(http_span)
    return found.get("http.response.status_code", found.get("http.status_code"))


def assert_nested(call: ReadableSpan, attempts: list[ReadableSpan]) -> None:
    for span in [call, *attempts]:
        assert span.end_time is not None
    for span in attempts:
        assert span.parent is not None
        assert span.context is not None
        assert call.context is not None
        assert span.parent.span_id == call.context.span_id
        assert span.context.trace_id == call.context.trace_id
        assert span.kind is SpanKind.CLIENT


def traced(rig: Rig, settings: Settings | None = None, inner: Any = None) -> Any:
    return rig.client(rig.transport(inner, settings=settings, traced=True))


def key(api: Simulator) -> dict[str, str]:
    return {"authorization": f"Bearer {api.api_key}"}


def three_attempts(api: Simulator) -> None:
    api.enqueue(
        Reply.error(503, code="overloaded"), Reply.error(502), Reply.stream("Hi", request_id="r3")
    )


def check_three_attempts(rig: Rig) -> None:
    [call], attempts = rig.finished()
    assert [status_of(span) for span in attempts] == [503, 502, 200]
    assert_nested(call, attempts)
    assert [attributes(a).get("cline.error.code") for a in attempts] == ["overloaded", "502", None]
    assert attributes(attempts[-1])["cline.request_id"] == "r3"
    assert attributes(call)["cline.retry.count"] == 2
    rig.spans.clear()
