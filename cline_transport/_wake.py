# SPDX-License-Identifier: Apache-2.0
"""An event of asyncio or trio that may be set from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

import anyio

__all__ = ["Wake", "loop_closed"]


class Wake:
    """Wakes the task that made it, again and again.

    Example:
        ```python
        wake = Wake()
        threading.Thread(target=wake.set).start()
        await wake.wait(1.0)
        ```
    """

    __slots__ = ("_event", "_soon")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._soon: Callable[[Callable[[], object]], object]
        try:
            self._soon = asyncio.get_running_loop().call_soon_threadsafe
        except RuntimeError:  # then it is trio, which is loaded
            trio: Any = import_module("trio")
            self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    def set(self) -> None:
        """Wake it; from any thread.

        Raises:
            RuntimeError: Its event loop is closed.
        """
        self._soon(self._set)

    async def wait(self, seconds: float) -> None:
        """Wait until it is woken, or for so many seconds."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()

    def _set(self) -> None:
        self._event.set()


def loop_closed() -> Callable[[], bool] | None:
    """Tells later whether this task's event loop is closed; `None`: trio's end with their tasks."""
    try:
        return asyncio.get_running_loop().is_closed
    except RuntimeError:
        return None
