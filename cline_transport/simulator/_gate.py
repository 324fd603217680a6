# SPDX-License-Identifier: Apache-2.0
"""A counter of permits that holds a streamed answer back, event by event."""

from __future__ import annotations

import asyncio
import threading


class Gate:
    """Holds an answer back: the server takes one permit before each write of the body.

    A write is one event (or one piece of `split` bytes, or one chunk of `Reply.raw`). The
    status line and the headers need no permit. Permits that nobody waits for are kept. Any thread
    may release, and several answers may share one gate. With it a test proves that the client has
    event 1 while event 2 has not been sent, without a sleep.

    `permits` (default 0) is the number of permits there are from the start; a negative number
    is a `ValueError`.

    Example:
        ```python
        gate = Gate()
        api.enqueue(Reply.stream("Hello world", gate=gate))
        gate.release()  # lets the role chunk go, and nothing more
        ```
    """

    __slots__ = ("_lock", "_permits", "_waiters")

    def __init__(self, permits: int = 0) -> None:
        if permits < 0:
            raise ValueError(f"permits must be >= 0 (got {permits})")
        self._lock = threading.Lock()
        self._permits = permits
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def release(self, n: int = 1) -> None:
        """Add `n` permits (default 1). Raises `ValueError` if `n` is below 1."""
        if n < 1:
            raise ValueError(f"n must be >= 1 (got {n})")
        with self._lock:
            self._permits += n
            # Under the lock: a waiter leaves the set before its loop closes.
            for loop, event in self._waiters:
                loop.call_soon_threadsafe(event.set)

    async def acquire(self) -> None:
        """Take one permit, waiting for it as long as need be. For the server."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        try:
            while not self._take(waiter):
                await event.wait()
                event.clear()
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _take(self, waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event]) -> bool:
        with self._lock:
            if self._permits:
                self._permits -= 1
                return True
            self._waiters.add(waiter)
            return False
