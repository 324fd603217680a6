"""What the simulator remembers of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


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
    request_id: str | None = None
    """The `x-request-id` it was answered with, `None` if it got none."""

    def json(self) -> object:
        """The body as JSON. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)
