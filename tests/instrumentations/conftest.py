# SPDX-License-Identifier: Apache-2.0
"""The SDK on our transport, instrumented; and nothing of that is left after a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation import httpx as httpx_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Simulator
from tests.clients.conftest import mode
from tests.clients.support import (
    FAMILY,
    Colour,
    Connect,
    Sdk,
    leaving_nothing_behind,
    make_client,
    start_colour,
)

from .support import Instrumentation, Told, unwrap_the_sdk

__all__ = ["mode"]  # a fixture of theirs


@pytest.fixture(autouse=True)
def their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the instrumentations, but a test's own."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "TRACELOOP_", "OPENINFERENCE_", "OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture(params=["sync", "asyncio"])
def colour(request: pytest.FixtureRequest) -> Iterator[Colour]:
    with start_colour(request.param) as started:
        yield started


@pytest.fixture
def sampler() -> Sampler:
    """Every span is recorded, unless a test says otherwise."""
    return ALWAYS_ON


@pytest.fixture
def told(sampler: Sampler) -> Told:
    return Told(sampler)


@pytest.fixture
def instrumentor(instrumentation: Instrumentation, told: Told) -> Iterator[Any]:
    """The instrumentation, in force."""
    one = instrumentation.instrumentor()
    one.instrument(tracer_provider=told.provider, meter_provider=told.meters)
    assert one.is_instrumented_by_opentelemetry, "it does not support this version of the SDK"
    yield one
    if one.is_instrumented_by_opentelemetry:
        one.uninstrument()
    unwrap_the_sdk()


@pytest.fixture
def connect(
    colour: Colour, cline_api: Simulator, told: Told, caplog: pytest.LogCaptureFixture
) -> Iterator[Connect]:
    """Makes clients, and after the test looks for what they left behind."""

    def make(**options: Any) -> Sdk:
        kind = http_client if colour.is_sync else async_http_client
        http = kind(tracer_provider=told.provider, meter_provider=told.meters)
        made.append(Sdk(colour, make_client(colour, cline_api, http, **options), told))
        return made[-1]

    with leaving_nothing_behind(told, caplog) as made:
        yield make


@pytest.fixture
def sdk(instrumentor: Any, connect: Connect) -> Sdk:
    """A client of the SDK within the instrumentation."""
    return connect()


@pytest.fixture
def httpx_instrumentor(told: Told) -> Iterator[Any]:
    """The application's own instrumentation of httpx, in the same trace; not yet in force."""
    kind: Any = {
        "httpx": httpx_instrumentation.HTTPXClientInstrumentor,
        "httpx2": getattr(httpx_instrumentation, "HTTPX2ClientInstrumentor", None),
    }[FAMILY]

    class Instrumentor:
        def instrument(self) -> None:
            kind().instrument(tracer_provider=told.provider)
            assert kind().is_instrumented_by_opentelemetry

    yield Instrumentor()
    if kind().is_instrumented_by_opentelemetry:
        kind().uninstrument()
