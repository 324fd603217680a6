# SPDX-License-Identifier: Apache-2.0
"""A call's spans as the rows of a waterfall: a value, drawn in the terminal and in the docs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes import http_attributes
from opentelemetry.trace import StatusCode

from cline_transport import _names as names

__all__ = ["Row", "Waterfall", "duration_text", "read_waterfall", "ticks"]

Kind = Literal["call", "attempt", "wait"]
State = Literal["good", "recovered", "failed", "idle"]

# Stable conventions first; the instrumentation still writes the old name by default.
_STATUS_NAMES: Final = (http_attributes.HTTP_RESPONSE_STATUS_CODE, "http.status_code")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: a span, or the wait between two attempts.

    Attributes:
        kind: `call` (the span of a call), `attempt` (an HTTP span beneath it) or `wait`.
        name: The span's name; an attempt's number is added to it.
        status: The error code, the HTTP status, `ok`; empty for a wait.
        request_id: `x-request-id`, where the server sent one.
        start: Seconds since the first span began.
        duration: Seconds.
        state: `good`, `recovered` (failed, but the call did not), `failed` or `idle` (a wait).
        last: Whether nothing follows it beneath its call.
    """

    kind: Kind
    name: str
    status: str
    request_id: str | None
    start: float
    duration: float
    state: State
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """All rows on one time axis that begins at 0 and is `duration` seconds long."""

    rows: tuple[Row, ...]
    duration: float


def read_waterfall(spans: Sequence[ReadableSpan]) -> Waterfall:
    """Arrange finished spans: each call, its attempts beneath it, the waits between them.

    Args:
        spans: In any order. A span whose parent is not among them stands for a call.

    Example:
        ```python
        read_waterfall(recorder.take()).rows[0].name  # "chat anthropic/claude-sonnet-4.6"
        ```
    """
    known = {span.context.span_id for span in spans if span.context is not None}
    ordered = sorted(spans, key=_start)
    calls = [span for span in ordered if span.parent is None or span.parent.span_id not in known]
    if not calls:
        return Waterfall(rows=(), duration=0.0)
    origin = _start(ordered[0])
    rows = tuple(row for call in calls for row in _rows(call, ordered, origin))
    return Waterfall(rows=rows, duration=max(row.start + row.duration for row in rows))


def _rows(call: ReadableSpan, spans: Sequence[ReadableSpan], origin: float) -> Iterator[Row]:
    own = call.context
    attempts = [
        span
        for span in spans
        if own is not None and span.parent is not None and span.parent.span_id == own.span_id
    ]
    failed = _failed(call)
    yield _row("call", call, call.name, origin, state="failed" if failed else "good")
    for number, attempt in enumerate(attempts, start=1):
        if number > 1:
            before = _end(attempts[number - 2])
            yield Row(
                kind="wait",
                name="wait",
                status="",
                request_id=None,
                start=before - origin,
                duration=max(0.0, _start(attempt) - before),
                state="idle",
            )
        yield _row(
            "attempt",
            attempt,
            f"{attempt.name} attempt {number}",
            origin,
            state=("failed" if failed else "recovered") if _failed(attempt) else "good",
            last=number == len(attempts),
        )


def _row(
    kind: Kind, span: ReadableSpan, name: str, origin: float, *, state: State, last: bool = False
) -> Row:
    attributes: Mapping[str, Any] = span.attributes or {}
    code = attributes.get(names.ERROR_CODE) or attributes.get(names.ERROR_TYPE)
    statuses = (attributes[key] for key in _STATUS_NAMES if key in attributes)
    status = code or next(statuses, "error" if state == "failed" else "ok")
    return Row(
        kind=kind,
        name=name,
        status=str(status),
        request_id=attributes.get(names.REQUEST_ID),
        start=_start(span) - origin,
        duration=_end(span) - _start(span),
        state=state,
        last=last,
    )


def _failed(span: ReadableSpan) -> bool:
    return span.status.status_code is StatusCode.ERROR


def _start(span: ReadableSpan) -> float:
    return (span.start_time or 0) / 1e9


def _end(span: ReadableSpan) -> float:
    return (span.end_time or 0) / 1e9


def duration_text(seconds: float) -> str:
    """Seconds as a person writes them.

    Examples:
        >>> [duration_text(s) for s in (0.0004, 0.012, 2.3456)]
        ['0.4 ms', '12 ms', '2.35 s']
    """
    if seconds < 0.001:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:  # what rounds to 1000 ms is a second
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s"


def ticks(duration: float, most: int) -> tuple[tuple[float, str], ...]:
    """The marks of a time axis: at most `most` (>= 2) round numbers of seconds, and their text.

    Examples:
        >>> ticks(4.6, 6)
        ((0.0, '0'), (1.0, '1 s'), (2.0, '2 s'), (3.0, '3 s'), (4.0, '4 s'))
    """
    if duration <= 0:
        return ((0.0, "0"),)
    power = 10.0 ** math.floor(math.log10(duration / most))
    step = next(power * f for f in (1, 2, 5, 10, 20) if duration / (power * f) < most)
    marks = [n * step for n in range(math.floor(duration / step + 1e-9) + 1)]
    unit, scale = ("s", 1.0) if step >= 1 or duration >= 1 else ("ms", 1000.0)
    return tuple((mark, f"{mark * scale:g} {unit}" if mark else "0") for mark in marks)
