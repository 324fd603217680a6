# SPDX-License-Identifier: Apache-2.0
"""Makes the calls whose instructions `test_instructions` counts.

Callgrind counts only within `functools.reduce`, and writes its count at each end of it: one for
each kind of telemetry, in the order of `KINDS`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import httpx
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import TracerProvider as AnyTracerProvider

from cline_transport import Settings
from cline_transport.httpx import ClineTransport
from cline_transport.settings import TelemetrySettings

CHAT = {"model": "cline/ok", "messages": [{"role": "user", "content": "hello"}]}
KINDS: dict[str, tuple[bool, Callable[[], AnyTracerProvider | None]]] = {
    "off": (False, lambda: None),
    "no SDK": (True, lambda: None),
    "not sampled": (True, lambda: TracerProvider(sampler=ALWAYS_OFF)),
    "recorded": (True, TracerProvider),
}
"""Whether telemetry is switched on, and where its spans go."""


def main(url: str, key: str, calls: int) -> None:
    """Make the calls of each kind, after some to warm up."""
    clients = [
        httpx.Client(
            transport=ClineTransport(
                settings=Settings(telemetry=TelemetrySettings(enabled=enabled)),
                tracer_provider=provider(),
            ),
            headers={"authorization": f"Bearer {key}"},
        )
        for enabled, provider in KINDS.values()
    ]

    def call(client: httpx.Client, _: int) -> httpx.Client:
        client.post(url, json=CHAT).raise_for_status()
        return client

    for client in clients:
        for _ in range(calls // 2):
            call(client, 0)
    for client in clients:
        functools.reduce(call, range(calls), client)
        client.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
