"""Every failure × every client × every colour, over real sockets: one test is one cell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cline_transport.simulator import Simulator
from tests.clients.support import Colour, sdk_leaves_generators
from tests.transport.conftest import unread

from .callers import CELLS, Cell
from .failure import Failure
from .matrix import FAILURES
from .run import check

pytestmark = [sdk_leaves_generators, unread]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_failure_ends_as_its_row_says(
    failure: Failure, cell: Cell, colour_of: Callable[[str], Colour], api: Simulator
) -> None:
    check(failure, cell, colour_of(cell.colour), api)
