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


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """What was there before the cells is left out of their collections: those take no time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def collected(frozen: None) -> Iterator[None]:
    """What a cell leaves behind is reported in it; its event loop lives on with others."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()
