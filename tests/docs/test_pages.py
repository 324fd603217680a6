# SPDX-License-Identifier: Apache-2.0
"""What scripts write into a page of the docs: between its marks, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import Marks, table


def test_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "page.md", "figures")
    marks.page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    marks.write("new")
    assert marks.page.read_text() == ("before\n<!-- figures -->\nnew\n<!-- /figures -->\nafter\n")
    assert marks.read() == "\nnew\n"


def test_a_page_without_the_marks_is_refused(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "page.md", "figures")
    marks.page.write_text("nothing")
    with pytest.raises(RuntimeError, match=r"page\.md has no <!-- figures -->"):
        marks.write("new")
    assert marks.page.read_text() == "nothing"


def test_a_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "page.md", "figures")
    rows = [["a", "1"], ["b", "2"]]
    text = "\n".join(table([["name", "figure"], ["---", "---:"], *rows]))
    marks.page.write_text("<!-- figures --><!-- /figures -->")
    marks.write(f"words\n\n{text}")
    assert marks.rows() == rows
