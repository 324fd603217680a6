# SPDX-License-Identifier: Apache-2.0
"""No import goes up, or sideways within a layer (docs/reference/decisions.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cline_transport

PACKAGE = Path(cline_transport.__file__).parent
TABLE = Path(__file__).parents[2] / "docs" / "reference" / "decisions.md"
# The package itself: its names are loaded when asked for, its version is a constant.
OUTSIDE = {"__init__", "__main__"}


def layers() -> dict[str, int]:
    """The table of the page."""
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+`(?:, )?)+) \|", TABLE.read_text(), re.MULTILINE)
    return {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}


LAYERS = layers()


def modules() -> dict[str, list[Path]]:
    """The modules and sub-packages of the package, with their files."""
    found: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(name, []).append(path)
    return found


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in it, but for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            dotted = [node.module or ""]
            if dotted == ["cline_transport"]:
                dotted = [f"cline_transport.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        else:
            continue
        names |= {name.split(".")[1] for name in dotted if name.startswith("cline_transport.")}
    return names & modules().keys()


def violations(edges: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} (layer {LAYERS[name]}) imports {other} (layer {LAYERS[other]})"
        for name, others in sorted(edges.items())
        for other in sorted(others - {name})
        if LAYERS[other] >= LAYERS[name]
    ]


def test_every_module_has_a_layer_and_every_layer_its_modules() -> None:
    assert modules().keys() - OUTSIDE == LAYERS.keys()


def test_no_import_goes_up_or_sideways() -> None:
    edges = {
        name: set[str]().union(*(imports(path) for path in paths))
        for name, paths in modules().items()
        if name not in OUTSIDE
    }
    assert violations(edges) == []
    assert sum(map(len, edges.values())) > 30  # the parser sees imports at all


@pytest.mark.parametrize(
    ("name", "other"),
    [("wire", "errors"), ("errors", "retry"), ("call", "_sync"), ("httpx", "cli")],
)
def test_this_test_sees_a_violation(name: str, other: str) -> None:
    assert len(violations({name: {other}})) == 1


def roots(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.partition(".")[0] for name in names}


def test_the_core_imports_no_client_and_no_telemetry() -> None:
    outside = {"httpx", "httpx2", "openai", "opentelemetry", "anyio", "pydantic"}
    for name, layer in LAYERS.items():
        if layer <= 3 and name != "_names":
            for path in modules()[name]:
                assert not roots(path) & outside


def test_no_module_is_long_without_a_reason() -> None:
    long = {
        path.name: len(path.read_text().splitlines())
        for paths in modules().values()
        for path in paths
        if len(path.read_text().splitlines()) > 441  # the first is the licence's
    }
    assert long == {}
