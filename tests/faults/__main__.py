# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.faults --also PYTHON --write`: run the matrix, and write its table."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

from .report import MARKS, SDKS, lines_of

ROOT: Final = Path(__file__).parents[2]
TEST: Final = "test_a_failure_ends_as_its_row_says"
PACKAGES: Final = ("httpx", "httpx2", "openai", "opentelemetry-sdk")
VERSIONS: Final = (
    "import platform, importlib.metadata as m; print('Python', platform.python_version());"
    f"[print(name, m.version(name)) for name in {PACKAGES}]"
)


def run(python: str, *, only: str = "") -> dict[str, bool]:
    """Run the cells in one environment; which of them held."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", "-q", "tests/faults", "-k", TEST + only]
        done = subprocess.run(  # noqa: S603 -- an interpreter that was named, our own tests
            [*command, "--junitxml", str(report)], cwd=ROOT, check=False
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{python}: pytest ended with {done.returncode}")
        cases = ET.parse(report).iter("testcase")  # noqa: S314 -- pytest wrote it
        return {
            case.get("name", "").removeprefix(f"{TEST}[").removesuffix("]"): not len(case)
            for case in cases
        }


def versions(python: str) -> list[str]:
    """What an environment has of what matters here."""
    done = subprocess.run(  # noqa: S603 -- an interpreter that was named
        [python, "-c", VERSIONS], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--also", metavar="PYTHON", help="of an environment with another SDK")
    parser.add_argument("--write", action="store_true", help="write docs/reference/faults.md")
    asked = parser.parse_args()

    held, used = run(sys.executable), versions(sys.executable)
    if asked.also is not None:
        held |= run(asked.also, only=" and openai")
        used += [one for one in versions(asked.also) if one not in used]
    text = "\n".join(lines_of(held, sorted(used)))
    print(f"\n{text}")  # noqa: T201
    if asked.write:
        missing = [sdk for sdk in SDKS if not any(f"-{sdk}-" in cell for cell in held)]
        if missing:
            parser.error(f"the table needs {' and '.join(missing)} too: name it with --also")
        MARKS.write(text)
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
