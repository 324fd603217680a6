# SPDX-License-Identifier: Apache-2.0
"""An application that has instrumented httpx itself: its spans are used, none is doubled.

Global instrumentation patches classes of the whole process: the fixture undoes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation import httpx as instrumentation

from cline_transport.simulator import Reply, Simulator

from .support import FAMILY, LIBRARY, Colour, Connect, Mode, Sdk, Traces, sdk_leaves_generators

pytestmark = sdk_leaves_generators

INSTRUMENTOR: Any = {
    "httpx": instrumentation.HTTPXClientInstrumentor,
    "httpx2": getattr(instrumentation, "HTTPX2ClientInstrumentor", None),
}[FAMILY]


@pytest.fixture
def theirs() -> Traces:
    """The application's own traces, apart from those that are given to our transport."""
    return Traces()


@pytest.fixture
def instrumentor(theirs: Traces) -> Iterator[Any]:
    """`instrument()` sends to `theirs`."""

    class Instrumentor:
        def instrument(self) -> None:
            INSTRUMENTOR().instrument(tracer_provider=theirs.provider)

        def uninstrument(self) -> None:
            INSTRUMENTOR().uninstrument()

    yield Instrumentor()
    if INSTRUMENTOR().is_instrumented_by_opentelemetry:
        INSTRUMENTOR().uninstrument()


def ask_and_count(sdk: Sdk, api: Simulator, mode: Mode, *, theirs: Traces, own: int) -> None:
    """One call of two attempts: one span for it, and `own` of its two HTTP spans from ourselves."""
    sdk.traces.exporter.clear()
    theirs.exporter.clear()
    api.enqueue(Reply.error(502), Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"

    (call,) = sdk.traces.calls
    assert theirs.calls == []
    assert len(sdk.traces.attempts) == own
    assert len(theirs.attempts) == 2 - own
    http = [*sdk.traces.attempts, *theirs.attempts]
    assert [span.parent for span in http] == [call.context] * 2
    told = [dict(span.attributes or {}) for span in http]
    assert [one.get("cline.error.code") for one in told] == ["502", None]
    assert [one.get("http.request.resend_count") for one in told] == [None, 1]
    assert [one["cline.request_id"] for one in told] == [
        request.request_id for request in api.requests[-2:]
    ]
    assert theirs.ledger.started == theirs.ledger.ended


@pytest.mark.parametrize("first", ["the instrumentation", "the client"])
def test_global_instrumentation_makes_the_http_spans(
    first: str,
    mode: Mode,
    instrumentor: Any,
    theirs: Traces,
    connect: Connect,
    cline_api: Simulator,
) -> None:
    if first == "the instrumentation":
        instrumentor.instrument()
        sdk = connect()
    else:
        sdk = connect()
        ask_and_count(sdk, cline_api, mode, theirs=theirs, own=2)
        instrumentor.instrument()

    ask_and_count(sdk, cline_api, mode, theirs=theirs, own=0)
    instrumentor.uninstrument()
    ask_and_count(sdk, cline_api, mode, theirs=theirs, own=2)


def instrumented_client(first: str, connect: Connect, colour: Colour, theirs: Traces) -> Sdk:
    http = (LIBRARY.Client if colour.is_sync else LIBRARY.AsyncClient)()
    if first == "the instrumentation":
        INSTRUMENTOR.instrument_client(http, tracer_provider=theirs.provider)
        return connect(http=http, attached=True)
    sdk = connect(http=http, attached=True)
    INSTRUMENTOR.instrument_client(http, tracer_provider=theirs.provider)
    return sdk


either_order = pytest.mark.parametrize("first", ["the instrumentation", "attach"])


@either_order
def test_instrumentation_of_the_client_makes_the_http_spans(
    first: str,
    colour: Colour,
    mode: Mode,
    theirs: Traces,
    connect: Connect,
    cline_api: Simulator,
) -> None:
    sdk = instrumented_client(first, connect, colour, theirs)

    ask_and_count(sdk, cline_api, mode, theirs=theirs, own=0)


@either_order
def test_a_client_that_is_uninstrumented_again_gets_our_http_spans(
    first: str,
    colour: Colour,
    mode: Mode,
    theirs: Traces,
    connect: Connect,
    cline_api: Simulator,
) -> None:
    sdk = instrumented_client(first, connect, colour, theirs)
    ask_and_count(sdk, cline_api, mode, theirs=theirs, own=0)

    INSTRUMENTOR.uninstrument_client(sdk.http)

    ask_and_count(sdk, cline_api, mode, theirs=theirs, own=2)


@pytest.mark.parametrize("scope", ["global", "client"])
def test_instrumentation_that_is_shared_makes_one_trace(
    scope: str,
    mode: Mode,
    instrumentor: Any,
    theirs: Traces,
    connect: Connect,
    cline_api: Simulator,
) -> None:
    sdk = connect()
    if scope == "global":
        INSTRUMENTOR().instrument(tracer_provider=sdk.traces.provider)
    else:
        INSTRUMENTOR.instrument_client(sdk.http, tracer_provider=sdk.traces.provider)
    cline_api.enqueue(Reply.error(502), Reply.error(503), Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"

    (call,) = sdk.traces.calls
    assert [span.parent for span in sdk.traces.attempts] == [call.context] * 3
    assert len(sdk.traces.spans) == 4
