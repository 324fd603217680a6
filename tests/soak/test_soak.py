# SPDX-License-Identifier: Apache-2.0
"""A small soak: the big one is `python -m tests.soak`."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from .faults import plan
from .figures import Figures
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
        return [
            (call.kinds, call.mode, call.behaviour, [call.reply(number) for number in (1, 2, 5)])
            for call in calls
        ]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_what_was_sent_is_known_by_its_request_id() -> None:
    call = plan(1, 7)
    assert call.sent("req_7_1") is not None
    assert call.sent("req_8_1") is None
    assert call.sent("") is None


def test_memory_is_judged_by_its_second_tenth_and_its_last() -> None:
    sizes = [100, 110, 120, 111, 112, 113, 114, 115, 116, 121]
    memory = [(20_000 * (tenth + 1), size) for tenth, size in enumerate(sizes)]
    figures = Figures(200_000, 1, memory=memory)
    assert figures.growth == pytest.approx(0.1)
    assert Figures(500, 1, memory=[(done // 400, size) for done, size in memory]).growth is None


def test_the_figures_say_what_did_not_hold() -> None:
    figures = Figures(10, 1, seconds=2.0, failed=["a permit is held"])
    figures.ends["sync", "delivered"] = 1234
    text = figures.page()
    assert text.startswith("`--calls 10 --seed 1`")
    assert "| threads | 1,234 | 0 | 0 |" in text
    assert "- a permit is held" in text
