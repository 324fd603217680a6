# SPDX-License-Identifier: Apache-2.0
"""The files that GitHub and citation tools read: their structure, and that they say what is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import cline_transport

ROOT = Path(__file__).parents[2]
yaml: Any = pytest.importorskip("yaml")
if not (ROOT / "cline_transport").exists():  # the tests were taken elsewhere, to an installed wheel
    pytest.skip("needs the sources", allow_module_level=True)

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# https://docs.github.com/en/communities: the elements of an issue form, with what each must have.
ELEMENTS = {
    "markdown": {"value"},
    "textarea": {"label"},
    "input": {"label"},
    "dropdown": {"label", "options"},
    "checkboxes": {"label", "options"},
}


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = load(ROOT / "CITATION.cff")
    # What CFF 1.2.0 requires, and of the rest what is used here.
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["title"] == "cline-transport"
    assert citation["version"] == cline_transport.__version__
    assert citation["license"] == "Apache-2.0"
    assert all(author.keys() == {"name"} for author in citation["authors"])  # an entity, no person


@pytest.mark.parametrize("path", [f for f in FORMS if f.name != "config.yml"], ids=lambda f: f.stem)
def test_an_issue_form_is_one(path: Path) -> None:
    form = load(path)
    assert form.keys() >= {"name", "description", "body"}
    inputs = [element for element in form["body"] if element["type"] != "markdown"]
    assert inputs
    assert len({element["id"] for element in inputs}) == len(inputs)
    for element in form["body"]:
        assert element["attributes"].keys() >= ELEMENTS[element["type"]]
        assert element.keys() <= {"type", "id", "attributes", "validations"}


def test_a_bug_is_reported_with_the_support_report_and_the_settings() -> None:
    form = load(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml")
    asked = {element.get("id"): element for element in form["body"]}
    assert "error_info(exc).report()" in asked["report"]["attributes"]["description"]
    assert "`cline-transport config`" in asked["config"]["attributes"]["description"]
    assert asked["config"]["validations"]["required"] is True


def test_contributing_begins_with_five_lines() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    first = re.search(r"```console\n(.*?)```", text, re.DOTALL)
    assert first is not None
    assert len(first.group(1).splitlines()) == 5
    named = set(re.findall(r"`(tests/\w+)`", text))
    assert {name for name in named if not (ROOT / name).is_dir()} <= {"tests/frameworks"}
