# SPDX-License-Identifier: Apache-2.0
"""A program: each way in to the transport, with real calls, for the libraries that are named.

`python -m tests.families.ways_in FAMILY... [--alias]`. Prints one line of JSON for each way in: the
library that answered, the page that its transport is of, attempts, spans, and what was explained.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import cline_transport
from cline_transport.instrumentor import ClineTransportInstrumentor
from cline_transport.simulator import Reply, Simulator

CHAT = {"model": "cline/ok", "messages": [{"role": "user", "content": "hello"}]}
FIRST: dict[str, Any] = {"max_retries": 1, "initial": 0}

SPANS = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(SPANS))


def settings() -> cline_transport.Settings:
    """One retry of a 503, at once."""
    retry: Any = {"rules": {503: FIRST}, "jitter": 0}
    return cline_transport.Settings(hosts=("127.0.0.1",), retry=retry)


def ways(family: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The ways to a client of one library, by their names."""
    library: Any = import_module(family)
    page: Any = import_module(f"cline_transport.{family}")
    told: dict[str, Any] = {"settings": settings(), "tracer_provider": PROVIDER}
    yield "transport", lambda: library.Client(transport=page.ClineTransport(**told))
    yield (
        "async transport",
        lambda: library.AsyncClient(transport=page.AsyncClineTransport(**told)),
    )
    yield "attach", lambda: cline_transport.attach(library.Client(), **told)
    yield "async attach", lambda: cline_transport.attach(library.AsyncClient(), **told)
    yield "instrumentor", library.Client
    yield "async instrumentor", library.AsyncClient


def call(api: Simulator, client: Any) -> tuple[Any, Any]:
    """A call that fails once and is then refused for good: the response, and `error_info` of it."""
    api.enqueue(Reply.error(503), Reply.error(402, message="No credits"))
    url = f"{api.base_url}/chat/completions"
    if hasattr(client, "aclose"):

        async def post() -> Any:
            async with client:
                return await client.post(url, json=CHAT)

        response = asyncio.run(post())
    else:
        with client:
            response = client.post(url, json=CHAT)
    return response, cline_transport.error_info(response)


def tell(way: str, family: str, client: Any, response: Any, info: Any) -> None:
    """One line for one way in."""
    record = response.extensions["cline_transport"]
    spans = SPANS.get_finished_spans()
    SPANS.clear()
    told: dict[str, Any] = {
        "way": way,
        "family": family,
        "library": type(response).__module__,
        "client": type(client).__module__,
        "attempts": len(record.attempts),
        "http_spans": sum(span.name == "POST" for span in spans),
        "spans": len(spans),
        "code": info and info.code,
        "advice": info and info.advice,
    }
    print(json.dumps(told))  # noqa: T201 - it is a program


def sdk(api: Simulator) -> None:
    """The SDK, where it is installed, with `http_client()`."""
    from openai import APIStatusError, OpenAI  # noqa: PLC0415 - it imports its library

    from cline_transport.openai import http_client  # noqa: PLC0415 - the same

    http: Any = http_client(settings=settings(), tracer_provider=PROVIDER)
    client: Any = OpenAI(base_url=api.base_url, api_key=api.api_key, http_client=http)
    api.enqueue(Reply.error(503), Reply.error(402, message="No credits"))
    try:
        client.chat.completions.create(**CHAT)
    except APIStatusError as exc:
        tell("openai", "openai", http, exc.response, cline_transport.error_info(exc))
    client.close()


def main(*arguments: str) -> None:
    """Run all ways in."""
    families = [name for name in arguments if not name.startswith("-")]
    if "--alias" in arguments:
        import_module("httpx2").alias_httpx()
    with Simulator() as api:
        for family in families:
            for way, make in ways(family):
                instrumentor: Any = ClineTransportInstrumentor()
                if way.endswith("instrumentor"):
                    instrumentor.instrument(settings=settings(), tracer_provider=PROVIDER)
                client = make()
                tell(way, family, client, *call(api, client))
                if way.endswith("instrumentor"):
                    instrumentor.uninstrument()
        if "--sdk" in arguments:
            sdk(api)
    loaded = [name for name in ("httpx", "httpx2", "httpcore", "httpcore2") if name in sys.modules]
    print(json.dumps({"loaded": loaded}))  # noqa: T201 - it is a program


if __name__ == "__main__":
    main(*sys.argv[1:])
