"""What a call costs with each client, as ratios to its bare library: `python -m tests.benchmarks`.

Instructions of the client's process (callgrind), which are the same on a busy machine, and beside
them its CPU time, in pairs of runs. It needs the dependency group `benchmark`, and valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from cline_transport.simulator import Reply, Simulator
from tests.benchmarks.work import HTTPX, KINDS, SDK

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = 300
WORDS: Final = [f"word{number} " for number in range(EVENTS)]
COUNTS: Final = {"json": 20, "stream": 4}
PACKAGES: Final = (
    "httpx", "httpx2", "openai", "opentelemetry-sdk", "opentelemetry-instrumentation-httpx",
    "httpx-retries", "pydantic-ai-slim", "opentelemetry-instrumentation-genai-openai",
    "openinference-instrumentation-openai",
)  # fmt: skip


class Cost(NamedTuple):
    """Of one call: instructions, and the CPU time of several runs in seconds."""

    instructions: int
    seconds: list[float]


def answer(request: object) -> Reply:
    """Sixteen bytes of JSON, or a stream of three hundred events."""
    body: bytes = getattr(request, "body", b"")
    wants = json.loads(body).get("stream", False)
    return Reply.stream("".join(WORDS), chunks=WORDS) if wants else Reply.completion("Hello")


def run(kind: str, api: Simulator, what: str, *, counted: Path | None = None) -> float:
    """One process; its CPU seconds per call."""
    work = [sys.executable, "-m", "tests.benchmarks.work"]
    work += [kind, api.base_url, api.api_key, what, str(COUNTS[what] * (1 if counted else 5))]
    if counted is not None:
        tool = [str(shutil.which("valgrind")), "--tool=callgrind", "--dump-after=functools_reduce"]
        work = [
            *tool,
            "--toggle-collect=functools_reduce",
            f"--callgrind-out-file={counted}",
            *work,
        ]
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("COVERAGE_", "OTEL_"))}
    done = subprocess.run(  # noqa: S603 -- our own interpreter, our own script
        work, cwd=ROOT, env=kept | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{kind}, {what}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def measure(kind: str, api: Simulator, what: str, pairs: int) -> Cost:
    """One kind of client at one kind of call."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "count"
        run(kind, api, what, counted=out)
        found = re.search(r"^totals: (\d+)$", Path(f"{out}.1").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{kind}, {what}: callgrind counted nothing")
    seconds = [run(kind, api, what) for _ in range(pairs)]
    return Cost(int(found[1]) // COUNTS[what], seconds)


def ratio(cost: Cost, base: Cost) -> str:
    """As the table has it: by instructions, and by CPU time."""
    by_count = cost.instructions / base.instructions
    if not base.seconds:
        return f"{by_count:.3f}"
    by_time = statistics.median(
        mine / theirs for mine, theirs in zip(cost.seconds, base.seconds, strict=True)
    )
    return f"{by_count:.3f} ({by_time:.2f})"


def table(costs: dict[tuple[str, str], Cost]) -> Iterator[str]:
    """The costs in Markdown."""
    yield "| client | JSON call | stream of 300 events |"
    yield "| --- | ---: | ---: |"
    for group in (HTTPX, SDK):
        base = next(iter(group))
        for kind in group:
            cells = (ratio(costs[kind, what], costs[base, what]) for what in COUNTS)
            yield f"| {kind} | {' | '.join(cells)} |"


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=0, help="runs for the CPU time (default none)")
    parser.add_argument("--only", default="", help="kinds whose name contains this, and the bare")
    options = parser.parse_args()
    bases = (next(iter(HTTPX)), next(iter(SDK)))
    kinds = [kind for kind in KINDS if options.only in kind or kind in bases]
    costs: dict[tuple[str, str], Cost] = {}
    with Simulator(respond=answer) as api:
        for kind in kinds:
            for what in COUNTS:
                costs[kind, what] = cost = measure(kind, api, what, options.pairs)
                base = bases[kind in SDK]
                told = ratio(cost, costs[base, what])
                print(f"{kind:42} {what:7} {cost.instructions:>12,} {told}", flush=True)  # noqa: T201
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"Python {platform.python_version()}, {versions}")  # noqa: T201
    if not options.only:
        print("\n".join(table(costs)))  # noqa: T201


if __name__ == "__main__":
    main()
