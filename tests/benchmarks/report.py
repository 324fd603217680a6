# SPDX-License-Identifier: Apache-2.0
"""The table and the picture of `docs/performance.md`."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from tests.pages import Marks, Theme, draw_themes, opening, table

DOCS: Final = Path(__file__).parents[2] / "docs"
MARKS: Final = Marks(DOCS / "performance.md", "benchmarks")
ASSETS: Final = DOCS / "assets"
WHATS: Final = ("json", "stream")
"""A JSON call, and a stream of three hundred events."""

HEADINGS: Final = (
    "Client", "JSON call", "CPU time", "Stream of 300 events", "CPU time", "Memory per open stream",
)  # fmt: skip
WIDTH, MARGIN = 800, 20
TOP, STEP, BAR = 84, 28, 14
"""The first row's middle, from row to row, and a bar's height."""
COLUMNS: Final = ((330, 1, 2.0), (580, 3, 1.2))
"""Where bars begin, of which cell, and the ratio at which they are full."""
FULL = 140


class Cost(NamedTuple):
    """Of one call.

    Attributes:
        instructions: How many.
        ratio: As a multiple of the bare library's.
        time: CPU time, as a multiple of the bare library's; `None`: not measured.
    """

    instructions: int
    ratio: float
    time: float | None


def lines_of(
    costs: Mapping[tuple[str, str], Cost], memory: Mapping[str, float], versions: Sequence[str]
) -> Iterator[str]:
    """All that stands between the page's marks."""
    yield "<picture>"
    dark = "assets/performance-dark.svg"
    yield f'  <source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    told = "Instructions per call and per stream, as multiples of the bare library's"
    yield f'  <img alt="{told}" src="assets/performance-light.svg">'
    yield "</picture>"
    yield ""
    yield from table(
        [
            HEADINGS,
            ("---", *["---:"] * (len(HEADINGS) - 1)),
            *(_row(kind, costs, memory) for kind in dict.fromkeys(kind for kind, _ in costs)),
        ]
    )
    yield ""
    yield f"{os.cpu_count()} cores, {platform.system()} {platform.machine()},"
    yield f"Python {platform.python_version()}, {', '.join(versions)}."


def _row(
    kind: str, costs: Mapping[tuple[str, str], Cost], memory: Mapping[str, float]
) -> list[str]:
    cells = [kind]
    for what in WHATS:
        cost = costs[kind, what]
        bare = cost.ratio == 1
        cells.append(f"{cost.instructions / 1e6:.2f} M" if bare else f"{cost.ratio:.3f}")
        cells.append("" if cost.time is None or bare else f"{cost.time:.2f}")
    cells.append(f"{memory[kind] / 1024:.1f} KiB" if kind in memory else "")
    return cells


def draw(theme: Theme) -> str:
    """The picture of the page's table, as SVG."""
    rows = MARKS.rows()
    height = TOP + STEP * (len(rows) - 1) + 32
    parts = [
        *opening("Instructions per call and per stream", WIDTH, height, theme),
        f'<text class="b" x="{MARGIN}" y="30">Client</text>',
        f'<text class="b" x="{COLUMNS[0][0]}" y="30">Instructions, JSON call</text>',
        f'<text class="b" x="{COLUMNS[1][0]}" y="30">Instructions, stream</text>',
    ]
    for x, _, most in COLUMNS:
        for share in (0, 0.5, 1):
            at = x + round(FULL * share)
            ratio = f"{1 + (most - 1) * share:g} x"
            parts.append(f'<text class="q" x="{at}" y="52" text-anchor="middle">{ratio}</text>')
            parts.append(f'<path d="M{at}.5 60V{height - 16}" stroke="{theme.grid}"/>')
    for number, row in enumerate(rows):
        parts += _bars(row, TOP + STEP * number, theme)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bars(row: list[str], y: int, theme: Theme) -> Iterator[str]:
    ours = "cline-transport" in row[0]
    weight = ' class="b"' if ours else ""
    yield f'<text{weight} x="{MARGIN}" y="{y + 4.5}">{escape(row[0])}</text>'
    for x, cell, most in COLUMNS:
        if row[cell].endswith("M"):
            yield f'<text class="q" x="{x + 6}" y="{y + 4}">{row[cell]}</text>'
            continue
        ratio = float(row[cell])
        length = max(2.0, FULL * min(1.0, (ratio - 1) / (most - 1)))
        yield (
            f'<rect x="{x}" y="{y - BAR / 2:g}" width="{length:.1f}" height="{BAR}" rx="2" '
            f'fill="{theme.good if ours else theme.quiet}"/>'
        )
        yield f'<text class="q" x="{x + length + 6:.1f}" y="{y + 4}">{row[cell]}</text>'


def draw_pictures(assets: Path) -> None:
    """Draw what the page's table says."""
    draw_themes("performance", draw, assets)
