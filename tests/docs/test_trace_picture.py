# SPDX-License-Identifier: Apache-2.0
"""`docs/make_trace_picture.py`: the pictures are what a run gives."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.pages import shown_in

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "make_trace_picture.py"))


def test_the_pictures_are_current(script: dict[str, Any], tmp_path: Path) -> None:
    assert script["main"](tmp_path) == 0
    for name in ("trace-light.svg", "trace-dark.svg"):
        assert (tmp_path / name).read_bytes() == (DOCS / "assets" / name).read_bytes()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_refers_to_nothing_outside(theme: str) -> None:
    shown = shown_in(DOCS / "assets" / f"trace-{theme}.svg")
    for expected in ("429", "502", "200", "req_8f41c2", "req_b07d95", "req_3ce68a", "waits 2.00 s"):
        assert expected in shown
