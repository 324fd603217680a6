# SPDX-License-Identifier: Apache-2.0
"""docs/ecosystem.md: every framework in every behaviour, as the last run saw it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.frameworks.environments import Case, Result
from tests.frameworks.frameworks import (
    BEHAVIOURS,
    EXAMPLES,
    FRAMEWORKS,
    NOTED,
    ROOT,
    Framework,
    script_metadata,
)
from tests.frameworks.report import HEADINGS, MARKS, NOT_RUN, lines_of, link, missing

TABLES = [part.strip() for part in MARKS.read().strip().split("\n\n")]
TITLES = [one.title for one in FRAMEWORKS]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def every_case() -> list[Case]:
    return [Case(test=test, way="sync-call", held=True, told=None) for test in BEHAVIOURS]


def result(framework: Framework, cases: list[Case], *, failed: bool = False) -> Result:
    return Result(
        framework=framework,
        version="1.0",
        sdk="3.0",
        family="httpx2",
        seconds=(1.0, 1.0),
        failed=failed,
        cases=cases,
    )


def test_each_framework_has_its_row() -> None:
    heading, _, *rows = map(cells, TABLES[0].splitlines())
    assert tuple(heading) == HEADINGS
    for framework, row in zip(FRAMEWORKS, rows, strict=True):
        title, version, sdk, family, plug_in = row
        assert title == link(framework)
        assert re.fullmatch(rf"{framework.distribution} \d+(\.\d+)+", version)
        assert re.fullmatch(r"\d+(\.\d+)+", sdk)
        assert family == ("httpx2" if sdk.startswith("3.") else "httpx")
        assert plug_in == framework.plug_in


def test_each_behaviour_has_a_cell_for_each_framework_and_all_were_run() -> None:
    heading, _, *rows = map(cells, TABLES[1].splitlines())
    assert heading == ["", *TITLES]
    assert [row[0] for row in rows] == list(BEHAVIOURS.values())
    for row in rows:
        assert len(row) == len(TITLES) + 1
        assert not [cell for cell in row if cell == NOT_RUN or cell.startswith("**")]


def test_a_behaviour_is_a_test_of_the_specification() -> None:
    text = (ROOT / "tests" / "frameworks" / "specification.py").read_text(encoding="utf-8")
    assert re.findall(r"^    def (test_\w+)\(", text, re.MULTILINE) == list(BEHAVIOURS)


def test_a_cell_that_was_not_run_or_failed_is_missed_and_shows() -> None:
    first, second = FRAMEWORKS[:2]
    heading = next(iter(BEHAVIOURS.values()))
    whole = every_case()
    assert missing([result(first, whole)]) == []
    broken = [replace(whole[0], held=False), *whole[1:]]
    seen = [result(first, whole[1:]), result(second, broken)]
    assert missing(seen) == [
        f"{first.title}: {heading}: {NOT_RUN}",
        f"{second.title}: {heading}: **fails:** sync-call",
    ]
    [row] = [line for line in lines_of(seen) if line.startswith(f"| {heading} |")]
    assert row == f"| {heading} | {NOT_RUN} | **fails:** sync-call |"


def test_what_fails_beside_the_table_is_missed_too() -> None:
    first = FRAMEWORKS[0]
    own = Case(test="test_its_own", way="", held=False, told=None)
    assert missing([result(first, [*every_case(), own], failed=True)]) == [
        f"{first.title}: test_its_own failed"
    ]
    assert missing([result(first, every_case(), failed=True)]) == [f"{first.title}: pytest failed"]


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda one: one.name)
def test_an_example_has_the_header_that_makes_it_run_alone(framework: Framework) -> None:
    header = script_metadata(framework.path)
    assert header["tool"]["uv"]["sources"] == {
        "cline-transport": {"path": "../..", "editable": True}
    }
    ours, theirs = header["dependencies"]
    assert ours == "cline-transport[openai]"
    assert re.fullmatch(rf"{framework.distribution}(\[openai\])?>=[\d.]+", theirs)
    text = framework.path.read_text(encoding="utf-8")
    command = f"CLINE_API_KEY=... uv run examples/frameworks/{framework.example}\n"
    assert command in text
    for setting in ("CLINE_BASE_URL", "CLINE_API_KEY", "CLINE_MODEL"):
        assert f'"{setting}"' in text


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda one: one.name)
def test_an_example_plugs_in_as_the_table_says(framework: Framework) -> None:
    text = framework.path.read_text(encoding="utf-8")
    names = re.findall(r"\w{4,}", " ".join(re.findall(r"`([^`]+)`", framework.plug_in)))
    assert names
    assert [name for name in names if name not in text] == []


def test_every_example_and_every_module_is_of_a_framework() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(
        str(one.example) for one in FRAMEWORKS
    )
    modules = (ROOT / "tests" / "frameworks").glob("test_*.py")
    assert sorted(path.relative_to(ROOT).as_posix() for path in modules) == sorted(
        one.tests for one in (*FRAMEWORKS, *NOTED)
    )


def test_the_page_notes_every_framework_that_is_not_in_the_table() -> None:
    text = MARKS.page.read_text(encoding="utf-8")
    for framework in NOTED:
        assert f"- **{framework.title}**" in text


def test_the_page_is_brief() -> None:
    text = MARKS.page.read_text(encoding="utf-8")
    prose = text.replace(MARKS.read(text), "")
    assert len(prose.split()) <= 300
