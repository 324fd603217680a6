# SPDX-License-Identifier: Apache-2.0
"""Streams, written and read event by event."""

from __future__ import annotations

import json
from typing import Any

from cline_transport import Settings, StreamSettings
from cline_transport.simulator import Gate, Reply

from .rig import Client, Rig

EVENTS = [("content-type", "text/event-stream")]
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": OPENROUTER PROCESSING\n\n"


def events(*parts: bytes, then: Any = "end", gate: Gate | None = None, **headers: str) -> Reply:
    return Reply.raw(
        200,
        headers=[*EVENTS, *[(n.replace("_", "-"), v) for n, v in headers.items()]],
        body=list(parts),
        then=then,
        gate=gate,
    )


def error(code: object, message: str = "m") -> bytes:
    details = {"code": code, "message": message}
    return (
        b"data: "
        + json.dumps({"choices": [{"finish_reason": "error", "error": details}]}).encode()
        + b"\n\n"
    )


def client(rig: Rig, **stream: Any) -> Client:
    settings = Settings(stream=StreamSettings(**stream))
    return rig.client(rig.transport(settings=settings, traced=True))


def contents(body: bytes, newline: str = "\n") -> tuple[str, list[Any]]:
    """The text of a stream, and its chunks that carry an error."""
    text = ""
    errors: list[Any] = []
    for line in body.decode().split(newline):
        if line.startswith("data: {"):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                errors.append(chunk)
                continue
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
    return text, errors
