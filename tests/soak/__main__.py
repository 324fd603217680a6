# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak --calls 200000 --seed 1`: many calls, and whether anything is left."""

from __future__ import annotations

import argparse
import math
import sys

from .figures import MARKS
from .run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    asked = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201

    figures = run(asked.calls, asked.seed, seconds=asked.seconds, say=say)
    say(f"\n{figures.table()}")
    if asked.write:
        MARKS.write(figures.page())
    return 1 if figures.failed else 0


if __name__ == "__main__":
    sys.exit(main())
