# SPDX-License-Identifier: Apache-2.0
"""Each way in to the transport, with the libraries that this environment has."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

FAMILIES = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
WAYS = [
    f"{colour}{way}" for way in ("transport", "attach", "instrumentor") for colour in ("", "async ")
]


def told(*arguments: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What the program says of each way in, and the libraries that it had loaded at its end."""
    done = subprocess.run(  # noqa: S603 -- our own interpreter, our own code
        [sys.executable, "-W", "error", "-m", "tests.families.ways_in", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    return lines, last["loaded"]


def expected(way: str, family: str, library: str, client: str | None = None) -> dict[str, Any]:
    """A 503 that was tried again, and a 402 that was explained; a span for each."""
    return {
        "way": way,
        "family": family,
        "library": library,
        "client": client or library,
        "attempts": 2,
        "http_spans": 2,
        "spans": 3,
        "code": 402,
        "advice": "Add credits at app.cline.bot",
    }


def test_this_environment_has_the_libraries_that_were_asked_for() -> None:
    wanted = os.environ.get("FAMILIES_EXPECTED")
    if wanted is None:
        pytest.skip("FAMILIES_EXPECTED is not set: any environment will do")
    assert wanted.split() == FAMILIES


@pytest.mark.parametrize("families", [FAMILIES, *([name] for name in FAMILIES)], ids=" ".join)
def test_each_way_in_works(families: list[str]) -> None:
    lines, _ = told(*families)
    assert lines == [expected(way, name, name) for name in families for way in WAYS]


def test_the_sdk_has_the_library_that_it_is_built_on() -> None:
    openai: Any = pytest.importorskip("openai")
    library = openai.DefaultHttpxClient.__mro__[2].__module__.partition(".")[0]
    lines, _ = told("--sdk")
    assert lines == [expected("openai", "openai", library, "openai")]


def test_under_the_alias_all_is_httpx2() -> None:
    pytest.importorskip("httpx2")
    pytest.importorskip("openai")
    families = ["httpx", "httpx2"]
    lines, loaded = told("--alias", "--sdk", *families)
    assert lines == [
        *(expected(way, name, "httpx2") for name in families for way in WAYS),
        expected("openai", "openai", "httpx2", "openai"),
    ]
    assert loaded == ["httpx", "httpx2", "httpcore", "httpcore2"]


@pytest.mark.skipif(len(FAMILIES) > 1, reason="both libraries are here")
def test_the_page_of_a_library_that_is_not_here_says_what_to_install() -> None:
    [absent] = {"httpx", "httpx2"} - set(FAMILIES)
    with pytest.raises(ImportError, match=f"needs the package '{absent}': pip install"):
        importlib.import_module(f"cline_transport.{absent}")
