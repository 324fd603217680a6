# SPDX-License-Identifier: Apache-2.0
"""What a call costs with each client, as ratios to its bare library: `python -m tests.benchmarks`.

Instructions of the client's process (callgrind), which are the same on a busy machine; beside them
its CPU time, each run next to one of the bare library; and the memory of an open stream. It needs
the dependency group `benchmark`, and valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cline_transport.simulator import Reply, Simulator

from .report import ASSETS, MARKS, WHATS, Cost, draw_pictures, lines_of
from .work import GROUPS, HTTPX

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = 300
WORDS: Final = [f"word{number} " for number in range(EVENTS)]
COUNTS: Final = {"json": 100, "stream": 5}
STREAMS: Final = 64
"""Open at once, to measure their memory."""


PACKAGES: Final = (
    "httpx", "httpx2", "openai", "opentelemetry-sdk", "opentelemetry-instrumentation-httpx",
    "httpx-retries", "pydantic-ai-slim", "opentelemetry-instrumentation-genai-openai",
    "openinference-instrumentation-openai",
)  # fmt: skip


def answer(request: object) -> Reply:
    """A word of JSON, or a stream of three hundred events."""
    body: bytes = getattr(request, "body", b"")
    wants = json.loads(body).get("stream", False)
    return Reply.stream("".join(WORDS), chunks=WORDS) if wants else Reply.completion("Hello")


def command(kind: str, api: Simulator, what: str, count: int) -> list[str]:
    """The work, as a process of its own."""
    work = [sys.executable, "-m", "tests.benchmarks.work", kind, api.base_url, api.api_key, what]
    return [*work, str(count)]


def environment() -> dict[str, str]:
    """Nothing that measures or configures what is measured."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("COVERAGE_", "OTEL_"))}
    return kept | {"PYTHONHASHSEED": "0"}


def run(kind: str, api: Simulator, what: str, count: int) -> float:
    """The work in one process; the figure that it prints."""
    done = subprocess.run(  # noqa: S603 -- our own interpreter, our own script
        command(kind, api, what, count), cwd=ROOT, env=environment(), capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{kind}, {what}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def count_instructions(kind: str, api: Simulator, what: str) -> int:
    """Instructions of one call."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "count"
        tool = [
            str(shutil.which("valgrind")), "--tool=callgrind", "--dump-after=functools_reduce",
            "--toggle-collect=functools_reduce", "--instr-atstart=no",
            f"--callgrind-out-file={out}",
        ]  # fmt: skip
        work = subprocess.Popen(  # noqa: S603 -- the same, within valgrind
            [*tool, *command(kind, api, what, COUNTS[what]), "counted"], cwd=ROOT,
            env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with work:
            if work.stdout is not None and work.stdout.readline():
                control = [str(shutil.which("callgrind_control")), "-i", "on", str(work.pid)]
                subprocess.run(control, check=True, capture_output=True, timeout=60)  # noqa: S603
            _, errors = work.communicate("\n", timeout=600)
        counted = Path(f"{out}.1")
        text = counted.read_text() if counted.exists() else errors[-2000:]
    found = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{kind}, {what}: callgrind counted nothing: {text[-2000:]}")
    return int(found[1]) // COUNTS[what]


def time_ratio(kind: str, base: str, api: Simulator, what: str, pairs: int) -> float | None:
    """CPU time as a multiple of the bare library's, each run next to one of it."""
    if kind == base or not pairs:
        return None if not pairs else 1.0
    count = 2 * COUNTS[what]
    return statistics.median(
        run(kind, api, what, count) / run(base, api, what, count) for _ in range(pairs)
    )


def main() -> None:
    """Measure, print, and write if that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="runs for the CPU time (default 3)")
    parser.add_argument("--only", default="", help="kinds whose name contains this, and the bare")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md; takes all")
    options = parser.parse_args()
    costs: dict[tuple[str, str], Cost] = {}
    memory: dict[str, float] = {}
    with Simulator(respond=answer) as api:
        for group in GROUPS:
            base = next(iter(group))
            for kind in group:
                if options.only not in kind and kind != base:
                    continue
                for what in WHATS:
                    count = count_instructions(kind, api, what)
                    ratio = count / costs.get((base, what), Cost(count, 1, 1)).instructions
                    timed = time_ratio(kind, base, api, what, options.pairs)
                    costs[kind, what] = Cost(count, ratio, timed)
                    time = "" if timed is None else f", CPU time {timed:.2f}"
                    print(f"{kind:48} {what:7} {count:>12,} {ratio:.3f}{time}", flush=True)  # noqa: T201
        for kind in HTTPX:
            if options.only in kind or kind == next(iter(HTTPX)):
                memory[kind] = run(kind, api, "memory", STREAMS)
                print(f"{kind:48} memory  {memory[kind]:>12,.0f} bytes", flush=True)  # noqa: T201
    if options.write and not options.only:
        versions = [f"{name} {version(name)}" for name in PACKAGES]
        MARKS.write("\n".join(lines_of(costs, memory, versions)))
        draw_pictures(ASSETS)


if __name__ == "__main__":
    main()
