# SPDX-License-Identifier: Apache-2.0
"""What holds for every example: it is tested, listed, and says how to run it and what it needs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from .program import EXAMPLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = EXAMPLES.parent
OURS = "cline-transport"

# Where each is run. Those of frameworks need environments of their own, which their tests make.
TESTS = {
    "batch.py": "tests/examples/test_batch.py",
    "fan_out.py": "tests/examples/test_fan_out.py",
    "fastapi_service.py": "tests/examples/test_fastapi_service.py",
    "fleet/fleet.py": "tests/examples/test_fleet.py",
    "observability/otlp.py": "tests/examples/test_otlp.py",
    "observability/phoenix.py": "tests/examples/test_phoenix.py",
    "observability/prometheus/app.py": "tests/examples/test_prometheus.py",
    "streaming.py": "tests/examples/test_streaming.py",
    "support_report.py": "tests/examples/test_support_report.py",
    "zero_code/assistant.py": "tests/examples/test_zero_code.py",
}
# It is run by a command, with the files beside it.
HEADLESS = "zero_code/assistant.py"
PROGRAMS = [name for name in TESTS if name != HEADLESS]

HEADER = re.compile(r"# /// script\n((?:#(?: .*)?\n)+)# ///\n")


def every_example() -> set[str]:
    return {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}


class Program(NamedTuple):
    """A file: its inline script metadata (PEP 723), and its syntax tree."""

    header: dict[str, Any]
    tree: ast.Module

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""


def program(name: str) -> Program:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    found = HEADER.search(text)
    assert found is not None, "it has no header"
    lines = [line.removeprefix("#").removeprefix(" ") for line in found[1].splitlines()]
    return Program(tomllib.loads("\n".join(lines)), ast.parse(text))


# --- tested and listed ---


def test_every_example_has_a_test() -> None:
    examples = {name for name in every_example() if not name.startswith("frameworks/")}
    assert set(TESTS) == examples
    for name, test in TESTS.items():
        assert f'"{Path(name).name}"' in (ROOT / test).read_text(encoding="utf-8")


def test_the_table_lists_all_of_them_and_nothing_else() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(.+)\]\((.+)\) \| .+ \|$", table, re.MULTILINE)
    assert [name for name, target in listed if name != target] == []
    programs = {name for name, _ in listed if name.endswith(".py")}
    folders = {name for name, _ in listed} - programs
    assert all((EXAMPLES / name).is_dir() for name in folders)
    within = {name for name in every_example() if f"{name.partition('/')[0]}/" in folders}
    assert programs | within == every_example()
    assert len(listed) == len(programs) + len(folders)


def test_the_links_of_the_list_lead_somewhere() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    targets = [one for one in re.findall(r"\]\((\S+)\)", text) if "://" not in one]
    assert targets
    assert [one for one in targets if not (EXAMPLES / one).exists()] == []


# --- how to run it ---


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_says_how_to_run_it(name: str) -> None:
    docstring = program(name).docstring
    reads_a_key = "CLINE_API_KEY" in (EXAMPLES / name).read_text(encoding="utf-8")
    prefix = "CLINE_API_KEY=... " if reads_a_key else ""
    assert f"{prefix}uv run examples/{name}" in docstring
    assert "python examples" not in docstring


# --- what it needs ---


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_runs_from_a_clone_on_every_python_that_it_names(name: str) -> None:
    header = program(name).header
    assert set(header) == {"requires-python", "dependencies", "tool"}
    source = header["tool"]["uv"]["sources"]
    assert source == {OURS: {"path": source[OURS]["path"], "editable": True}}
    assert ((EXAMPLES / name).parent / source[OURS]["path"]).resolve() == ROOT
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for minor in range(30):  # ours, and only ours, may be the reason that it is not for one
        if f"3.{minor}" in SpecifierSet(header["requires-python"]):
            assert f"3.{minor}" in SpecifierSet(ours["requires-python"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_it_imports_is_among_what_it_needs(name: str) -> None:
    header, tree = program(name)
    imported = {one: owner(one) for one in imports(tree)}
    assert imported, "it shows the package"
    needed = {one for listed in header["dependencies"] for one in brought_by(Requirement(listed))}
    assert {one: by for one, by in imported.items() if by not in needed} == {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_it_needs_is_imported(name: str) -> None:
    header, tree = program(name)
    owners = {owner(one) for one in imports(tree)}
    # Started as a program of its own.
    spare = {"arize-phoenix"} if name == "observability/phoenix.py" else set[str]()
    listed = {canonicalize_name(Requirement(one).name) for one in header["dependencies"]}
    assert listed - owners == spare


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules from elsewhere that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [(one.name, one.name) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an example is one file"
            # A name may be a module of its own: `from opentelemetry import trace`.
            modules = [(f"{node.module}.{one.name}", str(node.module)) for one in node.names]
        else:
            continue
        for names in modules:
            if names[0].partition(".")[0] not in sys.stdlib_module_names:
                yield next((one for one in names if one in owners_of_modules()), names[-1])


def owner(module: str) -> str:
    """The distribution that a module is from."""
    ours = module.partition(".")[0] == "cline_transport"
    return OURS if ours else owners_of_modules()[module]


@cache
def owners_of_modules() -> dict[str, str]:
    """The distribution of each module that is installed, whatever namespace it is in."""
    found: dict[str, str] = {}
    for one in distributions():
        for file in one.files or ():
            if file.suffix == ".py":
                parts = (
                    file.parts[:-1] if file.name == "__init__.py" else (*file.parts[:-1], file.stem)
                )
                found[".".join(parts)] = canonicalize_name(one.name)
    return found


def brought_by(requirement: Requirement) -> set[str]:
    """What a requirement installs that an example may import: itself, and what is in our extras."""
    name = canonicalize_name(requirement.name)
    if name != OURS:
        return {name}
    brought: set[str] = {name}
    for line in distribution(OURS).requires or ():
        inner = Requirement(line)
        extras = ["", *requirement.extras]
        if inner.marker is None or any(inner.marker.evaluate({"extra": one}) for one in extras):
            brought |= brought_by(inner)
    return brought
