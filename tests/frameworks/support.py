# SPDX-License-Identifier: Apache-2.0
"""A framework behind one face, whatever it calls things."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, NamedTuple

import openai
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Reply, Simulator

__all__ = ["MODEL", "PROMPT", "Adapter", "Asker", "Got", "Mode", "Way", "modes"]

MODEL: Final = "anthropic/claude-sonnet-4.6"
PROMPT: Final = "Say hello."

_TLS: Final = ssl.create_default_context()
"""Made once: it takes longer than a call."""

Mode = Literal["call", "stream"]


def modes(*names: Mode) -> pytest.MarkDecorator:
    """In which modes a test asks; each is a case in each colour that the framework has."""
    return pytest.mark.modes(names)


class Way(NamedTuple):
    """How a framework is asked."""

    colour: Literal["sync", "async"]
    mode: Mode

    @property
    def is_sync(self) -> bool:
        return self.colour == "sync"

    @property
    def id(self) -> str:
        return f"{self.colour}-{self.mode}"


@dataclass
class Got:
    """What a caller got: pieces of text as they came, and the exception that ended them."""

    parts: list[str] = field(default_factory=list[str])
    error: Exception | None = None

    @property
    def text(self) -> str:
        """All of the text, where nothing was raised."""
        assert self.error is None, repr(self.error)
        return "".join(self.parts)

    @property
    def raised(self) -> Exception:
        assert self.error is not None, f"nothing was raised after {self.parts}"
        return self.error

    @property
    def told(self) -> str:
        """In one word, for the table."""
        return "nothing raised" if self.error is None else f"`{type(self.error).__name__}`"


class Adapter(ABC):
    """A framework, set up as its example shows.

    Args:
        api: What it calls.
        is_sync: Which of its two faces is used.
        http: The HTTP client beneath it.
        defaults: Whether its own retries stay as they are, where the example changes them.
    """

    name: ClassVar[str]
    """Of the framework."""
    printed: ClassVar[str] = "one two three\n"
    """What its example prints of an answer."""
    async_client_only: ClassVar[bool] = False
    """Whether its synchronous face too has an asynchronous client beneath."""
    sync_modes: ClassVar[tuple[Mode, ...]] = ("call", "stream")
    """What its synchronous face can do."""
    own_retries: ClassVar[dict[Mode, int]] = {"call": 1, "stream": 1}
    """How often it makes a call that ends in a 429, by default."""
    swallows: ClassVar[bool] = True
    """Whether it raises nothing of a stream that failed, without the transport."""
    says_stream_false: ClassVar[bool] = True
    """Whether it sends `"stream": false`; without, the API answers with a stream."""
    delivered: ClassVar[dict[str, str]] = {"sync": "one two", "async": "one two"}
    """What comes through of a stream that fails after these words."""

    @abstractmethod
    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None: ...

    @staticmethod
    def chunks(*words: str) -> list[str]:
        """What the model says on the wire for the caller to get these words."""
        return list(words)

    def call(self) -> str:
        raise NotImplementedError

    @abstractmethod
    async def call_async(self) -> str: ...

    def stream(self) -> Iterator[str]:
        raise NotImplementedError

    @abstractmethod
    def stream_async(self) -> AsyncIterator[str]: ...

    def close(self) -> None:  # noqa: B027 -- most have nothing to do here
        """Put back what it changed in its process."""


class Asker:
    """Asks a framework in one way; what it raises is kept."""

    def __init__(self, kind: type[Adapter], way: Way, api: Simulator) -> None:
        self.kind = kind
        self.way = way
        self.api = api

    def __call__(self, *replies: Reply, transport: bool = True, defaults: bool = False) -> Got:
        """The API answers with the replies, one by one."""
        self.api.enqueue(*replies)
        got = Got()
        with self._client(transport=transport) as (http, portal):
            adapter = self.kind(self.api, is_sync=self.way.is_sync, http=http, defaults=defaults)
            try:
                if portal is not None:
                    portal.call(_ask_async, adapter, self.way.mode, got.parts)
                elif self.way.mode == "call":
                    got.parts.append(adapter.call())
                else:
                    for part in adapter.stream():
                        got.parts.append(part)
            except Exception as exc:  # noqa: BLE001 - what it is, the test says
                got.error = exc
            finally:
                adapter.close()
        return got

    @contextmanager
    def _client(
        self, *, transport: bool
    ) -> Generator[tuple[Any, BlockingPortal | None], None, None]:
        """An HTTP client, and the loop in a thread to use it in, or none."""
        if self.way.is_sync and not self.kind.async_client_only:
            make = http_client if transport else openai.DefaultHttpxClient
            with make(verify=_TLS) as http:
                yield hurried(http), None
            return
        make_async = async_http_client if transport else openai.DefaultAsyncHttpxClient
        client = make_async(verify=_TLS)
        if not self.way.is_sync:
            with start_blocking_portal() as portal:
                yield hurried(client), portal
                portal.call(client.aclose)
            return
        # A synchronous face over an asynchronous client runs it in the thread's own loop.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            yield hurried(client), None
            loop.run_until_complete(client.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _ask_async(adapter: Adapter, mode: Mode, parts: list[str]) -> None:
    if mode == "call":
        parts.append(await adapter.call_async())
    else:
        async for part in adapter.stream_async():
            parts.append(part)  # noqa: PERF401 -- up to where it raises


def hurried(http: Any) -> Any:
    """The same client; the waits of its transport take no time."""

    async def at_once_async(seconds: float) -> None: ...

    def at_once(seconds: float) -> None: ...

    for transport in {http._transport, *http._mounts.values()}:
        name = type(transport).__name__
        if name in ("ClineTransport", "AsyncClineTransport"):
            transport._loop.sleep = at_once if name == "ClineTransport" else at_once_async
    return http
