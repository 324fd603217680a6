# SPDX-License-Identifier: Apache-2.0
"""Draw `docs/assets/trace-{light,dark}.svg`: a call's trace, from a real run on a virtual clock.

    uv run python docs/make_trace_picture.py

The `openai` SDK streams from the simulator over a socket: a 429, a 502, then a good answer. The
waits and latencies move a clock of the script's own, so the pictures are the same each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import openai
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from cline_transport._demo.calls import replace_sleep, stream
from cline_transport._demo.recorder import own_provider
from cline_transport._demo.tour import MODEL, documented_settings, quiet_log
from cline_transport._demo.waterfall import Row, Waterfall, duration_text, read_waterfall, ticks
from cline_transport._protocols import Clock
from cline_transport.openai import http_client
from cline_transport.simulator import Reply, Simulator
from tests.pages import Theme, draw_themes, opening

ASSETS = Path(__file__).parent / "assets"

LATENCIES = (0.18, 0.31, 0.42)
"""Seconds until the headers of each attempt come."""

PER_CHUNK = 0.16
"""Seconds between two chunks of the stream."""


class VirtualTime(SpanProcessor):
    """A clock that moves when told to, and the spans as it saw them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spans: list[ReadableSpan] = []
        self._started: dict[int, int] = {}

    def pass_by(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note when a span began."""
        del parent_context  # the spans' own parents are enough
        self._started[span.get_span_context().span_id] = round(self.now * 1e9)

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a copy of a span with the times of this clock."""
        context = span.get_span_context()
        if context is None:  # the type allows it; a span that has ended has one
            return
        copy = ReadableSpan(
            name=span.name,
            context=context,
            parent=span.parent,
            attributes=span.attributes,
            status=span.status,
            start_time=self._started[context.span_id],
            end_time=round(self.now * 1e9),
        )
        self.spans.append(copy)


def run() -> Waterfall:
    """Make the call; its spans on the virtual clock.

    Raises:
        RuntimeError: The call did not end well.
    """
    time = VirtualTime()
    latencies = iter(LATENCIES)

    def delayed(send: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def handle(request: Any) -> Any:
            response = send(request)
            time.pass_by(next(latencies))
            return response

        return handle

    transport = http_client(
        settings=documented_settings(), tracer_provider=own_provider(time), trust_env=False
    )
    replace_sleep(transport, time.pass_by)
    ours: Any = transport._transport  # noqa: SLF001 - the attempts need a clock and latencies
    loop: Any = ours._loop  # noqa: SLF001 - the same
    loop.clock = Clock(monotonic=lambda: time.now, random=lambda: 0.0)
    beneath: Any = loop._transport  # noqa: SLF001 - the SDK's own transport, whatever its family
    beneath.handle_request = delayed(beneath.handle_request)
    with quiet_log(), Simulator() as api:
        api.enqueue(
            Reply.error(429, retry_after=2, request_id="req_8f41c2"),
            Reply.error(502, request_id="req_b07d95"),
            Reply.stream("Hello there from the simulator.", request_id="req_3ce68a"),
        )
        with openai.OpenAI(
            base_url=api.base_url, api_key=api.api_key, http_client=transport
        ) as client:
            outcome = stream(client, MODEL, lambda: time.pass_by(PER_CHUNK))
    if outcome.error is not None or len(time.spans) != 1 + len(LATENCIES):
        raise RuntimeError(f"the call did not end well: {outcome!r}, {len(time.spans)} spans")
    return read_waterfall(time.spans)


MONO = "ui-monospace,SFMono-Regular,'SF Mono',Menlo,Consolas,'Liberation Mono',monospace"

WIDTH, MARGIN = 800, 20
STATUS_X, ID_X = 274, 324
LEFT, RIGHT = 420, 776
"""Where the time axis begins and ends."""

TOP, STEP, BAR = 64, 40, 16
"""The first row's middle, from row to row, and a bar's height."""


def draw(waterfall: Waterfall, theme: Theme) -> str:
    """The picture as SVG: no script, no font, no outside reference."""
    rows = [row for row in waterfall.rows if row.kind != "wait"]
    bottom = TOP + STEP * (len(rows) - 1) + 22
    height = bottom + 16
    title = f"Trace of one call: {', '.join(f'{r.name} {r.status}' for r in rows)}"
    styles = f".m{{font:11.5px {MONO};fill:{theme.quiet}}}.s{{font-size:11px;font-weight:600}}"
    parts = [
        *opening(title, WIDTH, height, theme, styles),
        *_axis(waterfall.duration, bottom, theme),
        *_lines(rows, theme),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axis(duration: float, bottom: int, theme: Theme) -> Iterator[str]:
    yield f'<text class="q" x="{MARGIN}" y="30">span</text>'
    yield f'<text class="q" x="{STATUS_X}" y="30">status</text>'
    yield f'<text class="q" x="{ID_X}" y="30">request ID</text>'
    for mark, label in ticks(duration, 8):
        x = _x(mark, duration)
        yield f'<path d="M{x} 40V{bottom}" stroke="{theme.grid}"/>'
        yield f'<text class="q" x="{x}" y="30" text-anchor="middle">{label}</text>'


def _lines(rows: Sequence[Row], theme: Theme) -> Iterator[str]:
    call = rows[0]
    end = call.start + call.duration
    trunk = TOP + STEP * (len(rows) - 1)
    yield f'<path d="M27 {TOP + 14}V{trunk}" stroke="{theme.border}" fill="none"/>'
    before = None
    for number, row in enumerate(rows):
        y = TOP + STEP * number
        colour = theme.bad if row.state in ("recovered", "failed") else theme.good
        first, last = _x(row.start, end), _x(row.start + row.duration, end)
        if row is call:
            yield f'<text class="b" x="{MARGIN}" y="{y + 4.5}">{escape(row.name)}</text>'
            yield _rect(first, last, y, theme.accent, opacity=0.28)
            headers = _x(rows[-1].start + rows[-1].duration, end)
            yield _rect(headers, last, y, theme.accent)
            yield (
                f'<text class="s" x="{(headers + last) / 2:.1f}" y="{y + 4}" '
                f'text-anchor="middle" style="fill:{theme.ground}">stream</text>'
            )
            yield (
                f'<text class="s" x="{first + 8}" y="{y + 4}" style="fill:{theme.accent}">'
                f"{duration_text(row.duration)}</text>"
            )
        else:
            yield f'<path d="M27 {y}H38" stroke="{theme.border}"/>'
            yield f'<text x="44" y="{y + 4.5}">{escape(row.name)}</text>'
            yield from _wait(before, row, y, end, theme)
            yield _rect(first, last, y, colour)
            yield (
                f'<text class="q" x="{last + 6:.1f}" y="{y + 4}">'
                f"{duration_text(row.duration)}</text>"
            )
            before = row
        yield (
            f'<rect x="{STATUS_X}" y="{y - 10}" width="38" height="20" rx="10" fill="{colour}" '
            f'fill-opacity=".14"/><text class="s" x="{STATUS_X + 19}" y="{y + 4}" '
            f'text-anchor="middle" style="fill:{colour}">{escape(row.status)}</text>'
        )
        yield f'<text class="m" x="{ID_X}" y="{y + 4}">{escape(row.request_id or "")}</text>'


def _wait(before: Row | None, row: Row, y: int, end: float, theme: Theme) -> Iterator[str]:
    if before is None:
        return
    waited = before.start + before.duration
    first, last = _x(waited, end), _x(row.start, end)
    yield (
        f'<path d="M{first + 1} {y}H{last - 4}" stroke="{theme.quiet}" stroke-width="1.5" '
        'stroke-dasharray="2 4" stroke-linecap="round"/>'
    )
    yield (
        f'<text class="q" x="{(first + last) / 2:.1f}" y="{y - 7}" text-anchor="middle">'
        f"waits {duration_text(row.start - waited)}</text>"
    )


def _rect(first: float, last: float, y: int, colour: str, *, opacity: float = 1) -> str:
    width = max(3.0, last - first)
    shade = "" if opacity == 1 else f' fill-opacity="{opacity}"'
    return (
        f'<rect x="{first}" y="{y - BAR / 2:g}" width="{width:.1f}" height="{BAR}" rx="3" '
        f'fill="{colour}"{shade}/>'
    )


def _x(seconds: float, duration: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * seconds / duration, 1)


def main(assets: Path = ASSETS) -> int:
    """Write both pictures.

    Args:
        assets: The directory to write them to.
    """
    waterfall = run()
    draw_themes("trace", lambda theme: draw(waterfall, theme), assets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
