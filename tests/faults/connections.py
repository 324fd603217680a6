# SPDX-License-Identifier: Apache-2.0
"""Failures without a response, or of a connection that is lost in the middle of one."""

from __future__ import annotations

from typing import Final

from cline_transport.simulator import Reply

from .failure import SAID, TEXT, THRICE, Failure, Raised

CONNECTIONS: Final = (
    Failure(
        name="refused",
        trouble="refused",
        waits=THRICE,
        end=Raised(exception="ConnectError", code="connect_error"),
    ),
    Failure(
        name="connect timeout",
        trouble="not accepted",
        modes=("stream",),
        waits=THRICE,
        timeout="connect",
        end=Raised(exception="ConnectTimeout", code="connect_timeout"),
    ),
    Failure(
        name="closed before a response",
        reply=Reply.close(),
        waits=THRICE,
        end=Raised(exception="RemoteProtocolError", code="connection_closed"),
    ),
    Failure(
        name="reset before a response",
        reply=Reply.reset(),
        waits=THRICE,
        end=Raised(exception="ReadError", code="connection_closed"),
    ),
    Failure(
        name="read timeout",
        reply=Reply.stall(),
        timeout="read",
        end=Raised(exception="ReadTimeout", code="read_timeout"),
    ),
    Failure(
        name="write timeout",
        trouble="not read",
        modes=("stream",),
        timeout="write",
        end=Raised(exception="WriteTimeout", code="write_timeout"),
    ),
    Failure(
        name="pool timeout",
        trouble="pool full",
        timeout="pool",
        end=Raised(exception="PoolTimeout", code="pool_timeout"),
    ),
    Failure(
        name="closed before a response, the body is a generator",
        body="generator",
        reply=Reply.close(),
        end=Raised(exception="RemoteProtocolError", code="connection_closed"),
    ),
    Failure(
        name="closed within a JSON answer",
        reply=Reply.raw(
            headers={"content-type": "application/json"}, body=[b'{"choices":'], then="close"
        ),
        waits=THRICE,
        end=Raised(exception="RemoteProtocolError", code="connection_closed", phase="mid_stream"),
    ),
    Failure(
        name="closed before content",
        modes=("stream",),
        reply=Reply.stream(TEXT, cut_after=0, then="close"),
        waits=THRICE,
        end=Raised(exception="RemoteProtocolError", code="connection_closed", phase="mid_stream"),
    ),
    Failure(
        name="read timeout before content",
        modes=("stream",),
        reply=Reply.stream(TEXT, cut_after=0, then="stall"),
        timeout="read",
        end=Raised(exception="ReadTimeout", code="read_timeout", phase="mid_stream"),
    ),
    Failure(
        name="closed after content",
        modes=("stream",),
        reply=Reply.stream(TEXT, cut_after=2, then="close"),
        end=Raised(
            exception="RemoteProtocolError",
            code="connection_closed",
            phase="mid_stream",
            text=SAID,
        ),
    ),
    Failure(
        name="read timeout after content",
        modes=("stream",),
        reply=Reply.stream(TEXT, cut_after=2, then="stall"),
        timeout="read",
        end=Raised(exception="ReadTimeout", code="read_timeout", phase="mid_stream", text=SAID),
    ),
)
