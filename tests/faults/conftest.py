# SPDX-License-Identifier: Apache-2.0
"""What the cells of a module share: one API, and an event loop for each colour."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import pytest

from cline_transport.simulator import Simulator
from tests.clients.support import Colour, start_colour


class Colours:
    """The colours by their names, each started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[str, Colour] = {}
        self._last = ""

    def __getitem__(self, name: str) -> Colour:
        self._last = name
        if name not in self._started:
            self._started[name] = self._stack.enter_context(start_colour(name))
        return self._started[name]

    def settle(self) -> None:
        """End what the last cell left to the collector: trio says so, and in that cell it should.

        A generator that is collected is closed by the event loop, and so are those within it.
        """
        if self._last == "trio":
            for _ in range(2):
                gc.collect()
                self._started["trio"].run(anyio.wait_all_tasks_blocked)


@pytest.fixture(scope="module")
def api() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def all_colours() -> Iterator[Colours]:
    gc.collect()
    gc.freeze()  # what was there before is left out of the many collections
    with ExitStack() as stack:
        yield Colours(stack)
    gc.unfreeze()


@pytest.fixture
def colours(all_colours: Colours) -> Iterator[Colours]:
    gc.disable()  # not before it is asked to, and not in whichever thread
    yield all_colours
    all_colours.settle()
    gc.enable()
