# SPDX-License-Identifier: Apache-2.0
"""Replies whose bytes are known before they are sent."""

from __future__ import annotations

from dataclasses import replace

from cline_transport.simulator import Reply
from cline_transport.simulator._answer import Answer


def made_out(reply: Reply, *, model: str, stream: bool) -> Reply:
    """The reply with the bytes of its answer, for a request with this model and `stream`."""
    answer = reply.body
    if not isinstance(answer, Answer):
        return reply
    if answer.mode == "json" or (answer.mode == "as_asked" and not stream):
        headers = (*reply.headers, ("content-type", "application/json"))
        return replace(reply, headers=headers, body=answer.document(model))
    headers = (*reply.headers, ("content-type", "text/event-stream"))
    return replace(reply, headers=headers, body=answer.stream(model))
