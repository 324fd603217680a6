# SPDX-License-Identifier: Apache-2.0
"""A client of the installed SDK in each colour, and what must hold after every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cline_transport import Settings, attach
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Simulator

from .support import (
    COLOURS,
    Colour,
    Connect,
    Mode,
    Sdk,
    Traces,
    leaving_nothing_behind,
    make_client,
    start_colour,
)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> Iterator[Colour]:
    with start_colour(request.param) as started:
        yield started


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

    with leaving_nothing_behind(traces, caplog) as made:
        yield make


@pytest.fixture
def sdk(connect: Connect) -> Sdk:
    return connect()
