# SPDX-License-Identifier: Apache-2.0
"""A waterfall in characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from cline_transport._demo.waterfall import Row, Waterfall, duration_text, ticks

__all__ = ["ASCII", "UNICODE", "Glyphs", "bar", "draw", "glyphs_for"]

_STYLES: Final = {"good": "green", "recovered": "yellow", "failed": "red", "idle": "dim"}
_GAP: Final = "  "
_NAME: Final = 34
_CELL: Final = 16
"""The widest status and request ID; what is longer is cut."""
_LEAST_BAR: Final = 24
"""What a narrow terminal leaves for the bars, as long as the other columns can give way."""
_LEAST_NAME: Final = 18
_LEAST_ID: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The characters that a waterfall is drawn with."""

    fancy: bool
    line: str
    full: str
    left: str
    """The left half of a cell."""
    right: str
    wait: str
    branch: str
    end: str
    trunk: str
    more: str
    """What stands for the rest of a text that was cut."""
    good: str
    bad: str


UNICODE: Final = Glyphs(
    fancy=True, line="─", full="━", left="╸", right="╺", wait="┄", branch="├─ ", end="└─ ",
    trunk="│  ", more="…", good="✓", bad="✗",
)  # fmt: skip

ASCII: Final = Glyphs(
    fancy=False, line="-", full="=", left="=", right="=", wait=".", branch="|- ", end="`- ",
    trunk="|  ", more="~", good="ok:", bad="NOT AS EXPECTED:",
)  # fmt: skip


def glyphs_for(encoding: str) -> Glyphs:
    """Lines where the output's encoding has them, else ASCII (a Windows code page, `LC_ALL=C`).

    Examples:
        >>> glyphs_for("cp1252").full
        '='
    """
    try:
        "".join(str(getattr(UNICODE, name)) for name in Glyphs.__slots__).encode(encoding)
    except UnicodeEncodeError:
        return ASCII
    return UNICODE


def bar(start: float, duration: float, total: float, width: int, glyphs: Glyphs) -> str:
    """A bar from `start`, `duration` seconds long, on an axis of `total` seconds and `width` cells.

    It is exact to half a cell, and never shorter than that.

    Examples:
        >>> bar(1.0, 1.0, 4.0, 8, UNICODE)
        '  ━━    '
    """
    halves = 2 * width
    scale = halves / total if total > 0 else 0.0
    first = min(round(start * scale), halves - 1)
    end = min(max(round((start + duration) * scale), first + 1), halves)
    # left half covered, right half covered
    cells = {(True, True): glyphs.full, (True, False): glyphs.left, (False, True): glyphs.right}
    return "".join(
        cells.get((first <= at < end, first <= at + 1 < end), " ") for at in range(0, halves, 2)
    )


def draw(
    waterfall: Waterfall, *, width: int, glyphs: Glyphs, safe: Callable[[str], str] = str
) -> Iterator[Text]:
    """The rows, a line each, and below them the time axis.

    Args:
        waterfall: What to draw.
        width: Columns for a line; with fewer than 50 the bars stick out.
        glyphs: The characters.
        safe: What servers have named passes through it.
    """
    if not waterfall.rows:
        yield Text("(no spans)", style="dim")
        return
    table = [
        (
            _cut(f"{_prefix(row, glyphs)}{safe(row.name)}", _NAME, glyphs),
            _cut(safe(row.status), _CELL, glyphs),
            _cut(safe(row.request_id or ""), _CELL, glyphs),
            duration_text(row.duration),
        )
        for row in waterfall.rows
    ]
    columns = [max(len(cells[n]) for cells in table) for n in range(4)]
    rest = width - sum(columns) - 4 * len(_GAP)
    for column, least in ((0, _LEAST_NAME), (2, _LEAST_ID)):
        given = max(0, min(_LEAST_BAR - rest, columns[column] - least))
        columns[column] -= given
        rest += given
    rest = max(rest, 4)
    for row, (name, status, request_id, took) in zip(waterfall.rows, table, strict=True):
        style = _STYLES[row.state]
        body = bar(row.start, row.duration, waterfall.duration, rest, glyphs)
        if row.kind == "wait":
            for solid in (glyphs.full, glyphs.left, glyphs.right):
                body = body.replace(solid, glyphs.wait)
        yield Text.assemble(
            (
                f"{_cut(name, columns[0], glyphs):<{columns[0]}}",
                "bold" if row.kind == "call" else "",
            ),
            _GAP,
            (f"{status:<{columns[1]}}", style),
            _GAP,
            (f"{_cut(request_id, columns[2], glyphs):<{columns[2]}}", "dim"),
            _GAP,
            (f"{took:>{columns[3]}}", "dim" if row.kind == "wait" else ""),
            _GAP,
            (body.rstrip(), style),
        )
    offset = sum(columns) + 4 * len(_GAP)
    yield Text(" " * offset + _axis(waterfall.duration, rest), style="dim")


def _axis(duration: float, width: int) -> str:
    line = ""
    for mark, label in ticks(duration, max(2, width // 6)):
        at = round(mark / duration * width) if duration > 0 else 0
        # A label that would not fit, or run into its neighbour, is left out.
        if at + len(label) <= width and at >= len(line) + (1 if line else 0):
            line = f"{line:<{at}}{label}"
    return line


def _prefix(row: Row, glyphs: Glyphs) -> str:
    if row.kind == "call":
        return ""
    if row.kind == "wait":
        return glyphs.trunk
    return glyphs.end if row.last else glyphs.branch


def _cut(text: str, width: int, glyphs: Glyphs) -> str:
    return text if len(text) <= width else text[: width - 1] + glyphs.more
