# SPDX-License-Identifier: Apache-2.0
"""The tables of `docs/ecosystem.md`, from what the tests said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.pages import Marks, table

from .environments import Case, Result
from .frameworks import BEHAVIOURS, ROOT, Framework

__all__ = ["MARKS", "NOT_RUN", "lines_of", "missing"]

MARKS: Final = Marks(ROOT / "docs" / "ecosystem.md", "frameworks")
NOT_RUN: Final = "not run"
HEADINGS: Final = ("Framework", "Version", "openai", "Family", "Plug in")


def link(framework: Framework) -> str:
    """The framework's title, leading to its example."""
    return f"[{framework.title}](examples.md#{framework.path.stem})"


def lines_of(results: Sequence[Result]) -> Iterator[str]:
    """All that stands between the page's marks: what each is, and then what it does."""
    yield from table([HEADINGS, ("---",) * len(HEADINGS)])
    yield from table(
        (
            link(one.framework),
            f"{one.framework.distribution} {one.version}",
            one.sdk,
            one.family,
            one.framework.plug_in,
        )
        for one in results
    )
    yield ""
    yield from table(
        [("", *(one.framework.title for one in results)), ("---",) * (len(results) + 1)]
    )
    for test, heading in BEHAVIOURS.items():
        yield from table([(heading, *(cell_of(test, one.cases) for one in results))])


def cell_of(test: str, cases: Sequence[Case]) -> str:
    """What a framework did in one test: what was told, or in which colours it held."""
    ran = [one for one in cases if one.test == test]
    if not ran:
        return NOT_RUN
    if not all(one.held for one in ran):
        return "**fails:** " + ", ".join(one.way or "fails" for one in ran if not one.held)
    told: dict[str, None] = dict.fromkeys(one.told for one in ran if one.told is not None)
    if told:
        return ", ".join(told)
    colours = dict.fromkeys(one.way.partition("-")[0] for one in ran if "-" in one.way)
    return ", ".join(one for one in colours if one in ("sync", "async")) or "yes"


def missing(results: Sequence[Result]) -> list[str]:
    """The cells that were not run or did not hold, and what else failed, in words."""
    found: list[str] = []
    for one in results:
        for test in BEHAVIOURS:
            cell = cell_of(test, one.cases)
            if cell == NOT_RUN or cell.startswith("**fails"):
                found.append(f"{one.framework.title}: {BEHAVIOURS[test]}: {cell}")
        broken = [c.test for c in one.cases if not c.held and c.test not in BEHAVIOURS]
        found += [f"{one.framework.title}: {test} failed" for test in broken]
        if one.failed and not any(text.startswith(one.framework.title) for text in found):
            found.append(f"{one.framework.title}: pytest failed")
    return found
