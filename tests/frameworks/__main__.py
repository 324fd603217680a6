# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.frameworks [NAME ...] [--write]`: each framework in its own environment."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from .environments import Result, run_in_its_environment
from .frameworks import FRAMEWORKS, NOTED, Framework, named
from .report import MARKS, lines_of, missing

NAMES: Final = [one.name for one in (*FRAMEWORKS, *NOTED)]
AT_ONCE: Final = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.frameworks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; default: those of the table",
    )
    parser.add_argument("--write", action="store_true", help="write docs/ecosystem.md")
    parser.add_argument("--folder", type=Path, help="keep the environments there")
    asked = parser.parse_args()
    unknown = sorted(set(asked.names) - set(NAMES))
    if unknown:
        parser.error(f"no framework is named {', '.join(unknown)}")
    chosen = [named(name) for name in asked.names] or list(FRAMEWORKS)
    if asked.write and not set(FRAMEWORKS) <= set(chosen):
        parser.error("the page is written from all of its frameworks")

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = asked.folder or Path(temporary)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(in_folder(folder), chosen))
    say(f"{time.monotonic() - started:.0f} s in all")

    of_the_table = [one for one in results if one.framework in FRAMEWORKS]
    text = "\n".join(lines_of(of_the_table))
    wrong = missing(of_the_table)
    wrong += [
        f"{one.framework.title}: failed"
        for one in results
        if one.failed and one not in of_the_table
    ]
    if of_the_table:
        say(f"\n{text}\n")
    if asked.write and not wrong:
        MARKS.write(text)
    for one in wrong:
        say(one)
    passed = sum(case.held for one in results for case in one.cases)
    failed = sum(not case.held for one in results for case in one.cases)
    say(f"{passed} passed, {failed} failed")
    return 1 if wrong else 0


def in_folder(folder: Path) -> Callable[[Framework], Result]:
    """What makes each environment there, and tells of it."""

    def run(framework: Framework) -> Result:
        try:
            result = run_in_its_environment(framework, folder / framework.name)
        except subprocess.CalledProcessError as exc:
            say(f"{framework.title}: {exc.stderr}")
            raise
        making, testing = result.seconds
        say(
            f"{framework.title} {result.version}, openai {result.sdk} on {result.family}: "
            f"environment {making:.0f} s, {len(result.cases)} tests {testing:.0f} s"
        )
        if result.failed:
            say(result.output)
        return result

    return run


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
