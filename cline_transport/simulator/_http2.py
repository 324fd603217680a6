# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 without TLS: the requests and responses of one connection, at the same time, by h2."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cline_transport._extras import absent
from cline_transport.simulator._request import Incoming

try:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.errors import ErrorCodes
    from h2.events import (
        ConnectionTerminated,
        DataReceived,
        Event,
        RequestReceived,
        StreamEnded,
        StreamReset,
    )
    from h2.exceptions import ProtocolError
except ImportError as error:
    raise absent("h2", "the simulator", error) from error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cline_transport.simulator._connection import Connection
    from cline_transport.simulator._response import Response

# RFC 9113, 8.2.2: fields that are about an HTTP/1 connection and that no message may have here.
CONNECTION_FIELDS: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
# Pseudo-header → the attribute of `Incoming`.
PSEUDO: Final = {":method": "method", ":path": "target"}


async def serve(connection: Connection, received: bytes) -> None:
    """Answer requests until the client says goodbye or breaks the protocol.

    `received` is what was read already, from the connection preface on.
    """
    http2 = _Http2(connection)
    try:
        while await http2.receive(received):
            received = await connection.read()
    finally:
        http2.cancel()


class _Http2:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # Bytes, not text: h2 would raise for what is not UTF-8.
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.initiate_connection()
        self._incoming: dict[int, Incoming] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Set, and replaced, when the client has said something: a window may be open again.
        self._news = asyncio.Event()
        # Our side is closed: what still comes is for nobody.
        self._over = False

    async def receive(self, data: bytes) -> bool:
        """Act on what has come; whether more may follow."""
        if self._over:
            return True
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:  # h2 has a GOAWAY ready that says what was wrong
            events = [ConnectionTerminated()]
        for event in events:
            self._on(event)
        news, self._news = self._news, asyncio.Event()
        news.set()
        await self._flush()
        return not any(isinstance(event, ConnectionTerminated) for event in events)

    def cancel(self) -> None:
        """End all responses."""
        for task in self._tasks.values():
            task.cancel()

    def _on(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._incoming[event.stream_id] = incoming = _incoming(event.headers)
            if incoming.headers.get("expect") == "100-continue":
                self._h2.send_headers(event.stream_id, [(":status", "100")])
        elif isinstance(event, DataReceived):
            self._incoming[event.stream_id].body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            incoming = self._incoming.pop(event.stream_id)
            task = asyncio.get_running_loop().create_task(self._answer(event.stream_id, incoming))
            self._tasks[event.stream_id] = task
        elif isinstance(event, StreamReset):
            self._incoming.pop(event.stream_id, None)
            answering = self._tasks.pop(event.stream_id, None)
            if answering is not None:
                answering.cancel()

    async def _answer(self, stream: int, incoming: Incoming) -> None:
        try:
            response = self._connection.answer(incoming)
            try:
                await self._send(stream, response, bodiless=incoming.method == "HEAD")
                if response.then == "stall":
                    await self._connection.ended()  # or the stream's end, which cancels this too
            finally:
                response.finished()
            del self._tasks[stream]
            if response.then == "close":
                self._over = True
                self.cancel()
                self._connection.shut()
        except Exception as error:  # noqa: BLE001 - told in the log
            self._connection.fail(error)

    async def _send(self, stream: int, response: Response, *, bodiless: bool) -> None:
        pieces = () if bodiless else response.pieces
        ends = response.then == "end"
        await response.begin()
        if response.status is not None:
            self._h2.send_headers(stream, _fields(response), end_stream=ends and not pieces)
            await self._flush()
        for index, piece in enumerate(pieces):
            await response.turn(index)
            await self._write(stream, piece)
        if ends and pieces:
            self._h2.end_stream(stream)
        elif response.then == "reset":
            self._h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
        await self._flush()

    async def _write(self, stream: int, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            window = self._h2.local_flow_control_window(stream)
            size = min(window, self._h2.max_outbound_frame_size)
            if size > 0:
                self._h2.send_data(stream, piece[at : at + size])
                at += size
                await self._flush()
            else:
                await self._news.wait()

    async def _flush(self) -> None:
        await self._connection.write(self._h2.data_to_send())


def _incoming(fields: Iterable[tuple[bytes, bytes]]) -> Incoming:
    incoming = Incoming(http_version="HTTP/2")
    for name, value in fields:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key in PSEUDO:
            setattr(incoming, PSEUDO[key], text)
        elif key == ":authority":
            incoming.headers["host"] = text
        elif not key.startswith(":"):
            incoming.add(key, text)
    return incoming


def _fields(response: Response) -> list[tuple[str, str]]:
    fields = [(name.lower(), value) for name, value in response.headers]
    kept = [field for field in fields if field[0] not in CONNECTION_FIELDS]
    return [(":status", str(response.status)), *kept]
