# SPDX-License-Identifier: Apache-2.0
"""A client of the installed SDK in each colour, and what must hold after every test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cline_transport import Settings, attach
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Simulator

from .support import (
    COLOURS,
    Colour,
    Mode,
    Sdk,
    Traces,
    assert_nothing_is_checked_out,
    make_client,
    start_colour,
)

Connect = Callable[..., Sdk]


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> Iterator[Colour]:
    name: str = request.param
    with start_colour(name) as portal:
        yield Colour(name, portal)


@pytest.fixture(params=["json", "stream"])
def mode(request: pytest.FixtureRequest) -> Mode:
    asked: Mode = request.param
    return asked


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def connect(
    colour: Colour, cline_api: Simulator, traces: Traces, caplog: pytest.LogCaptureFixture
) -> Iterator[Connect]:
    """Makes clients, and after the test looks for what they left behind."""
    caplog.set_level(logging.DEBUG, logger="cline_transport")
    made: list[Sdk] = []

    def make(
        *,
        settings: Settings | None = None,
        http: Any = None,
        attached: bool = False,
        **options: Any,
    ) -> Sdk:
        telling: dict[str, Any] = {"settings": settings, "tracer_provider": traces.provider}
        if attached:
            client: Any = attach(make_client(colour, cline_api, http, **options), **telling)
        else:
            if http is None:
                http = (http_client if colour.is_sync else async_http_client)(**telling)
            client = make_client(colour, cline_api, http, **options)
        made.append(Sdk(colour, client, traces))
        return made[-1]

    yield make
    for sdk in made:
        assert_nothing_is_checked_out(sdk.http)
        sdk.close()
    assert traces.ledger.started == traces.ledger.ended
    swallowed = [one.getMessage() for one in caplog.records if one.levelno == logging.DEBUG]
    assert swallowed == [], "telemetry failed, and the call went on"


@pytest.fixture
def sdk(connect: Connect) -> Sdk:
    return connect()
