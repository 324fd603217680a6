# SPDX-License-Identifier: Apache-2.0
"""`docs/performance.md`: each kind of client has its row, and the pictures show the table."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.report import ASSETS, HEADINGS, MARKS, Cost, draw_pictures, lines_of
from tests.benchmarks.work import GROUPS
from tests.pages import shown_in

ROWS = MARKS.rows()


def test_each_kind_of_client_has_its_row() -> None:
    assert [row[0] for row in ROWS] == [kind for group in GROUPS for kind in group]
    assert {len(row) for row in ROWS} == {len(HEADINGS)}


def test_the_pictures_are_current(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    for name in ("performance-light.svg", "performance-dark.svg"):
        assert (tmp_path / name).read_bytes() == (ASSETS / name).read_bytes()


def test_a_picture_refers_to_nothing_outside_and_shows_the_table() -> None:
    shown = shown_in(ASSETS / "performance-light.svg")
    for row in ROWS:
        assert {row[0], row[1], row[3]} <= shown


def test_the_bare_library_has_its_count_and_the_others_their_ratios() -> None:
    costs = {
        ("httpx", "json"): Cost(1_724_285, 1, 1),
        ("httpx", "stream"): Cost(27_125_195, 1, 1),
        ("other", "json"): Cost(2_000_000, 1.16, 1.2),
        ("other", "stream"): Cost(28_000_000, 1.03, None),
    }
    lines = list(lines_of(costs, {"other": 2048.0}, ["httpx 0.28"]))
    assert "| httpx | 1.72 M |  | 27.13 M |  |  |" in lines
    assert "| other | 1.160 | 1.20 | 1.030 |  | 2.0 KiB |" in lines
