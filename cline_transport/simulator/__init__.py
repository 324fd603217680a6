# SPDX-License-Identifier: Apache-2.0
"""A Cline API on a loopback socket that misbehaves as documented, to test clients against.

It needs the extra `simulator` (`pip install 'cline-transport[simulator]'`).

Example:
    ```python
    from cline_transport.simulator import Reply, Simulator

    with Simulator() as api:
        api.enqueue(Reply.error(503), Reply.stream("Hello", error="rate_limit", error_after=0))
        client = openai.OpenAI(base_url=api.base_url, api_key=api.api_key)
    ```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cline_transport.simulator._gate import Gate
    from cline_transport.simulator._limits import ApiLimits, LimitCounts
    from cline_transport.simulator._reply import Reply
    from cline_transport.simulator._request import ReceivedRequest
    from cline_transport.simulator._simulator import Simulator, serve_forever

__all__ = [
    "ApiLimits",
    "Gate",
    "LimitCounts",
    "ReceivedRequest",
    "Reply",
    "Simulator",
    "serve_forever",
]

# Loaded on first use: the pytest plugin lives in this package and must stay cheap to import.
_HOMES = {
    "ApiLimits": "_limits",
    "Gate": "_gate",
    "LimitCounts": "_limits",
    "ReceivedRequest": "_request",
    "Reply": "_reply",
    "Simulator": "_simulator",
    "serve_forever": "_simulator",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
