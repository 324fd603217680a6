# SPDX-License-Identifier: Apache-2.0
"""The fault matrix and its table in `docs/reference/faults.md`: the page says what the rows say."""

from __future__ import annotations

from tests.faults.matrix import FAILURES, SECTIONS
from tests.faults.report import MARKS, cells_of, lines_of

EVERY_CELL = {cell: True for failure in FAILURES for cell in cells_of(failure)}
"""As if each had held: the page shows a run in which they did."""


def test_the_page_has_each_row_as_it_is_and_all_its_cells_held() -> None:
    shown = MARKS.read().splitlines()[1:]
    versions = shown[1].rstrip(".").split(", ")
    assert shown == list(lines_of(EVERY_CELL, versions))
    names = {version.partition(" ")[0] for version in versions}
    assert names == {"Python", "httpx", "httpx2", "openai", "opentelemetry-sdk"}
    assert {v.split(".")[0] for v in versions if "openai" in v} == {"openai 2", "openai 3"}


def test_a_cell_that_did_not_hold_shows() -> None:
    broken = cells_of(FAILURES[0])[0]
    lines = list(lines_of(EVERY_CELL | {broken: False}, []))
    assert f"{len(EVERY_CELL) - 1:,} of {len(EVERY_CELL):,} cells held" in lines[0]
    [row] = [line for line in lines if "11 of 12" in line]
    assert row.startswith(f"| {FAILURES[0].title} |")


def test_each_section_has_its_failures_and_none_is_in_two() -> None:
    assert len(FAILURES) == sum(map(len, SECTIONS.values())) == len(set(map(id, FAILURES)))
    assert len({cell for failure in FAILURES for cell in cells_of(failure)}) == len(EVERY_CELL)
