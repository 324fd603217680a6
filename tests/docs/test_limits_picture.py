# SPDX-License-Identifier: Apache-2.0
"""`docs/make_limits_picture.py`: the pictures are what the page's table says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.pages import shown_in

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "shared-limits.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "make_limits_picture.py"))


def test_the_pictures_are_current(script: dict[str, Any], tmp_path: Path) -> None:
    script["write_pictures"](PAGE, tmp_path)
    for name in ("limits-light.svg", "limits-dark.svg"):
        assert (tmp_path / name).read_bytes() == (DOCS / "assets" / name).read_bytes()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_refers_to_nothing_outside_and_shows_the_table(
    theme: str, script: dict[str, Any]
) -> None:
    shown = shown_in(DOCS / "assets" / f"limits-{theme}.svg")
    rows = script["read_rows"](PAGE)
    assert [row.name for row in rows] == list(script["NAMES"].values())
    for row in rows:
        assert {row.name, row.refused, row.throughput, row.two, row.failed} <= shown
