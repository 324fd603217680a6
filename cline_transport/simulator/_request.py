# SPDX-License-Identifier: Apache-2.0
"""What a connection reads of a request, and what the simulator remembers of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Incoming:
    """A request as the connection reads it."""

    method: str = ""
    target: str = ""
    http_version: str = "HTTP/1.1"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)

    def add(self, name: str, value: str) -> None:
        """Add a header field; one that is there already is continued."""
        known = self.headers.get(name)
        self.headers[name] = value if known is None else f"{known}, {value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request as it arrived, complete.

    Example: `assert [r.json()["model"] for r in api.requests] == ["cline/ok"]`
    """

    time: float
    """When it was complete, in seconds of `time.monotonic()`."""
    method: str
    """In capitals, as sent."""
    target: str
    """The request target as sent, with its query; a whole URL if the client took us for a proxy."""
    path: str
    """The path of `target`, without query or host."""
    headers: dict[str, str] = field(repr=False)
    """Names in lower case; repeated fields are joined by `", "`. Not shown: it holds the key."""
    body: bytes
    connection: int
    """The TCP connection it came on, counted from 1: equal numbers mean a re-used connection."""
    http_version: str = "HTTP/1.1"
    """`"HTTP/1.1"`, `"HTTP/1.0"` or `"HTTP/2"`. Over HTTP/2 `:authority` is in `headers` as
    `host`."""
    request_id: str | None = None
    """The `x-request-id` it was answered with, `None` if it got none."""

    def json(self) -> object:
        """The body as JSON. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)
