# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring runs, or compiles where it needs a network."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
from types import ModuleType

import pytest

import cline_transport

NAMES = [
    module.name
    for module in pkgutil.walk_packages(cline_transport.__path__, "cline_transport.")
    if not module.name.endswith("__main__")
]


def load(name: str) -> ModuleType:
    if name.endswith("httpx2"):
        pytest.importorskip("httpx2")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_module_do_what_they_say(name: str) -> None:
    failed, _ = doctest.testmod(load(name))
    assert failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_longer_ones_compile(name: str) -> None:
    source = load(name).__doc__ or ""
    for node in ast.walk(ast.parse(open_source(name))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            source += "\n" + (ast.get_docstring(node) or "")
    for code in re.findall(r"^ *```python\n(.*?)^ *```$", source, re.MULTILINE | re.DOTALL):
        lines = code.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        ast.parse("\n".join(line[indent:] for line in lines))


def open_source(name: str) -> str:
    path = load(name).__file__
    assert path is not None
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 -- a path as the module gives it
        return file.read()


def test_every_public_name_has_an_example() -> None:
    for name in cline_transport.__all__:
        value = getattr(cline_transport, name)
        if callable(value) and name != "Attempt":  # which stands in CallRecord's
            assert re.search(r"^ *Examples?:$", value.__doc__ or "", re.MULTILINE), name
