# SPDX-License-Identifier: Apache-2.0
"""Clients of each family and colour, and what they do with a call."""

from __future__ import annotations

import importlib
import importlib.util
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from cline_transport import CallRecord, LimitSettings, RetryPolicy, Settings, StreamSettings
from cline_transport._protocols import Clock
from cline_transport._wake import Wake

from .faults import MODEL, Call

__all__ = ["WIRES", "Clients", "Colour", "End", "Outcome", "Waits", "call_async", "call_sync"]

Colour = Literal["sync", "asyncio", "trio"]
Outcome = Literal["delivered", "failed", "cancelled"]

FAMILIES: Final = tuple(name for name in ("httpx", "httpx2") if importlib.util.find_spec(name))
WIRES: Final[tuple[type[Exception], ...]] = tuple(
    importlib.import_module(family).HTTPError for family in FAMILIES
)
"""The libraries' own exceptions."""
SETTINGS: Final = (
    Settings(retry=RetryPolicy(throttle=False)),
    Settings(limits=LimitSettings(max_concurrency=6)),
    Settings(
        limits=LimitSettings(max_concurrency="adaptive"), stream=StreamSettings(on_error="observe")
    ),
    Settings(
        limits=LimitSettings(requests_per_second=200, max_concurrency=8),
        retry=RetryPolicy(throttle=False),
        stream=StreamSettings(on_error="raise", retry="buffered"),
    ),
)
PATIENCE: Final = 15.0
"""Seconds; only what is broken takes so long."""
IMPATIENCE: Final = 0.05
_PAUSE: Final = 0.005
_TLS: Final = ssl.create_default_context()
"""Made once: it takes longer than a call."""

_waiting: ContextVar[Callable[[], None] | None] = ContextVar("waiting", default=None)
"""What happens in the wait of a call; a call is in a context of its own, or in a thread."""


class End(NamedTuple):
    """How a call ended."""

    outcome: Outcome
    wrong: str = ""
    """What is wrong with that."""
    how: str = ""
    """The exception that it failed with."""
    cut: bool = False
    """Whether it broke off where HTTP could not tell, and was delivered so."""


class Waits:
    """A clock on which waits take as long as they should, and no time."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._lock = threading.Lock()
        self.clock = Clock(monotonic=self._monotonic)

    def sleep(self, seconds: float) -> None:
        self._skip(seconds)
        during = _waiting.get()
        if during is not None:
            during()

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)
        await checkpoint()

    def pause(self, event: threading.Event, seconds: float) -> None:
        short = min(seconds, _PAUSE)
        if not event.wait(short):
            self._skip(seconds - short)

    async def pause_async(self, wake: Wake, seconds: float) -> None:
        before = time.monotonic()
        await wake.wait(min(seconds, _PAUSE))
        waited = time.monotonic() - before
        if waited >= _PAUSE:
            self._skip(max(0.0, seconds - waited))

    def _monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def _skip(self, seconds: float) -> None:
        with self._lock:
            self._skipped += seconds


class Clients:
    """The clients of one colour, of both families: one with each of the settings."""

    def __init__(self, colour: Colour, waits: Waits, base_url: str, **telling: Any) -> None:
        self.colour = colour
        self._waits = waits
        self._telling = telling
        self._base_url = base_url
        every = [(family, settings) for family in FAMILIES for settings in SETTINGS]
        self.made = [self.make(family, settings) for family, settings in every]

    def choose(self, call: Call) -> Any:
        return self.made[call.client % len(self.made)]

    def fresh(self, call: Call) -> Any:
        """A client of the same kind, for one call."""
        number = call.client % len(self.made)
        return self.make(
            FAMILIES[number // len(SETTINGS)], SETTINGS[number % len(SETTINGS)], number
        )

    def make(self, family: str, settings: Settings, number: int | None = None) -> Any:
        library: Any = importlib.import_module(family)
        ours: Any = importlib.import_module(f"cline_transport.{family}")
        sync = self.colour == "sync"
        inner = (library.HTTPTransport if sync else library.AsyncHTTPTransport)(
            verify=_TLS,
            # Connections are scarcer than calls: one that leaks is missed.
            limits=library.Limits(max_connections=12, max_keepalive_connections=6),
        )
        transport = (ours.ClineTransport if sync else ours.AsyncClineTransport)(
            inner, settings=settings, **self._telling
        )
        transport._loop.clock = self._waits.clock
        transport._loop.sleep = self._waits.sleep if sync else self._waits.sleep_async
        transport._loop.pause = self._waits.pause if sync else self._waits.pause_async
        key = f"sk-{self.colour}-{family}-{SETTINGS.index(settings)}"
        return (library.Client if sync else library.AsyncClient)(
            transport=transport,
            base_url=self._base_url,
            headers={"authorization": f"Bearer {key}"},
            verify=_TLS,
            trust_env=False,
        )

    def checked_out(self) -> list[str]:
        """The connections in use, and the requests that wait for one."""
        found: list[str] = []
        for client in self.made:
            pool = client._transport._transport._pool
            found += [f"{pool} {one}" for one in pool._requests]
            found += [
                f"{pool} {one}"
                for one in pool.connections
                if not (one.is_idle() or one.is_closed())
            ]
        return found


def call_sync(clients: Clients, call: Call) -> End:
    """Make a call from a thread."""
    client = clients.choose(call)
    token = _waiting.set(_interrupt if call.behaviour == "in the wait" else None)
    try:
        response = client.send(_request(client, call), stream=True)
        if call.behaviour == "drop":
            return End("cancelled")
        if call.behaviour in ("early", "cancel", "cancel in the stream"):
            with closing(response):
                next(iter(response.stream), b"")
            return End("cancelled")
        body, again = bytearray(), b""
        with closing(response):
            if _twice(call, response):
                for chunk in response.stream:
                    body += chunk
                    break
                for chunk in response.stream:
                    body += chunk
                again = b"".join(response.stream)
            else:
                for chunk in response.iter_bytes():
                    body += chunk
        return _judged(call, response, bytes(body), again)
    except KeyboardInterrupt:
        return End("cancelled")
    except Exception as exc:  # noqa: BLE001 -- which one is what is asked
        return _failed(call, exc)
    finally:
        _waiting.reset(token)


async def call_async(clients: Clients, call: Call) -> End:
    """Make a call from a task."""
    # A response that is dropped leaves its connection checked out, with us or without.
    client = clients.fresh(call) if call.behaviour == "drop" else clients.choose(call)
    try:
        late = call.late if call.behaviour == "cancel" else float("inf")
        with anyio.move_on_after(late) as scope:
            token = _waiting.set(scope.cancel if call.behaviour == "in the wait" else None)
            try:
                return await _call_async(client, call, scope)
            except Exception as exc:  # noqa: BLE001 -- which one is what is asked
                return _failed(call, exc)
            finally:
                _waiting.reset(token)
        return End("cancelled")
    finally:
        if call.behaviour == "drop":
            await client.aclose()


async def _call_async(client: Any, call: Call, scope: anyio.CancelScope) -> End:
    response = await client.send(_request(client, call), stream=True)
    if call.behaviour == "drop":
        return End("cancelled")
    body, again = bytearray(), b""
    try:
        if call.behaviour in ("early", "cancel in the stream"):
            async for _ in response.stream:
                if call.behaviour == "early":
                    break
                scope.cancel()
            await checkpoint()
            return End("cancelled")
        if _twice(call, response):
            async for chunk in response.stream:
                body += chunk
                break
            async for chunk in response.stream:
                body += chunk
            async for chunk in response.stream:
                again += chunk
        else:
            async for chunk in response.aiter_bytes():
                body += chunk
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()
    return _judged(call, response, bytes(body), again)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _request(client: Any, call: Call) -> Any:
    payload: dict[str, Any] = {"model": MODEL, "messages": []}
    if call.mode != "other":
        payload["stream"] = call.mode == "stream"
    return client.build_request(
        "POST",
        "embeddings" if call.mode == "other" else "chat/completions",
        json=payload,
        headers={"x-call": str(call.number)},
        # To connect, read, write, and for a place in the pool.
        timeout=(PATIENCE, IMPATIENCE if call.impatient else PATIENCE, PATIENCE, PATIENCE),
    )


def _twice(call: Call, response: Any) -> bool:
    # Beneath the response's own decoder: what is encoded is read once. So is what the transport has
    # read whole: the libraries' own streams of bytes begin anew.
    headers = response.headers
    streams = headers.get("content-type") == "text/event-stream" and response.status_code == 200
    return call.behaviour == "twice" and streams and "content-encoding" not in headers


def _failed(call: Call, exc: Exception) -> End:
    """The libraries' own exceptions are how a call may end, and nothing else is."""
    kind = type(exc).__name__
    late = kind.endswith("Timeout") and not (kind == "ReadTimeout" and call.impatient)
    if late or not isinstance(exc, WIRES):
        return End("failed", f"unexpected exception: {exc!r}")
    return End("failed", how=repr(exc))


def _judged(call: Call, response: Any, body: bytes, again: bytes) -> End:
    """A body that was read to its end."""
    record: CallRecord = response.extensions["cline_transport"]
    if again:
        return End("failed", f"{len(again)} bytes after the end of the body")
    if record.error is not None:
        return End("failed")
    if not record.completed:
        return End("failed", "read to its end, and neither completed nor failed")
    if response.status_code >= 400:
        return End("failed", f"status {response.status_code} without an error in the record")
    sent = call.sent(response.headers.get("x-request-id", ""))
    if sent is None:
        return End("delivered", "an answer that was not sent")
    if not sent.is_whole(body):
        return End("delivered", f"not what was sent: {body!r} instead of {sent.content!r}"[:2000])
    return End("delivered", cut=not sent.garbage and body != sent.content)
