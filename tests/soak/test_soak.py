"""A small soak: the big one is `python -m tests.soak`."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from .faults import plan
from .run import run

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it reads /proc"),
    # Of a body that is not read to its end, both libraries leave generators behind; trio says so.
    pytest.mark.filterwarnings(
        r"ignore:Async generator '(httpx2?|httpcore2?|anyio)\.:ResourceWarning",
        "ignore:Exception ignored in. <async_generator object (Response|Bound|Pool|Async|HTTP)"
        ":pytest.PytestUnraisableExceptionWarning",
    ),
]


def test_after_calls_of_all_kinds_nothing_is_left() -> None:
    figures = run(600, seed=20261122)
    gc.collect()  # what this leaves behind is reported here, not in a later test
    assert figures.failed == [], figures.table()
    assert sum(figures.ends.values()) == 600
    assert {colour for colour, _ in figures.ends} == {"sync", "asyncio", "trio"}
    assert {outcome for _, outcome in figures.ends} == {"delivered", "failed", "cancelled"}


def test_faults_are_chosen_by_the_seed() -> None:
    def chosen(seed: int) -> list[object]:
        calls = [plan(seed, number) for number in range(50)]
        return [(call.kinds, call.mode, call.behaviour, call.replies) for call in calls]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
