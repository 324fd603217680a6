# SPDX-License-Identifier: Apache-2.0
"""Waiting takes no time in the process of a contender: each wait is noted, and the clock put on.

The contenders wait with `time.sleep` (tenacity and LiteLLM too), and on an event loop the SDK and
ours with `anyio.sleep`. To be installed before they are loaded, as some keep what they found then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

import anyio
import anyio.lowlevel

__all__ = ["WAITS", "Waits"]


class Waits(list[float]):
    """The seconds that the main thread asked to wait, since they were last cleared."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def skip(self, seconds: float) -> None:
        """Put the clock on, as after a while: what was left from before has run out."""
        self._skipped += seconds

    @contextmanager
    def installed(self) -> Generator[None]:
        """Nothing waits meanwhile; the simulator's thread and others go on as they are."""
        sleep, monotonic, main = time.sleep, time.monotonic, threading.main_thread()

        def noted(seconds: float) -> None:
            if threading.current_thread() is not main:
                sleep(seconds)
                return
            self.append(seconds)
            self.skip(seconds)

        async def noted_async(seconds: float) -> None:
            self.append(seconds)
            self.skip(seconds)
            await anyio.lowlevel.checkpoint()

        def put_on() -> float:
            return monotonic() + self._skipped

        with (
            patch.object(time, "sleep", noted),
            patch.object(time, "monotonic", put_on),
            patch.object(anyio, "sleep", noted_async),
        ):
            yield


WAITS: Final = Waits()
