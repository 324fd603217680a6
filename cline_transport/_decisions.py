# SPDX-License-Identifier: Apache-2.0
"""What the state machine of a call decides, and what a delivered response looks like."""

from __future__ import annotations

from typing import Literal, NamedTuple

from cline_transport.errors import ErrorInfo
from cline_transport.retry import StopReason

__all__ = [
    "Body",
    "BodyPlan",
    "Deliver",
    "Raise",
    "Rewrite",
    "Try",
    "rewrite_headers",
    "without_encoding",
]

BodyPlan = Literal["error", "json", "stream", "pass"]
"""How a response's body is treated: read whole as an error's, read whole if it is small enough to
be an error in a 2xx, inspected event by event, or passed on."""


class Body(NamedTuple):
    """A body that was read: as it came, and decoded. `complete` is `False` if it is longer."""

    raw: bytes
    decoded: bytes
    complete: bool


class Try(NamedTuple):
    """Wait this many seconds, then make another attempt; the failed one is over."""

    wait: float
    error: ErrorInfo


class Rewrite(NamedTuple):
    """A response in place of the one that came. `body` is `None` where the bytes stay."""

    status_code: int
    body: bytes | None


class Deliver(NamedTuple):
    """Give this response to the caller."""

    rewrite: Rewrite | None = None
    no_retry: bool = False
    """Whether it is marked `x-should-retry: false`: the policy has ruled on this call."""
    error: ErrorInfo | None = None
    reason: StopReason | None = None
    """Why an error is not retried (again)."""


class Raise(NamedTuple):
    """Let the attempt's exception reach the caller."""

    error: ErrorInfo
    reason: StopReason


def without_encoding(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a body that is delivered decoded."""
    dropped = (b"content-encoding", b"content-length")
    return [(name, value) for name, value in raw if name.lower() not in dropped]


def rewrite_headers(
    raw: list[tuple[bytes, bytes]], *, body: bytes | None, no_retry: bool
) -> list[tuple[bytes, bytes]]:
    """The headers of a delivered error: true to its body, and final for the layer above.

    Args:
        raw: The headers as they came.
        body: The new body, or `None` where the bytes stay as they came.
        no_retry: Add `x-should-retry: false`, which the OpenAI SDK obeys.
    """
    dropped = {b"x-should-retry"} if no_retry else set[bytes]()
    if body is not None:
        dropped |= {b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"}
    headers = [(name, value) for name, value in raw if name.lower() not in dropped]
    if body is not None:
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(body)).encode("ascii")))
    if no_retry:
        headers.append((b"x-should-retry", b"false"))
    return headers
