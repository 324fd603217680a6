# SPDX-License-Identifier: Apache-2.0
"""An example as a program of its own, against the simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cline_transport.simulator import ReceivedRequest, Simulator

EXAMPLES = Path(__file__).parents[2] / "examples"

COMMAND = (sys.executable, "-W", "error")

# As documented, but for the waits.
QUICK = {
    "CLINE_TRANSPORT_RETRY__JITTER": "0",
    "CLINE_TRANSPORT_RETRY__RULES__429__INITIAL": "0",
    "CLINE_TRANSPORT_RETRY__RULES__503__INITIAL": "0",
    "CLINE_TRANSPORT_RETRY__RULES__SERVER_ERROR__INITIAL": "0",
    "CLINE_TRANSPORT_RETRY__RULES__STREAM_TRUNCATED__INITIAL": "0",
    "CLINE_TRANSPORT_RETRY__RULES__CONNECTION_CLOSED__INITIAL": "0",
}


def environment(api: Simulator, **more: str) -> dict[str, str]:
    """What the example reads, and nothing of it from outside."""
    prefixes = ("CLINE_", "OTEL_", "OPENAI_")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(prefixes) and not name.upper().endswith("_PROXY")
    }
    given = {"CLINE_BASE_URL": api.base_url, "CLINE_API_KEY": api.api_key}
    return inherited | QUICK | given | more


def run(
    name: str, api: Simulator, *arguments: str | Path, cwd: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [*COMMAND, EXAMPLES / name, *arguments],
        cwd=cwd,
        env=environment(api, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


OFF = {"CLINE_TRANSPORT_ENABLED": "false"}


def halves(*, end: bool = True) -> list[bytes]:
    """An answer "Hi 😀!" as a stream with the emoji's surrogates in a chunk each."""
    parts = [r"Hi \ud83d", r"\ude00!"]
    events = [
        f'{{"choices": [{{"index": 0, "delta": {{"content": "{part}"}}}}]}}' for part in parts
    ]
    if end:
        events += ['{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}', "[DONE]"]
    return [f"data: {event}\n\n".encode() for event in events]


def asked(request: ReceivedRequest) -> str:
    """What a call asked."""
    body: Any = request.json()
    (message,) = body["messages"]
    assert message["role"] == "user"
    return str(message["content"])
