# SPDX-License-Identifier: Apache-2.0
"""What several test modules need, beside the fixtures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from openai.types.chat import ChatCompletionUserMessageParam

    from cline_transport.simulator import Simulator

# Seconds; only a simulator that is broken takes so long.
PATIENCE = 20.0
MODEL = "cline/ok"
MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say hello."}]
CHAT = "/api/v1/chat/completions"


def ask(
    stream: bool | None = None,  # noqa: FBT001 - JSON's own value
    model: str = MODEL,
) -> dict[str, object]:
    """The JSON body of a chat request; ``stream`` is left out if it is ``None``."""
    body: dict[str, object] = {"model": model, "messages": MESSAGES}
    return body if stream is None else {**body, "stream": stream}


def on_the_wire(
    body: Mapping[str, object] | bytes, *headers: str, method: str = "POST", version: str = "1.1"
) -> bytes:
    """A chat request as bytes, with the key of the simulator's default."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"{method} {CHAT} HTTP/{version}",
        "host: simulator",
        "authorization: Bearer sk-simulator",
        f"content-length: {len(data)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = bytearray()
    while data := sock.recv(65536):
        received += data
    return bytes(received)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """What comes until it ends with ``end``."""
    received = bytearray()
    while not received.endswith(end):
        data = sock.recv(1)
        assert data, f"closed after {bytes(received)!r}"
        received += data
    return bytes(received)


def idle(api: Simulator) -> None:
    """Wait until no request is in progress."""
    api.wait_for(lambda: api.counts.concurrent == 0)


def busy(api: Simulator, n: int = 1) -> None:
    """Wait until so many requests are in progress."""
    api.wait_for(lambda: api.counts.concurrent == n)
