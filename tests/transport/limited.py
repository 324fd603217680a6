# SPDX-License-Identifier: Apache-2.0
"""Calls that limits hold back."""

from __future__ import annotations

import threading
from typing import Any

from cline_transport import RetryPolicy, Settings
from cline_transport._limiter import LINES
from cline_transport._line import Line
from cline_transport._sync import _pause
from cline_transport._wake import Wake
from cline_transport.limits import LimitSettings

from .rig import Client, Rig

ONCE = RetryPolicy(enabled=False)
KEY = {"authorization": "Bearer sk-simulator"}


def limited(rig: Rig, *, retry: RetryPolicy = ONCE, traced: bool = False, **limits: Any) -> Client:
    settings = Settings(limits=LimitSettings(**limits), retry=retry)
    return rig.client(rig.transport(settings=settings, traced=traced))


def line() -> Line:
    """The only one that there is."""
    [found] = LINES._lines.values()
    return found


def really_waiting(rig: Rig, client: Client) -> threading.Event:
    """Let a client wait in real time; the event says that it does."""
    waits = threading.Event()
    loop = client.raw._transport._loop
    if rig.is_sync:

        def pause(event: threading.Event, seconds: float) -> None:
            waits.set()
            _pause(event, seconds)

        loop.pause = pause
    else:

        async def pause_async(wake: Wake, seconds: float) -> None:
            waits.set()
            await wake.wait(seconds)

        loop.pause = pause_async
    return waits
