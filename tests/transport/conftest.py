# SPDX-License-Identifier: Apache-2.0
"""A rig of each family and colour, and an API to call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation import httpx as instrumentation

from cline_transport.simulator import Simulator

from .rig import COLOURS, FAMILIES, Rig, make_rig


@pytest.fixture(params=[(f, c) for f in FAMILIES for c in COLOURS], ids="-".join)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    family, colour = request.param
    with make_rig(family, colour, request) as made:
        yield made


@pytest.fixture(params=FAMILIES)
def sync_rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """For what only a synchronous call can meet."""
    with make_rig(request.param, "sync", request) as made:
        yield made


@pytest.fixture(params=[(f, c) for f in FAMILIES for c in COLOURS if c != "sync"], ids="-".join)
def async_rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """For what only an asynchronous call can meet."""
    family, colour = request.param
    with make_rig(family, colour, request) as made:
        yield made


@pytest.fixture
def api() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def url(api: Simulator) -> str:
    return f"{api.base_url}/chat/completions"


@pytest.fixture
def instrumentor(rig: Rig) -> Iterator[Any]:
    """OpenTelemetry's own, of the rig's family; what it instrumented is undone after the test."""
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}[rig.family]
    made = getattr(instrumentation, kind)()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()
