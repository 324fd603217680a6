# SPDX-License-Identifier: Apache-2.0
"""Responses: a reply made out for one request, as bytes and their pace."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING

from cline_transport.simulator._answer import Answer
from cline_transport.simulator._encoding import encoder_for
from cline_transport.simulator._reply import EVENT_STREAM, JSON, has, json_object, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cline_transport.simulator._encoding import Encoder
    from cline_transport.simulator._gate import Gate
    from cline_transport.simulator._reply import Reply, Then

    Fields = tuple[tuple[str, str], ...]
    # `bytes` have a length from the start, a tuple is sent piece by piece.
    Content = bytes | tuple[bytes, ...]


def nobody_waits() -> None:
    """What a response is `finished` with if nobody counts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A reply made out for one request: what the connection writes, whatever the protocol."""

    status: int | None
    headers: Fields
    pieces: tuple[bytes, ...]
    delay: float
    """Seconds before anything is written."""
    interval: float
    """Seconds between one piece and the next."""
    then: Then
    gate: Gate | None
    request_id: str | None
    finished: Callable[[], None]
    """To be called, once, when it is written whole or nobody is there any more to write to."""

    async def begin(self) -> None:
        """Wait until anything may be written."""
        if self.delay:
            await asyncio.sleep(self.delay)

    async def turn(self, index: int) -> None:
        """Wait until the piece with this index may be written."""
        if index and self.interval:
            await asyncio.sleep(self.interval)
        if self.gate is not None:
            await self.gate.acquire()


def respond(reply: Reply, body: bytes, *, finished: Callable[[], None] = nobody_waits) -> Response:
    """Make `reply` out for a request with this `body`; `finished` as in `Response`."""
    content, headers = _content(reply, body)
    request_id = reply.request_id
    if isinstance(request_id, EllipsisType):
        request_id = f"req_{uuid.uuid4().hex}"
    if request_id is not None:
        headers = (*headers, ("x-request-id", request_id))
    if reply.encoding is not None:
        # Where the body breaks off, the encoding does; `cut_at` counts in the complete one.
        complete = reply.then == "end" or reply.cut_at is not None
        content = _encoded(content, encoder_for(reply.encoding), complete=complete)
        if not has(headers, "content-encoding"):
            headers = (*headers, ("content-encoding", reply.encoding))
    pieces, length = _pieces(content, reply)
    if length is not None and not has(headers, "content-length"):
        headers = (*headers, ("content-length", str(length)))
    return Response(
        status=reply.status,
        headers=headers,
        pieces=pieces,
        delay=reply.delay,
        interval=0.0 if reply.drip is None else reply.drip[1],
        then=reply.then,
        gate=reply.gate,
        request_id=request_id,
        finished=finished,
    )


def _content(reply: Reply, body: bytes) -> tuple[Content, Fields]:
    if not isinstance(reply.body, Answer):
        return reply.body, reply.headers
    asked = json_object(body) or {}
    model = asked.get("model")
    model = model if isinstance(model, str) else "simulator"
    answer = reply.body
    if answer.mode == "json" or (answer.mode == "as_asked" and asked.get("stream") is False):
        return answer.document(model), typed(JSON, reply.headers)
    headers = (*reply.headers, ("cache-control", "no-cache"))
    return answer.stream(model), typed(EVENT_STREAM, headers)


def _encoded(content: Content, encoder: Encoder, *, complete: bool) -> Content:
    if isinstance(content, bytes):
        return encoder.piece(content) + encoder.end()
    pieces = [encoder.piece(piece) for piece in content]
    if complete:
        # The trailer leaves with the last piece: it needs no write and no permit of its own.
        last = pieces.pop() if pieces else b""
        pieces.append(last + encoder.end())
    return tuple(pieces)


def _pieces(content: Content, reply: Reply) -> tuple[tuple[bytes, ...], int | None]:
    """What is written, one element for each write, and the content length if it has one."""
    whole = isinstance(content, bytes)
    pieces = (content,) if isinstance(content, bytes) else content
    if not whole and isinstance(reply.body, Answer) and reply.body.split is not None:
        pieces = _split(pieces, reply.body.split)
    length = sum(map(len, pieces))
    if reply.cut_at is not None:
        pieces = tuple(_cut(pieces, reply.cut_at))
        if reply.then == "end":  # a clean end: nothing is missing, as far as HTTP can tell
            length = sum(map(len, pieces))
    if reply.drip is not None:
        pieces = _split(pieces, reply.drip[0])
    if whole:
        pieces = tuple(filter(None, pieces))
    return pieces, length if whole else None


def _split(pieces: tuple[bytes, ...], size: int) -> tuple[bytes, ...]:
    body = b"".join(pieces)
    return tuple(body[at : at + size] for at in range(0, len(body), size))


def _cut(pieces: Iterable[bytes], left: int) -> Iterator[bytes]:
    for piece in pieces:
        if not left:
            return
        yield piece[:left]
        left -= min(left, len(piece))
