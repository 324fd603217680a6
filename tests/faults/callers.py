# SPDX-License-Identifier: Apache-2.0
"""The cells of a row: plain clients of both families and the installed SDK, in each colour."""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from io import BytesIO
from typing import Any, Final, NamedTuple

import openai
from openai import _streaming

from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Simulator
from tests.clients.support import (
    COLOURS,
    FAMILY,
    MODEL,
    Colour,
    Sdk,
    Traces,
    make_client,
    messages,
)
from tests.transport.rig import FAMILIES, Client, FakeTime

from .failure import Failure, Mode

GENERATION: Final = openai.__version__.partition(".")[0]
SDK: Final = f"openai{GENERATION}"
MAPS_BODIES: Final = hasattr(_streaming, "request_exceptions")
"""Whether this SDK makes exceptions of its own of what a body raises."""

PATIENCE: Final = 10.0
"""Seconds; only what is broken takes so long."""

LONG: Final = "long " * 1_000_000
"""More than the sockets between here and a server that does not read can hold."""

_TLS: Final = ssl.create_default_context()
"""Made once: it takes longer than a call."""


class Cell(NamedTuple):
    """A kind of client in a colour."""

    kind: str
    """A family, or the SDK with its generation."""
    colour: str

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.colour}"

    @property
    def is_sdk(self) -> bool:
        return self.kind.startswith("openai")


CELLS: Final = tuple(Cell(kind, colour) for kind in (*FAMILIES, SDK) for colour in COLOURS)


class Got(NamedTuple):
    """What a caller got."""

    ended: str
    delivered: object
    final: bool
    source: Any
    """What `error_info` is asked about."""
    told: list[str | None]
    """Request IDs, wherever one is told."""


class Caller(ABC):
    """A client on our transport, a clock of its own, and its trace."""

    def __init__(self, colour: Colour, http: Any, traces: Traces) -> None:
        self.colour = colour
        self.http = http
        self.traces = traces
        self.time = FakeTime()
        self.time.drive(http._transport, is_sync=colour.is_sync)

    @abstractmethod
    def ask(self, failure: Failure, mode: Mode, seconds: float) -> Got:
        """Make the call; it raises nothing. After so many seconds its timeout runs out."""

    @abstractmethod
    def close(self) -> None: ...

    @property
    def inner(self) -> Any:
        """The transport beneath ours."""
        return self.http._transport._transport


class Plain(Caller):
    """A client of httpx or httpx2."""

    def __init__(
        self, cell: Cell, colour: Colour, failure: Failure, traces: Traces, base_url: str
    ) -> None:
        self._library: Any = import_module(cell.kind)
        ours: Any = import_module(f"cline_transport.{cell.kind}")
        prefix = "" if colour.is_sync else "Async"
        inner = getattr(self._library, f"{prefix}HTTPTransport")(
            verify=_TLS, limits=self._library.Limits(max_connections=1)
        )
        transport = getattr(ours, f"{prefix}ClineTransport")(
            inner, settings=failure.settings, tracer_provider=traces.provider
        )
        raw = getattr(self._library, f"{prefix}Client")(transport=transport)
        self._client = Client(raw, colour.portal)
        self._url = f"{base_url}/chat/completions"
        super().__init__(colour, raw, traces)

    def ask(self, failure: Failure, mode: Mode, seconds: float) -> Got:
        chat = {"model": MODEL, "messages": messages(prompt(failure)), "stream": mode == "stream"}
        body: dict[str, Any] = {"json": chat}
        if failure.body == "multipart":
            body = {"files": {"file": ("a.json", BytesIO(json.dumps(chat).encode()))}}
        elif failure.body == "generator":
            pieces = _pieces if self.colour.is_sync else _async_pieces
            body = {"content": pieces(json.dumps(chat).encode())}
        timeout = timeouts(self._library, failure, seconds)
        answer = self._client.post(self._url, timeout=timeout, **body)
        content = answer.body
        if answer.status:
            assert answer.headers.get("content-length", str(len(content))) == str(len(content))
            response = self._library.Response(200, headers=answer.raw_headers, content=content)
            content = response.content  # decoded
        if answer.exception is not None:
            ended, source = type(answer.exception).__name__, answer.exception
        else:
            ended, source = str(answer.status), answer.response
        final = answer.headers.get("x-should-retry")
        assert final in (None, "false")
        told = [answer.headers.get("x-request-id")] if answer.status else []
        return Got(ended, content, final is not None, source, told)

    def close(self) -> None:
        self._client.run(self.http.close if self.colour.is_sync else self.http.aclose)


class Official(Caller):
    """The SDK's client, on the family that it is built on."""

    def __init__(
        self, colour: Colour, failure: Failure, traces: Traces, base_url: str, api: Simulator
    ) -> None:
        self._library: Any = import_module(FAMILY)
        http = (http_client if colour.is_sync else async_http_client)(
            settings=failure.settings,
            tracer_provider=traces.provider,
            verify=_TLS,
            trust_env=False,
            limits=self._library.Limits(max_connections=1),
        )
        client = make_client(colour, api, http, base_url=base_url)
        self._sdk = Sdk(colour, client, traces)
        super().__init__(colour, http, traces)

    def ask(self, failure: Failure, mode: Mode, seconds: float) -> Got:
        assert failure.body == "bytes", "the SDK sends nothing else to this endpoint"
        timeout = timeouts(self._library, failure, seconds)
        answer = self._sdk.ask(mode, prompt=prompt(failure), timeout=timeout)
        error = answer.error
        if error is None:
            return Got("whole", answer.text, final=False, source=None, told=[])
        ended, final = type(error).__name__, False
        delivered: object = answer.text_so_far
        told: list[str | None] = []
        if isinstance(error, openai.APIStatusError):
            assert delivered == ""
            ended = f"{ended} {error.status_code} {error.code}"
            delivered = error.body
            told = [error.request_id, error.response.headers.get("x-request-id")]
            final = error.response.headers.get("x-should-retry") == "false"
        elif isinstance(error, openai.APIConnectionError):
            ended = f"{ended} of {type(error.__cause__).__name__}"
        elif isinstance(error, openai.APIError):
            ended = f"{ended} None {error.code}"
        return Got(ended, delivered, final, error, told)

    def close(self) -> None:
        self._sdk.close()


def timeouts(library: Any, failure: Failure, seconds: float) -> Any:
    short = {} if failure.timeout is None else {failure.timeout: seconds}
    return library.Timeout(PATIENCE, **short)


def prompt(failure: Failure) -> str:
    return LONG if failure.trouble == "not read" else "hello"


def _pieces(body: bytes) -> Iterator[bytes]:
    yield body


async def _async_pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body
