# SPDX-License-Identifier: Apache-2.0
"""Measure a fleet for `docs/reference/shared-limits.md`, and draw its pictures.

    uv run python docs/make_limits_picture.py           # measure, and draw
    uv run python docs/make_limits_picture.py --draw    # only draw

Eight processes call the simulator for half a minute with each way of keeping its limits
(`tests/fleet/harness.py`). It needs `redis-server`. The pictures show what the table says.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.fleet.harness import CONCURRENT, PER_MINUTE, PROCESSES, TASKS, Figures, strategies
from tests.fleet.harness import measure as measure_fleet
from tests.limits.redis_server import COMMAND, RedisServer
from tests.pages import Marks, Theme, draw_themes, opening, table

DOCS = Path(__file__).parent
PAGE = DOCS / "reference" / "shared-limits.md"
ASSETS = DOCS / "assets"

MARKS = Marks(PAGE, "figures")

SECONDS = 30.0

BUSY = 2
"""Of the eight processes, where most have nothing to do."""

HEADINGS = (
    "Each process has", "Calls done", "Failed", "Refused", "Throughput", "p50", "p95",
    "Least served", "Throughput, two at work",
)  # fmt: skip

NAMES = {
    "plain retries": "retries only",
    "cooldown only": "the cooldown (default)",
    "limits per process": "the whole limits",
    "limits divided by eight": "an eighth of the limits",
    "shared limits": "the limits, shared in Redis",
}


PICTURE = (
    "<picture>\n"
    '  <source media="(prefers-color-scheme: dark)" srcset="../assets/limits-dark.svg">\n'
    '  <img alt="Requests refused and served, and calls failed, by what each process has" '
    'src="../assets/limits-light.svg">\n'
    "</picture>"
)


class Row(NamedTuple):
    """A line of the table, as text."""

    name: str
    done: str
    failed: str
    refused: str
    throughput: str
    median: str
    slowest: str
    least: str
    two: str


def measure() -> dict[str, tuple[Figures, Figures]]:
    """Run the fleet with each strategy: all of it, and two processes of it.

    Raises:
        RuntimeError: `redis-server` is not installed.
    """
    if COMMAND is None:
        raise RuntimeError("redis-server is not installed")
    with TemporaryDirectory() as directory, RedisServer(Path(directory)) as redis:
        return {
            name: (measure_fleet(limits, SECONDS), measure_fleet(limits, SECONDS, busy=BUSY))
            for name, limits in strategies(redis.url).items()
        }


def rows_of(measured: Mapping[str, tuple[Figures, Figures]]) -> list[Row]:
    """The figures as the table has them."""
    return [
        Row(
            name=NAMES[name],
            done=str(figures.done),
            failed=str(len(figures.failed)),
            refused=f"{figures.refused:.1%}",
            throughput=f"{figures.throughput:.0%}",
            median=f"{figures.latency(50):.1f} s",
            slowest=f"{figures.latency(95):.1f} s",
            least=f"{figures.least:.0%}",
            two=f"{two.throughput:.0%}",
        )
        for name, (figures, two) in measured.items()
    ]


def text_of(rows: Sequence[Row], redis: str) -> str:
    """What stands between the marks of the page."""
    lines = table([HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows])
    return "\n".join(
        [
            f"{PROCESSES} processes with {TASKS} tasks each call one key for {SECONDS:.0f} s. The "
            f"API (the simulator) allows it {PER_MINUTE} requests a",
            f"minute and {CONCURRENT} at once; an answer takes 0.2 s to 1.2 s.",
            "",
            PICTURE,
            "",
            *lines,
            "",
            "*Refused*: the share of all requests that were answered with 429. *Throughput*: "
            "requests served, as a share",
            "of what the rate allows, to which the API adds a burst of 10; *two at work*: six of "
            "the eight have nothing to",
            "do. *p50*, *p95*: how long a call took that went well. There are always "
            f"{PROCESSES * TASKS} calls, so if none fails, each",
            f"takes {PROCESSES * TASKS * 60 // PER_MINUTE} s on average, its wait included. "
            "*Least served*: what the process that was served least had of",
            "the mean. A task pauses 1 s after a call that failed.",
            "",
            f"Measured by `docs/make_limits_picture.py` on {os.cpu_count()} cores "
            f"({platform.machine()}, {platform.system()}), Python {platform.python_version()},",
            f"Redis {redis}.",
        ]
    )


def redis_version() -> str:
    """What `redis-server` says it is."""
    told = subprocess.run(  # noqa: S603 - found on the path
        [str(COMMAND), "--version"], capture_output=True, text=True, check=True
    )
    found = re.search(r"v=(\S+)", told.stdout)
    return found[1] if found else "of unknown version"


def read_rows(page: str) -> list[Row]:
    """The table of the page."""
    return [Row(*cells) for cells in MARKS.rows(page)]


WIDTH, MARGIN = 800, 20
TOP, STEP, BAR = 84, 36, 16
"""The first row's middle, from row to row, and a bar's height."""
REFUSED_X, THROUGHPUT_X, TWO_X, FAILED_X = 204, 376, 544, 780
"""Where the bars begin, and where the number of failed calls ends."""
FULL = 104
"""The length of a bar of 100 %."""


def draw(rows: Sequence[Row], theme: Theme) -> str:
    """The picture as SVG: no script, no font, no outside reference."""
    height = TOP + STEP * (len(rows) - 1) + 32
    title = "Requests refused and served: " + ", ".join(
        f"{row.name} {row.refused} and {row.throughput}" for row in rows
    )  # fmt: skip
    parts = [
        *opening(title, WIDTH, height, theme),
        f'<text class="b" x="{MARGIN}" y="30">Each process has</text>',
        f'<text class="b" x="{REFUSED_X}" y="30">Requests refused</text>',
        f'<text class="b" x="{THROUGHPUT_X}" y="30">Served of the allowed</text>',
        f'<text class="b" x="{TWO_X}" y="30">… with two at work</text>',
        f'<text class="b" x="{FAILED_X}" y="30" text-anchor="end">Calls failed</text>',
        *_grid(height - 16, theme),
    ]
    for number, row in enumerate(rows):
        parts += _line(row, TOP + STEP * number, theme)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(bottom: int, theme: Theme) -> Iterator[str]:
    for left in (REFUSED_X, THROUGHPUT_X, TWO_X):
        for percent in (0, 50, 100):
            x = left + FULL * percent // 100
            yield f'<text class="q" x="{x}" y="52" text-anchor="middle">{percent}%</text>'
            yield f'<path d="M{x}.5 60V{bottom}" stroke="{theme.grid}"/>'


def _line(row: Row, y: int, theme: Theme) -> Iterator[str]:
    good = float(row.refused.rstrip("%")) < 1
    weight = ' class="b"' if row.name == NAMES["shared limits"] else ""
    yield f'<text{weight} x="{MARGIN}" y="{y + 4.5}">{escape(row.name)}</text>'
    refused_colour = theme.good if good else theme.bad
    for left, share, colour in (
        (REFUSED_X, row.refused, refused_colour),
        (THROUGHPUT_X, row.throughput, theme.good),
        (TWO_X, row.two, theme.good if float(row.two.rstrip("%")) > 90 else theme.bad),
    ):
        length = max(2.0, FULL * float(share.rstrip("%")) / 100)
        yield (
            f'<rect x="{left}" y="{y - BAR / 2:g}" width="{length:.1f}" height="{BAR}" rx="2" '
            f'fill="{colour}"/>'
        )
        yield f'<text class="q" x="{left + length + 6:.1f}" y="{y + 4}">{share}</text>'
    failed = theme.good if row.failed == "0" else theme.bad
    yield (
        f'<text class="b" x="{FAILED_X}" y="{y + 4.5}" text-anchor="end" '
        f'style="fill:{failed}">{row.failed}</text>'
    )


def write_pictures(page: str, assets: Path = ASSETS) -> None:
    """Draw what the page's table says.

    Args:
        page: The page.
        assets: The directory to write the pictures to.
    """
    rows = read_rows(page)
    draw_themes("limits", lambda theme: draw(rows, theme), assets)


def main() -> int:
    """Measure, and write the table and the pictures."""
    if "--draw" not in sys.argv[1:]:
        MARKS.write(text_of(rows_of(measure()), redis_version()))
    write_pictures(PAGE.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
