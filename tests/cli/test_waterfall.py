# SPDX-License-Identifier: Apache-2.0
"""From spans to rows, and from rows to characters."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from cline_transport._demo.bars import ASCII, UNICODE, Glyphs, bar, draw, glyphs_for
from cline_transport._demo.waterfall import (
    Row,
    Waterfall,
    duration_text,
    read_waterfall,
    ticks,
)

SECOND = 1_000_000_000


def context(number: int) -> SpanContext:
    return SpanContext(1, number, is_remote=False, trace_flags=TraceFlags(1))


def span(
    number: int,
    name: str,
    start: float,
    end: float,
    *,
    parent: int | None = None,
    failed: bool = False,
    attributes: Mapping[str, str | int] | None = None,
) -> ReadableSpan:
    return ReadableSpan(
        name,
        context=context(number),
        parent=None if parent is None else context(parent),
        attributes=attributes,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=round((1000 + start) * SECOND),
        end_time=round((1000 + end) * SECOND),
    )


def recovered_call() -> list[ReadableSpan]:
    return [
        span(
            2, "POST", 0, 0.5, parent=1, failed=True,
            attributes={"cline.error.code": "429", "http.status_code": 429,
                        "cline.request_id": "req_a"},
        ),
        span(
            3, "POST", 2.5, 3, parent=1,
            attributes={"http.response.status_code": 200, "cline.request_id": "req_b"},
        ),
        span(1, "chat cline/ok", 0, 4, attributes={"cline.request_id": "req_b"}),
    ]  # fmt: skip


def drawn(waterfall: Waterfall, *, width: int = 60, glyphs: Glyphs = UNICODE) -> list[str]:
    return [line.plain for line in draw(waterfall, width=width, glyphs=glyphs)]


def test_attempts_and_waits_stand_beneath_their_call() -> None:
    waterfall = read_waterfall(recovered_call())
    assert waterfall.duration == pytest.approx(4)
    assert [(r.kind, r.name, r.status, r.request_id, r.state, r.last) for r in waterfall.rows] == [
        ("call", "chat cline/ok", "ok", "req_b", "good", False),
        ("attempt", "POST attempt 1", "429", "req_a", "recovered", False),
        ("wait", "wait", "", None, "idle", False),
        ("attempt", "POST attempt 2", "200", "req_b", "good", True),
    ]
    times = [(row.start, row.duration) for row in waterfall.rows]
    assert times == [pytest.approx(t) for t in ((0, 4), (0, 0.5), (0.5, 2), (2.5, 0.5))]


def test_a_failed_call_fails_its_attempts_and_shows_its_code() -> None:
    call = span(1, "chat m", 0, 1, failed=True, attributes={"error.type": "502"})
    attempt = span(2, "POST", 0, 1, parent=1, failed=True)
    states = [(row.state, row.status) for row in read_waterfall([attempt, call]).rows]
    assert states == [("failed", "502"), ("failed", "error")]


def test_several_calls_share_the_axis() -> None:
    # The parent of the second is a span of the application that is not shown.
    spans = [span(1, "first", 0, 1), span(2, "second", 2, 5, parent=99)]
    waterfall = read_waterfall(spans)
    assert [(row.kind, row.name) for row in waterfall.rows] == [
        ("call", "first"),
        ("call", "second"),
    ]
    assert waterfall.duration == pytest.approx(5)


def test_attempts_that_overlap_have_no_negative_wait() -> None:
    spans = [span(1, "c", 0, 3), span(2, "P", 0, 2, parent=1), span(3, "P", 1, 3, parent=1)]
    assert read_waterfall(spans).rows[2].duration == 0


def test_a_span_without_a_context_or_times_is_a_call() -> None:
    (row,) = read_waterfall([ReadableSpan("bare")]).rows
    assert (row.kind, row.start, row.duration) == ("call", 0, 0)


def test_no_spans() -> None:
    assert read_waterfall([]) == Waterfall(rows=(), duration=0)
    assert drawn(read_waterfall([])) == ["(no spans)"]


def test_the_picture() -> None:
    assert drawn(read_waterfall(recovered_call())) == [
        "chat cline/ok      ok   req_b  4.00 s  ━━━━━━━━━━━━━━━━━━━━━",
        "├─ POST attempt 1  429  req_a  500 ms  ━━╸",
        "│  wait                        2.00 s    ┄┄┄┄┄┄┄┄┄┄┄",
        "└─ POST attempt 2  200  req_b  500 ms               ━━━",
        "                                       0         2 s",
    ]


def test_the_picture_in_ascii() -> None:
    lines = drawn(read_waterfall(recovered_call()), glyphs=ASCII)
    assert lines[0].endswith("=====================")
    assert lines[1] == "|- POST attempt 1  429  req_a  500 ms  ==="
    assert lines[2].startswith("|  wait")
    assert lines[2].endswith("...........")
    assert lines[3].startswith("`- POST attempt 2  200")
    assert all(line.isascii() for line in lines)


def test_long_names_are_cut_and_give_way_to_the_bars() -> None:
    row = Row(
        kind="call", name="chat " + "x" * 60, status="context_length_exceeded",
        request_id="req_0123456789abcdef", start=0, duration=1, state="good",
    )  # fmt: skip
    wide, narrow, tiny = (
        drawn(Waterfall(rows=(row,), duration=1), width=width)[0] for width in (110, 78, 20)
    )
    assert wide.startswith("chat xxxxxxxxxxxxxxxxxxxxxxxxxxxx…  context_length_…  req_0123456789a…")
    assert wide.endswith("━" * (110 - 34 - 16 - 16 - 6 - 8))
    assert len(narrow) == 78
    assert narrow.startswith("chat xxxxxxxxxxxx…  context_length_…  req_0123")
    assert tiny.endswith("  ━━━━")


def test_foreign_text_passes_the_filter() -> None:
    row = Row(
        kind="call", name="chat secret", status="secret", request_id="secret",
        start=0, duration=1, state="failed",
    )  # fmt: skip
    lines = draw(
        Waterfall(rows=(row,), duration=1), width=80, glyphs=UNICODE,
        safe=lambda text: text.replace("secret", "*"),
    )  # fmt: skip
    assert next(lines).plain.startswith("chat *  *  *  1.00 s")


@pytest.mark.parametrize(
    ("start", "duration", "total", "expected"),
    [
        (0, 4, 4, "━━━━"),
        (1, 1, 4, " ━  "),
        (0.5, 1, 4, "╺╸  "),
        (0, 0, 4, "╸   "),
        (4, 0, 4, "   ╺"),
        (0, 0, 0, "╸   "),
        (3, 9, 4, "   ━"),
    ],
)
def test_bars_are_exact_to_half_a_cell_and_never_empty(
    start: float, duration: float, total: float, expected: str
) -> None:
    assert bar(start, duration, total, 4, UNICODE) == expected


def test_a_call_that_took_no_time_has_an_axis() -> None:
    assert drawn(read_waterfall([span(1, "c", 0, 0)]))[-1].strip() == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 ms"), (0.0004, "0.4 ms"), (0.0123, "12 ms"), (0.9996, "1.00 s"), (8.257, "8.26 s")],
)
def test_durations_as_a_person_writes_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("duration", "most", "labels"),
    [
        (0, 5, ["0"]),
        (4.6, 6, ["0", "1 s", "2 s", "3 s", "4 s"]),
        (8.2, 5, ["0", "2 s", "4 s", "6 s", "8 s"]),
        (1.2, 5, ["0", "0.5 s", "1 s"]),
        (0.3, 4, ["0", "100 ms", "200 ms", "300 ms"]),
        (0.002, 3, ["0", "1 ms", "2 ms"]),
        (95, 4, ["0", "50 s"]),
    ],
)
def test_the_axis_has_few_round_marks(duration: float, most: int, labels: list[str]) -> None:
    assert [label for _, label in ticks(duration, most)] == labels
    assert all(mark <= duration + 1e-9 for mark, _ in ticks(duration, most))


def test_labels_that_do_not_fit_are_left_out() -> None:
    waterfall = read_waterfall([span(1, "c", 0, 0.004)])
    assert drawn(waterfall, width=8 + 1 + 2 + 4 + 12)[-1].split("  ")[-1].strip() in {"0", "2 ms"}


@pytest.mark.parametrize(
    ("encoding", "glyphs"), [("utf-8", UNICODE), ("cp1252", ASCII), ("ascii", ASCII)]
)
def test_lines_are_drawn_where_the_encoding_has_them(encoding: str, glyphs: Glyphs) -> None:
    assert glyphs_for(encoding) is glyphs
