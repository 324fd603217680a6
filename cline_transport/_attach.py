"""Put the transport under a client that exists already."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, TypeVar, cast

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from cline_transport._http_spans import link
from cline_transport.settings import Settings

__all__ = ["attach"]

ClientT = TypeVar("ClientT")


def attach(
    client: ClientT,
    *,
    settings: Settings | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> ClientT:
    """Put the transport under a client, its proxy mounts included; return the client.

    A transport that is there already stays as it is: frameworks share one cached client among many
    objects.

    Args:
        client: An `httpx` or `httpx2` client, sync or async, or a client of the `openai` SDK.
        settings: The policies; read from the environment by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: The same for metrics.
        logger_provider: The same for log events.

    Raises:
        TypeError: `client` is none of these.
        pydantic.ValidationError: A setting from the environment or the file is wrong.

    Example:
        ```python
        client = attach(httpx.Client(proxy="http://proxy.example:3128"))
        ```
    """
    inner: Any = getattr(client, "_client", client)
    for family in ("httpx", "httpx2"):
        library = sys.modules.get(family)
        if library is None:
            continue
        for kind, ours in (("Client", "ClineTransport"), ("AsyncClient", "AsyncClineTransport")):
            if isinstance(inner, getattr(library, kind)):
                page = import_module(f"cline_transport.{family}")
                _wrap_all(
                    inner,
                    getattr(page, ours),
                    settings=Settings() if settings is None else settings,
                    tracer_provider=tracer_provider,
                    meter_provider=meter_provider,
                    logger_provider=logger_provider,
                )
                return client
    raise TypeError(
        "attach() takes an httpx or httpx2 client, or a client of the openai SDK "
        f"(got {type(client).__module__}.{type(client).__name__})"
    )


def _wrap_all(client: Any, transport_class: type, **options: Any) -> None:
    # One transport may serve several mounts: it gets one wrapper.
    wrapped: dict[int, object] = {}

    def wrap(transport: object) -> object:
        if transport is None or isinstance(transport, transport_class):
            return transport
        if id(transport) not in wrapped:
            wrapped[id(transport)] = ours = transport_class(transport, **options)
            link(transport, ours)
        return wrapped[id(transport)]

    client._transport = wrap(client._transport)
    mounts = cast("dict[object, object]", client._mounts)
    client._mounts = {pattern: wrap(transport) for pattern, transport in mounts.items()}
