# SPDX-License-Identifier: Apache-2.0
"""What a run found, as a summary and as the table of the documentation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.pages import Marks

from .clients import Colour

__all__ = ["GROWTH", "MARKS", "Figures"]

UNCACHED: Final = "glibc.malloc.tcache_count=0" in os.environ.get("GLIBC_TUNABLES", "")
ENOUGH: Final = 5_000 if UNCACHED else 100_000
"""Calls below which memory says nothing.

Objects and what they take do not grow after the first thousand. But each thread's malloc keeps some
blocks of each size that it ever freed, and fragments of its own arena; until all of them have seen
all sizes that takes 20,000 calls and some MiB.
"""
GROWTH: Final = 0.02
MARKS: Final = Marks(Path(__file__).parents[2] / "docs" / "reliability.md", "soak")

_COLOURS: Final[dict[Colour, str]] = {"sync": "threads", "asyncio": "asyncio", "trio": "trio"}
_OUTCOMES: Final = ("delivered", "failed", "cancelled")
_PACKAGES: Final = ("httpx", "httpx2", "trio", "opentelemetry-sdk")


@dataclass
class Figures:
    """What a run found."""

    calls: int
    seed: int
    seconds: float = 0.0
    ends: Counter[tuple[Colour, str]] = field(default_factory=Counter[tuple[Colour, str]])
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    wrong: list[str] = field(default_factory=list[str])
    requests: int = 0
    spans: int = 0
    cut: int = 0
    """Of the delivered, those that broke off where HTTP could not tell."""
    longest: float = 0.0
    """Seconds that a call took."""
    memory: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Calls done, and bytes resident then."""
    failed: list[str] = field(default_factory=list[str])
    """The invariants that do not hold."""

    def check(self, holds: bool, message: str) -> None:  # noqa: FBT001 -- as `assert` has it
        if not holds:
            self.failed.append(message)

    def resident(self, tenth: int) -> float:
        """The memory in a tenth of the calls, the first being 1; 0: not known."""
        low, high = (tenth - 1) / 10, tenth / 10
        sizes = [size for done, size in self.memory if low < done / self.calls <= high]
        return statistics.median(sizes) if sizes else 0.0

    @property
    def growth(self) -> float | None:
        """Of the memory, from the second tenth of the calls to the last; `None`: too few."""
        second, last = self.resident(2), self.resident(10)
        if self.calls < ENOUGH or not second or not last:
            return None
        return last / second - 1

    def table(self) -> str:
        """The closing summary."""
        lines = [f"{'':22}" + "".join(f"{name:>11}" for name in (*_OUTCOMES, "all"))]
        rows: list[tuple[str, list[int]]] = [
            (name, [self.ends[colour, outcome] for outcome in _OUTCOMES])
            for colour, name in _COLOURS.items()
        ]
        rows += [
            (kind, [self.kinds[kind, outcome] for outcome in _OUTCOMES])
            for kind in sorted({kind for kind, _ in self.kinds})
        ]
        for name, counts in rows:
            numbers = "".join(f"{count:>11,}" for count in (*counts, sum(counts)))
            lines.append(f"{name:22}{numbers}")
        growth = self.growth
        told = "not judged: too few calls" if growth is None else f"{growth:+.2%}"
        lines += [
            "",
            f"{self.calls:,} calls (seed {self.seed}), {self.requests:,} requests in "
            f"{self.seconds:.0f} s: {self.calls / self.seconds:.0f} calls a second, "
            f"the longest took {self.longest:.1f} s",
            f"spans: {self.spans:,}; cut off where HTTP cannot tell: {self.cut:,}",
            f"memory, last tenth against second: {told}",
            *(f"FAILED: {message}" for message in self.failed),
        ]
        if not self.failed:
            lines.append("every invariant holds")
        return "\n".join(lines)

    def page(self) -> str:
        """The same for the documentation."""
        begin, end = ((self.resident(tenth) / 2**20) for tenth in (2, 10))
        growth = self.growth
        grown = "" if growth is None else f" ({growth:+.1%})"
        versions = [
            f"{name} {importlib.metadata.version(name)}"
            for name in _PACKAGES
            if importlib.util.find_spec(name.partition("-")[0])
        ]
        rows = [
            "| " + " | ".join([name, *(f"{self.ends[colour, one]:,}" for one in _OUTCOMES)]) + " |"
            for colour, name in _COLOURS.items()
        ]
        lines = [
            f"`--calls {self.calls} --seed {self.seed}`: {self.requests:,} requests in "
            f"{self.seconds / 60:.0f} min, {self.calls / self.seconds:.0f} calls a second.",
            "",
            "| | Delivered | Failed | Given up |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            "",
            f"{self.spans:,} spans began and ended. Memory: {begin:.1f} MiB in the second tenth, "
            f"{end:.1f} MiB in the last{grown}. The longest call took {self.longest:.1f} s. "
            + ("Not all of the above held:" if self.failed else "All of the above held."),
            "",
            *(f"- {message}\n" for message in self.failed),
            f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}, {', '.join(versions)}.",
        ]
        return "\n".join(lines)
