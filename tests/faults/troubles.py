# SPDX-License-Identifier: Apache-2.0
"""Trouble before the API has read a request: nobody accepts or reads it, or the pool is full."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cline_transport.simulator import Gate, Reply, Simulator
from tests.clients.support import Colour
from tests.transport.rig import Client

from .failure import Trouble

__all__ = ["base_url", "holding"]


@contextmanager
def base_url(trouble: Trouble, api: Simulator) -> Generator[str, None, None]:
    """Where a row's calls go: to the API, or to a socket of which nobody reads."""
    if trouble not in ("not accepted", "not read"):
        yield api.base_url
        return
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        # Inherited by what is accepted: little is taken of a request that nobody reads.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if trouble == "not accepted" else 8)
        address = listener.getsockname()
        if trouble == "not accepted":
            # The kernel accepts one more than asked for; what comes then has no answer.
            for each in (first, second):
                each.setblocking(False)
                each.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/api/v1"


@contextmanager
def holding(inner: Any, colour: Colour, api: Simulator) -> Generator[None, None, None]:
    """Meanwhile the one connection of a pool is held by somebody else's stream."""
    library: Any = import_module(type(inner).__module__.partition(".")[0])
    kind = library.Client if colour.is_sync else library.AsyncClient
    other = Client(kind(transport=inner), colour.portal)  # not closed: the pool is not its own
    gate = Gate(1)
    api.enqueue(Reply.stream("held", gate=gate))
    held = other.open("POST", f"{api.base_url}/chat/completions", json={"stream": True})
    api.reset()
    try:
        yield
    finally:
        gate.release(20)
        for _ in other.chunks(held):
            pass
        other.close(held)
