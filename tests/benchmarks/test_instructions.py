# SPDX-License-Identifier: Apache-2.0
"""What telemetry costs a call, as a ratio of instructions: the same on a busy machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cline_transport.simulator import Simulator

from .counted import KINDS

ROOT = Path(__file__).parents[2]
CALLS = 40

needs_callgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None,
    reason="valgrind counts the instructions: apt-get install valgrind",
)


def instructions(folder: Path) -> dict[str, int]:
    """Instructions per call for each kind of telemetry."""
    with Simulator() as api:
        subprocess.run(  # noqa: S603 -- our own interpreter, our own script
            [
                str(shutil.which("valgrind")),
                "--tool=callgrind",
                "--toggle-collect=functools_reduce",
                "--dump-after=functools_reduce",
                f"--callgrind-out-file={folder / 'count'}",
                sys.executable,
                "-m",
                "tests.benchmarks.counted",
                f"{api.base_url}/chat/completions",
                api.api_key,
                str(CALLS),
            ],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            check=True,
            timeout=500,
        )
    counts: dict[str, int] = {}
    for number, kind in enumerate(KINDS, 1):
        found = re.search(
            r"^totals: (\d+)$", (folder / f"count.{number}").read_text(), re.MULTILINE
        )
        assert found is not None
        counts[kind] = int(found.group(1)) // CALLS
    return counts


def clean_environment() -> dict[str, str]:
    """Nothing that would be counted with the calls: no coverage, the same hashes each time."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("COVERAGE_", "OTEL_"))}
    return kept | {"PYTHONHASHSEED": "0"}


@needs_callgrind
def test_what_telemetry_costs(tmp_path: Path) -> None:
    counts = instructions(tmp_path)
    ratios = {kind: count / counts["off"] for kind, count in counts.items()}
    print(counts, ratios)  # noqa: T201 -- with -s
    assert counts["off"] > 1_000_000  # the calls were counted
    assert ratios["no SDK"] < 1.03
    assert ratios["not sampled"] < 1.10
    assert ratios["recorded"] > 1.10  # or nothing was compared
