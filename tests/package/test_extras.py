# SPDX-License-Identifier: Apache-2.0
"""Whatever the package imports comes with it, or with an extra that the message names."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import distributions, metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cline_transport
from cline_transport import _extras
from cline_transport._extras import EXTRAS, absent, command_for

PACKAGE = Path(cline_transport.__file__).parent
NAME = "cline-transport"
# Imported only where something else has loaded it.
LOADED = {"trio": "the event loop is its own", "pytest": "it loads its plugin"}
# Taken where they are, in the place of what an extra brings.
INSTEAD = {"brotlicffi": "brotli", "compression.zstd": "zstd", "zstandard": "zstd"}
STDLIB = sys.stdlib_module_names | {"tomllib"}  # before Python 3.11 the requirement tomli


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it, but for types only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            spec = find_spec(module) if is_installed(module) else None
            if spec is not None and spec.origin is None:  # a namespace: what is taken from it
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            for constant in ast.walk(node.args[0]):
                text = constant.value if isinstance(constant, ast.Constant) else None
                if isinstance(text, str) and all(map(str.isidentifier, text.split("."))):
                    yield text


def is_installed(module: str) -> bool:
    root = module.partition(".")[0]
    return find_spec(root) is not None and (root == module or find_spec(module) is not None)


@cache
def owners() -> dict[Path, str]:
    """The distribution of each installed file."""
    return {
        Path(str(one.locate_file(file))): canonicalize_name(one.metadata["Name"])
        for one in distributions()
        for file in one.files or ()
    }


def owner(module: str) -> str | None:
    spec = find_spec(module) if is_installed(module) else None
    return None if spec is None or spec.origin is None else owners().get(Path(spec.origin))


def requirements(name: str, extra: str = "") -> set[str]:
    """The distributions that a distribution requires: itself, or with one of its extras."""
    found: set[str] = set()
    for one in distributions(name=name):
        for text in one.requires or ():
            required = Requirement(text)
            marker = required.marker
            # One without an extra is of a Python or a system, which need not be this one.
            if "extra" not in str(marker) or (marker and marker.evaluate({"extra": extra})):
                found.add(canonicalize_name(required.name))
                for inner in required.extras:
                    found |= requirements(required.name, inner)
    return found


def always_there() -> set[str]:
    """What an installation without extras brings, with all that this needs."""
    seen: set[str] = set()
    ahead = {NAME}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= requirements(name) - seen
    return seen


def optional_imports() -> dict[str, set[str]]:
    """The modules that are not there without an extra, with the files that import them."""
    there = always_there()
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for module in imported(path):
            root = module.partition(".")[0]
            if root == "cline_transport":
                continue
            if module not in INSTEAD and root in STDLIB:
                continue
            if owner(module) not in there and root not in there:
                found.setdefault(module, set()).add(path.name)
    return found


def entry(module: str) -> str | None:
    """The name under which the table knows a module, or the package that it is in."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in EXTRAS), None)


@pytest.fixture(scope="module")
def optional() -> dict[str, set[str]]:
    return optional_imports()


def test_this_test_sees_what_is_optional(optional: dict[str, set[str]]) -> None:
    assert "httpx2" in optional
    assert "valkey" in optional
    assert "redis.retry" in optional
    assert "anyio" not in optional
    assert "opentelemetry.sdk.trace" in optional
    assert "opentelemetry.instrumentation.httpx" not in optional


def test_each_optional_import_is_of_an_extra(optional: dict[str, set[str]]) -> None:
    unknown = {
        module: files
        for module, files in optional.items()
        if entry(module) is None and module not in INSTEAD and module not in LOADED
    }
    assert unknown == {}


def test_no_entry_is_left_over(optional: dict[str, set[str]]) -> None:
    # Two are named in a constant; and httpcore brings h11, but only as long as it likes to.
    others = {"backports.zstd", "brotli", "h11"}
    assert {entry(module) for module in optional} - {None} | others == EXTRAS.keys()


@pytest.mark.parametrize("module", EXTRAS)
def test_each_extra_brings_the_package_that_it_is_named_for(module: str) -> None:
    extra = EXTRAS[module]
    assert extra in metadata(NAME).get_all("Provides-Extra", [])
    name = canonicalize_name(module.replace(".", "-"))
    brought = {canonicalize_name(Requirement(text).name) for text in _texts(extra)}
    assert name in brought


def _texts(extra: str) -> set[str]:
    """The requirements of an extra on any Python, and of the extras that it takes in."""
    found: set[str] = set()
    for text in metadata(NAME).get_all("Requires-Dist", []):
        if re.search(rf"extra == ['\"]{extra}['\"]", text):
            required = Requirement(text)
            if required.name == NAME:
                for inner in required.extras:
                    found |= _texts(inner)
            found.add(text)
    return found


def test_a_command_is_one_that_a_shell_takes() -> None:
    assert command_for("redis") == "pip install 'cline-transport[redis]'"
    assert command_for("something") == "pip install 'something'"


def test_an_absence_names_the_package_and_its_extra() -> None:
    error = absent("h2", "the simulator")
    assert isinstance(error, ModuleNotFoundError)
    assert error.name == "h2"
    assert str(error) == (
        "the simulator needs the package 'h2': pip install 'cline-transport[http2]'"
    )


def test_one_that_is_there_and_lacks_something_itself_is_not_called_absent() -> None:
    because = ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
    error = absent("openai", "cline_transport.openai", because)
    assert error.name == "pydantic"
    assert str(error) == (
        "cline_transport.openai cannot import 'openai': No module named 'pydantic'"
    )


def test_an_absence_that_no_extra_mends_names_the_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extras, "_SINCE", {"httpx2": (3, 99)})
    assert str(absent("httpx2", "cline_transport.httpx2")) == (
        "cline_transport.httpx2 needs the package 'httpx2', and that Python 3.99"
    )


@pytest.mark.parametrize(
    ("package", "remedy"),
    [
        ("httpx", "'httpx'"),  # a requirement: somebody has taken it away
        ("httpx2", "'cline-transport[httpx2]'"),
        ("openai", "'cline-transport[openai]'"),
    ],
)
def test_a_module_says_what_it_needs(
    package: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"cline_transport.{package}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(_extras, "_SINCE", {})  # on any Python
    with pytest.raises(ImportError) as caught:
        import_module(module)
    assert str(caught.value) == f"{module} needs the package {package!r}: pip install {remedy}"
    assert caught.value.name == package
