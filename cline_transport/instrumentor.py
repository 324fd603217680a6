# SPDX-License-Identifier: Apache-2.0
"""The transport under every client without a line of code: an OpenTelemetry instrumentor.

`opentelemetry-instrument python app.py` finds it by its entry point. It puts the transport under
each request of httpx and httpx2 to one of the configured hosts, whatever client makes it and
whenever the client was made; a request to any other host does not meet it.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation import instrumentor
from wrapt import register_post_import_hook

from cline_transport._protocols import DEFAULT_PORTS, FAMILIES
from cline_transport._settings_errors import SettingsError

if TYPE_CHECKING:
    from cline_transport.settings import Settings

__all__ = ["ClineTransportInstrumentor"]

_logger: Final = logging.getLogger("cline_transport")
_CLIENTS: Final = (("Client", "ClineTransport"), ("AsyncClient", "AsyncClineTransport"))
# Where a client chooses the transport of a request: its own, or one of its proxy mounts.
_CHOICE: Final = "_transport_for_url"
_KEPT: Final = "_cline_transports"
_Choice = Callable[[Any, Any], Any]
_PROVIDERS: Final = ("tracer_provider", "meter_provider", "logger_provider")


class ClineTransportInstrumentor(instrumentor.BaseInstrumentor):  # type: ignore[misc,name-defined]
    """Puts the transport under all clients of httpx and httpx2, for the configured hosts.

    Clients are sync or async, made before or after, of a subclass, with proxies and mounts, or
    those of the `openai` SDK. One that has the transport already keeps its own.

    Example:
        ```python
        from cline_transport.instrumentor import ClineTransportInstrumentor

        ClineTransportInstrumentor().instrument(hosts=["api.cline.bot"], retry={"deadline": 120})
        ```
    """

    _patches: _Patches | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """What has to be installed beside it: nothing; it waits for httpx or httpx2.

        Either may be missing: an application that has moved to httpx2 may have taken httpx away.
        """
        return ()

    def instrument(self, **options: Any) -> None:
        """Begin, unless it has begun.

        `opentelemetry-instrument` comes once more where `OTEL_CONFIG_FILE` has begun already; that
        is no mistake of anyone's, and not warned of.
        """
        if not (self.is_instrumented_by_opentelemetry and options == {"skip_dep_check": True}):
            super().instrument(**options)

    def _instrument(self, **options: Any) -> None:
        """Begin.

        A wrong setting switches the transport off, with one line in the log: the application that
        nobody edits must run on.

        Args:
            **options: `tracer_provider`, `meter_provider`, `logger_provider`; `settings`, or the
                names of `Settings`, over environment and file.
        """
        providers: dict[str, Any] = {
            name: options.pop(name) for name in _PROVIDERS if name in options
        }
        try:
            settings = _settings(options)
        except SettingsError as exc:
            _report(f"cline-transport is switched off, its settings are wrong: {exc}")
            return
        if settings.enabled:
            self._patches = _Patches(settings.hosts, {**providers, "settings": settings})
            for family in FAMILIES:
                register_post_import_hook(self._patches.apply, family)

    def _uninstrument(self, **_: Any) -> None:
        """End: clients are as they were."""
        if self._patches is not None:
            self._patches.remove()
        self._patches = None


def _settings(options: dict[str, Any]) -> Settings:
    from cline_transport.settings import Settings as Read  # noqa: PLC0415 - it loads pydantic

    given: Settings | None = options.pop("settings", None)
    return Read(**options) if given is None else given


def _report(message: str) -> None:
    """Log an error, and write it to stderr where only OpenTelemetry takes the log.

    Its handler may be there before the application has made its own, or when it makes none, and
    the line would go nowhere but to the collector.
    """
    _logger.error("%s", message)
    handlers = [*_logger.handlers, *logging.getLogger().handlers]
    if handlers and all(type(one).__module__.startswith("opentelemetry.") for one in handlers):
        with suppress(AttributeError, OSError, ValueError):  # none, or one that is closed
            sys.stderr.write(f"{message}\n")


class _Patches:
    """What is put on the clients of the families, from the moment that one is loaded.

    Args:
        hosts: Where the transport is put.
        options: What it is made with.
    """

    def __init__(self, hosts: Collection[str], options: dict[str, Any]) -> None:
        self._hosts = _Hosts(hosts)
        self._options = options
        self._active = True
        self._seen: list[object] = []
        self._patched: list[tuple[type, _Choice, _Choice]] = []

    def apply(self, library: Any) -> None:
        """A family's library is loaded: put the transport under its clients."""
        if any(library is seen for seen in self._seen):
            return  # httpx2.alias_httpx() has made one library of the two
        self._seen.append(library)
        for name, transport_name in _CLIENTS:
            client: type = getattr(library, name)
            original: _Choice | None = vars(client).get(_CHOICE)
            if original is None:
                _report(f"{library.__name__}.{name} has no {_CHOICE}: update it")
            elif self._active:  # else it was ended before the library was loaded
                ours = self._choosing(original, library.__name__, transport_name)
                setattr(client, _CHOICE, ours)
                self._patched.append((client, original, ours))

    def remove(self) -> None:
        """Take it away, from clients that are in use too."""
        self._active = False
        for client, original, ours in self._patched:
            if vars(client)[_CHOICE] is ours:  # else somebody's patch is on top, and ours idle
                setattr(client, _CHOICE, original)

    def _choosing(self, original: _Choice, family: str, transport_name: str) -> _Choice:
        """A client's choice of transport, with ours over it for our hosts."""

        @functools.wraps(original)
        def choose(client: Any, url: Any) -> Any:
            transport = original(client, url)
            if not self._active or not self._hosts.include(url.host, url.port or _port(url)):
                return transport
            # Kept with the client: one for each of its transports, for as long as it lives.
            kept: dict[int, tuple[Any, Any]] = client.__dict__.setdefault(_KEPT, {})
            found = kept.get(id(transport))
            if found is None or found[0] is not transport:
                ours = getattr(import_module(f"cline_transport.{family}"), transport_name)
                made = transport
                if not isinstance(transport, ours):
                    made = ours(transport, **self._options)
                kept[id(transport)] = found = (transport, made)
            return found[1]

        return choose


def _port(url: Any) -> int | None:
    return DEFAULT_PORTS.get(url.scheme)


class _Hosts:
    """Which hosts are ours: names, `*.domain` for all below it, either with a port or without."""

    def __init__(self, patterns: Collection[str]) -> None:
        self._exact = {p for p in patterns if not p.startswith("*.")}
        self._below = tuple(p[1:] for p in patterns if p.startswith("*."))

    def include(self, host: str, port: int | None) -> bool:
        """Whether a request to this host and port is ours."""
        name = f"[{host}]" if ":" in host else host.lower()
        for candidate in (name, f"{name}:{port}"):
            if candidate in self._exact or candidate.endswith(self._below):
                return True
        return False
