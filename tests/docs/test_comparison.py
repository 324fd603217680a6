# SPDX-License-Identifier: Apache-2.0
"""`docs/comparison.md`: every question and contender is there, and what it says of ours holds."""

from __future__ import annotations

import sys

import pytest

from tests.comparison.__main__ import REQUIREMENTS, ROOT, ask
from tests.comparison.calls import CALLS
from tests.comparison.questions import CONTENDERS, TABLES, questions_of
from tests.comparison.report import MARKS, answers_on_the_page, lines_of
from tests.comparison.traces import TRACES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VERSIONS_TOLD = MARKS.read().partition("Versions: ")[2].strip().rstrip(".").split(", ")
[SDK] = [one.split()[1] for one in VERSIONS_TOLD if one.startswith("openai 3.")]
HERE = [name for name, contender in CONTENDERS.items() if contender.is_here]
VERSIONS = {
    name: dict.fromkeys(contender.packages, "1.0") for name, contender in CONTENDERS.items()
}


def test_the_page_is_full_and_has_each_question_and_each_contender() -> None:
    shown = answers_on_the_page()
    assert set(shown) == {(name, one) for name in CONTENDERS for one in questions_of(name)}
    assert all(shown.values())
    assert {one.split()[0] for one in VERSIONS_TOLD} == {
        package for one in CONTENDERS.values() for package in one.packages
    }


def test_a_page_with_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = answers_on_the_page()
    text = "\n".join(lines_of(shown, VERSIONS))
    assert answers_on_the_page(text) == shown
    with pytest.raises(ValueError, match="does not have the table"):
        answers_on_the_page(text.replace(TABLES[1].title, "Something else"))
    with pytest.raises(ValueError, match="does not have the table"):
        answers_on_the_page(text.replace(next(iter(TABLES[0].questions.values())), "Else"))


def test_each_question_has_what_answers_it_and_a_table_fits_a_phone() -> None:
    asked = [name for table in TABLES for name in table.questions]
    assert sorted(asked) == sorted([*CALLS, *TRACES])
    assert all(len(table.contenders) == 5 for table in TABLES)


def test_what_installs_a_contender_exists() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    named = {one.requirements for one in CONTENDERS.values() if one.requirements is not None}
    assert named == {path.name for path in REQUIREMENTS.iterdir()}
    assert {one.group for one in CONTENDERS.values() if one.group is not None} <= set(groups)


@pytest.mark.parametrize("name", HERE)
def test_what_the_page_says_is_what_a_run_finds(name: str) -> None:
    # Older ones answer otherwise: 3.0.0 sends a generator a second time, empty.
    pytest.importorskip("openai", minversion=SDK, reason="the page is of a newer SDK")
    answers, _ = ask(CONTENDERS[name], sys.executable)
    shown = answers_on_the_page()
    assert answers == {one: shown[name, one] for one in questions_of(name)}
