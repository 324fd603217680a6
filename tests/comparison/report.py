# SPDX-License-Identifier: Apache-2.0
"""The tables of `docs/comparison.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.pages import Marks, table

from .questions import TABLES, Table

PAGE: Final = Path(__file__).parents[2] / "docs" / "comparison.md"
MARKS: Final = Marks(PAGE, "comparison")

Answers = Mapping[tuple[str, str], str]
"""By contender and the question's name."""


def lines_of(answers: Answers, versions: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """All that stands between the page's marks; `versions`: of each contender's packages."""
    for one in TABLES:
        yield from (f"### {one.title}", "", *_table(one, answers), "")
    pairs = {pair for used in versions.values() for pair in used.items()}
    yield f"Versions: {', '.join(' '.join(pair) for pair in sorted(pairs))}."


def _table(one: Table, answers: Answers) -> list[str]:
    rows = (
        (title, *(answers[contender, name] for contender in one.contenders))
        for name, title in one.questions.items()
    )
    return table([("", *one.contenders), ["---"] * (1 + len(one.contenders)), *rows])


def answers_on_the_page(text: str | None = None) -> dict[tuple[str, str], str]:
    """The page's cells, or those of a text that would stand there.

    Raises:
        ValueError: A table is not there, or its columns or rows are not those of the questions.
    """
    found: dict[tuple[str, str], str] = {}
    text = MARKS.read() if text is None else text
    for one in TABLES:
        under = text.partition(f"### {one.title}\n")[2].partition("### ")[0]
        rows = [_cells(line) for line in under.splitlines() if line.startswith("| ")]
        heads = [["", *one.contenders], ["---"] * (1 + len(one.contenders))]
        if rows[:2] != heads or [row[0] for row in rows[2:]] != list(one.questions.values()):
            raise ValueError(f"{PAGE.name} does not have the table {one.title!r} as it is asked")
        for name, (_, *cells) in zip(one.questions, rows[2:], strict=True):
            found |= zip(((who, name) for who in one.contenders), cells, strict=True)
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
