# SPDX-License-Identifier: Apache-2.0
"""Bodies that nobody read to their end or closed: ended later, outside the garbage collector.

The collector runs anywhere, also where this thread holds a lock that ending a call would take: one
of a metric reader, of a connection pool. So `__del__` only takes note.
"""

from __future__ import annotations

import atexit
import gc
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["drop", "seek", "settle"]

_SELDOM: Final = 10.0
"""Seconds between two searches: one costs as much as the program is big."""

_dropped: Final[deque[Callable[[], object]]] = deque()


def drop(end: Callable[[], object]) -> None:
    """Take note of what is to be called; for `__del__`: it takes no lock."""
    _dropped.append(end)


def settle() -> None:
    """End what was dropped: before the next call, at the end of one, and when the process ends."""
    while _dropped:
        with suppress(Exception):
            _dropped.popleft()()


class _Search:
    due = 0.0


def seek() -> None:
    """Look for what was dropped, now and then: for whoever waits for what a body holds.

    A response of httpx is in a cycle, and a program that waits makes no work for the collector.
    """
    now = time.monotonic()
    if now >= _Search.due:
        _Search.due = now + _SELDOM
        gc.collect()
    settle()


atexit.register(settle)
