"""What the cells of a module share: one API, and an event loop for each colour."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cline_transport.simulator import Simulator
from tests.clients.support import Colour, start_colour


@pytest.fixture(scope="module")
def api() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def colour_of() -> Iterator[Callable[[str], Colour]]:
    """A colour by its name, started when it is first asked for."""
    started: dict[str, Colour] = {}
    with ExitStack() as stack:

        def start(name: str) -> Colour:
            if name not in started:
                started[name] = Colour(name, stack.enter_context(start_colour(name)))
            return started[name]

        yield start
        gc.collect()  # what the cells leave behind is reported among them, not in a later test
