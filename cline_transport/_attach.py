# SPDX-License-Identifier: Apache-2.0
"""Put the transport under a client that exists already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from cline_transport._http_spans import link, unlink
from cline_transport._protocols import FAMILIES

if TYPE_CHECKING:  # it loads pydantic-settings, which nobody needs before there is a client
    from cline_transport.settings import Settings

__all__ = ["attach", "detach"]

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
        SettingsError: A setting from the environment or the file is wrong.

    Example:
        ```python
        client = attach(httpx.Client(proxy="http://proxy.example:3128"))
        ```
    """
    from cline_transport.settings import Settings as Read  # noqa: PLC0415 - see above

    http_client, transport_class = _parts(client, "attach")
    _wrap_all(
        http_client,
        transport_class,
        settings=Read() if settings is None else settings,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
    )
    return client


def detach(client: ClientT) -> ClientT:
    """Take the transport from under a client again, its proxy mounts included; return the client.

    What `attach` did is undone; a client that has no transport of ours stays as it is. Calls that
    are under way end as they began.

    Args:
        client: What `attach` takes.

    Raises:
        TypeError: `client` is none of these.

    Example:
        ```python
        detach(attach(client))
        ```
    """
    http_client, transport_class = _parts(client, "detach")

    def unwrap(transport: Any) -> Any:
        while isinstance(transport, transport_class):
            transport = unlink(transport)
        return transport

    _replace_all(http_client, unwrap)
    return client


def _parts(client: object, function: str) -> tuple[Any, type]:
    """The HTTP client of a client, and our transport of its family and colour."""
    inner: Any = getattr(client, "_client", client)
    for name in FAMILIES:
        library = sys.modules.get(name)
        if library is None:
            continue
        family = library.__name__  # httpx2.alias_httpx() makes httpx2 of both
        for kind, ours in (("Client", "ClineTransport"), ("AsyncClient", "AsyncClineTransport")):
            if isinstance(inner, getattr(library, kind)):
                return inner, getattr(import_module(f"cline_transport.{family}"), ours)
    raise TypeError(
        f"{function}() takes an httpx or httpx2 client, or a client of the openai SDK "
        f"(got {type(client).__module__}.{type(client).__name__})"
    )


def _wrap_all(client: Any, transport_class: type, **options: Any) -> None:
    # One transport may serve several mounts: it gets one wrapper.
    wrapped: dict[int, object] = {}

    def wrap(transport: object) -> object:
        if isinstance(transport, transport_class):
            return transport
        if id(transport) not in wrapped:
            wrapped[id(transport)] = ours = transport_class(transport, **options)
            link(transport, ours)
        return wrapped[id(transport)]

    _replace_all(client, wrap)


def _replace_all(client: Any, replace: Callable[[object], object]) -> None:
    client._transport = replace(client._transport)
    mounts = cast("dict[object, object]", client._mounts)
    # A mount without a transport leads to the client's own.
    client._mounts = {p: None if t is None else replace(t) for p, t in mounts.items()}
