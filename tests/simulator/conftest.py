# SPDX-License-Identifier: Apache-2.0
"""Clients for the simulator under test: the official SDK, httpx, and a bare socket."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from .peer import Peer
from .support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cline_transport.simulator import Simulator


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def sdk(cline_api: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=cline_api.base_url, api_key=cline_api.api_key, max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


@pytest.fixture
def http(cline_api: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=cline_api.base_url,
        headers={"authorization": f"Bearer {cline_api.api_key}"},
        timeout=PATIENCE,
        trust_env=False,
    ) as client:
        yield client


@pytest.fixture
def dial(cline_api: Simulator) -> Iterator[Callable[[bytes], socket.socket]]:
    """Opens a connection and sends these bytes on it."""
    sockets: list[socket.socket] = []

    def connect(data: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", cline_api.port), timeout=PATIENCE)
        sockets.append(sock)
        sock.sendall(data)
        return sock

    yield connect
    for sock in sockets:
        sock.close()


@pytest.fixture
def h2_dial(cline_api: Simulator) -> Iterator[Callable[..., Peer]]:
    """Opens an HTTP/2 connection to the simulator."""
    peers: list[Peer] = []

    def connect(window: int = 65535) -> Peer:
        peers.append(Peer(cline_api.port, window))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.sock.close()
