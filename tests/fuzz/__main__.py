# SPDX-License-Identifier: Apache-2.0
"""Fuzz one target: `python -m tests.fuzz TARGET --seconds N`; it needs the group `fuzz`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parent / "seeds"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=sorted(path.name for path in SEEDS.iterdir()))
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    atheris: Any = import_module("atheris")
    # Only what is imported within is measured: this package, not all that it uses.
    with atheris.instrument_imports(include=["cline_transport", "tests.fuzz.targets"]):
        check = import_module("tests.fuzz.targets").TARGETS[args.target]

    def run(data: bytes) -> None:
        check(data)

    with tempfile.TemporaryDirectory() as found:
        options = [f"-max_total_time={args.seconds}", "-timeout=10", "-rss_limit_mb=2048"]
        options += [f"-artifact_prefix={Path.cwd()}/{args.target}-"]
        options += ["-max_len=4096", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, found, str(SEEDS / args.target)], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
