# SPDX-License-Identifier: Apache-2.0
"""Every failure with every client in every colour, over real sockets: one test is one cell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cline_transport.simulator import Reply, Simulator
from tests.clients.support import sdk_leaves_generators
from tests.transport.rig import unread

from .callers import CELLS, Cell
from .conftest import Colours
from .failure import NEVER, SAID, THRICE, Failure, HttpError, Raised
from .matrix import FAILURES
from .run import check

pytestmark = [sdk_leaves_generators, unread]

MATRIX = [
    pytest.param(failure, cell, id=f"{failure.name}-{cell.id}")
    for failure in FAILURES
    for cell in CELLS
    if failure.for_sdk or not cell.is_sdk
]


@pytest.mark.parametrize(("failure", "cell"), MATRIX)
def test_a_failure_ends_as_its_row_says(
    failure: Failure, cell: Cell, colours: Colours, api: Simulator
) -> None:
    check(failure, cell, colours[cell.colour], api)


# --- a row that is wrong is found out ---

HTTP = Failure(
    name="a 503", reply=Reply.error(503), waits=THRICE, end=HttpError(status=503, code=503)
)
STREAM = next(one for one in FAILURES if one.name == "rate_limit, after content")
AN_EXCEPTION = Raised(exception="ReadError", code="rate_limit", phase="mid_stream", text=SAID)
WRONG: dict[str, Failure] = {
    "no retries": replace(HTTP, waits=NEVER),
    "other waits": replace(HTTP, waits=(1.0, 2.0, 5.0)),
    "another reply": replace(HTTP, reply=Reply.error(502)),
    "another status": replace(HTTP, end=HttpError(status=502, code=503)),
    "another code": replace(HTTP, end=HttpError(status=503, code="server_error")),
    "another body": replace(HTTP, end=HttpError(status=503, code=503, body="documented")),
    "another phase": replace(HTTP, end=HttpError(status=503, code=503, phase="mid_stream")),
    "not final": replace(HTTP, end=HttpError(status=503, code=503, final=False)),
    "retries after content": replace(STREAM, waits=(1.0,)),
    "another code in a stream": replace(STREAM, end=replace(STREAM.end, code="server_error")),
    "an exception in place of an event": replace(STREAM, end=AN_EXCEPTION),
}


@pytest.mark.parametrize(
    "cell", [one for one in CELLS if one.colour == "sync"], ids=lambda cell: cell.id
)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_row_that_is_wrong_fails(
    wrong: Failure, cell: Cell, colours: Colours, api: Simulator
) -> None:
    with pytest.raises(AssertionError):
        check(wrong, cell, colours[cell.colour], api)


def test_a_name_is_that_of_one_failure() -> None:
    assert len({failure.name for failure in FAILURES}) == len(FAILURES)
