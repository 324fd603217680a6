# SPDX-License-Identifier: Apache-2.0
"""Environments for frameworks, and the tests in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .frameworks import BEHAVIOURS, ROOT, Framework, of_the_tests

__all__ = ["Case", "Result", "run_in_its_environment"]

TOOLS: Final = ("hypothesis", "pytest", "pytest-xdist")
"""What the tests need of the project's group `test`."""

OVERRIDES: Final = "certifi\n"
"""Where the package index has an older one, a framework that asks for it would be an old one.
The tests speak to loopback, where no certificate is."""

FAMILY: Final = (
    "import openai; print(next(m for m in (c.__module__.partition('.')[0]"
    " for c in openai.DefaultHttpxClient.__mro__) if m in ('httpx', 'httpx2')))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test in one way."""

    test: str
    way: str
    """Its colour and mode; empty where it has none."""
    held: bool
    told: str | None
    """What it says to the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a framework's tests in its environment."""

    framework: Framework
    version: str
    sdk: str
    family: str
    seconds: tuple[float, float]
    """For the environment, and for the tests."""
    failed: bool
    """Whether pytest said so, of whatever reason."""
    cases: list[Case] = field(default_factory=list[Case])
    output: str = ""


def run_in_its_environment(framework: Framework, folder: Path) -> Result:
    """Make the environment in a folder, and run the framework's tests there.

    Raises:
        CalledProcessError: The environment could not be made; its `stderr` says why.
    """
    started = time.monotonic()
    python = _make(framework, folder)
    made = time.monotonic()
    report = folder / "report.xml"
    command = [python, "-m", "pytest", "-q", "-n0", "-o", "junit_family=xunit1"]
    done = subprocess.run(  # noqa: S603 -- an interpreter of ours, our own tests
        [*command, "--junitxml", report, framework.tests],
        cwd=ROOT,
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    ended = time.monotonic()
    version, sdk = (_version(python, name) for name in (framework.distribution, "openai"))
    return Result(
        framework=framework,
        version=version,
        sdk=sdk,
        family=_ask(python, FAMILY),
        seconds=(made - started, ended - made),
        failed=done.returncode != 0,
        cases=_cases(report) if report.exists() else [],
        output=done.stdout + done.stderr,
    )


def _make(framework: Framework, folder: Path) -> str:
    uv = shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv is not on the path: pip install uv")
    venv = folder / "venv"
    overrides = folder / "overrides.txt"
    folder.mkdir(parents=True, exist_ok=True)
    overrides.write_text(OVERRIDES, encoding="utf-8")
    python = str(venv / "bin" / "python")
    make = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)]
    install = [uv, "pip", "install", "--quiet", "--upgrade", "--python", python]
    install += ["--override", str(overrides), "--editable", f"{ROOT}[openai,simulator]"]
    for command in (make, [*install, *of_the_tests(*TOOLS), *framework.requires]):
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 -- uv
    return python


def _environment(folder: Path) -> dict[str, str]:
    # Compiled once, also where that is turned off: each example starts a process. Not in our tree.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def _ask(python: str, code: str) -> str:
    done = subprocess.run(  # noqa: S603 -- an interpreter of ours
        [python, "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _version(python: str, distribution: str) -> str:
    return _ask(python, f"import importlib.metadata as m; print(m.version({distribution!r}))")


def _cases(report: Path) -> list[Case]:
    found: list[Case] = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 -- pytest wrote it
        test, _, way = case.get("name", "").removesuffix("]").partition("[")
        held = all(child.tag in ("properties", "system-out", "system-err") for child in case)
        told = [one.get("value") for one in case.iter("property") if one.get("name") == "told"]
        way = way if test in BEHAVIOURS else ""
        found.append(Case(test=test, way=way, held=held, told=told[0] if told else None))
    return found
