# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.comparison --write`: ask every contender, and write the tables.

Each has an environment of its own, made with uv and thrown away; those that the environment of the
tests has are asked in this one, as `tests/docs/test_comparison.py` does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from .questions import CONTENDERS, Contender, questions_of
from .report import MARKS, lines_of

__all__ = ["ask", "main"]

ROOT: Final = Path(__file__).parents[2]
REQUIREMENTS: Final = Path(__file__).parent / "requirements"
BESIDE: Final = (
    "--editable",
    ".[httpx2,openai,simulator]",
    "opentelemetry-sdk>=1.44",
    "trio>=0.27",
)


def make_environment(contender: Contender, folder: Path) -> str:
    """The Python of an environment that has it."""
    uv = shutil.which("uv")
    if uv is None:
        raise RuntimeError("it needs uv: pip install uv")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    groups = () if contender.group is None else (contender.group, "openai3")
    wanted = [word for group in groups for word in ("--group", group)]
    if contender.requirements is not None:
        wanted += ["--requirements", str(REQUIREMENTS / contender.requirements)]
    venv = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
    install = [uv, "pip", "install", "--quiet", "--python", str(python), *wanted, *BESIDE]
    for command in (venv, install):
        subprocess.run(command, cwd=ROOT, check=True, timeout=600)  # noqa: S603 -- uv, our lists
    return str(python)


def ask(contender: Contender, python: str) -> tuple[dict[str, str], dict[str, str]]:
    """All its answers, and the versions of its packages.

    Raises:
        RuntimeError: It could not be asked.
    """
    done = subprocess.run(  # noqa: S603 -- an environment's own interpreter, our own script
        [python, "-m", "tests.comparison.work", contender.name],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{contender.name}: {done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["answers"], found["versions"]


def main() -> None:
    """Ask, print, and write if that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    parser.add_argument("--only", choices=list(CONTENDERS), help="one of them")
    parser.add_argument("--write", action="store_true", help="into docs/comparison.md; takes all")
    options = parser.parse_args()
    answers: dict[tuple[str, str], str] = {}
    versions: dict[str, dict[str, str]] = {}
    for name, contender in CONTENDERS.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            python = sys.executable
            if not contender.is_here:
                python = make_environment(contender, Path(folder) / "environment")
            said, versions[name] = ask(contender, python)
        for question in questions_of(name):
            answers[name, question] = said[question]
            print(f"{name:16} {question:26} {said[question]}", flush=True)  # noqa: T201
    if options.write and options.only is None:
        MARKS.write("\n".join(lines_of(answers, versions)))


if __name__ == "__main__":
    main()
