# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1: the requests and responses of one connection, one after the other, by h11."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cline_transport._extras import absent
from cline_transport.simulator._reply import Reply
from cline_transport.simulator._request import Incoming
from cline_transport.simulator._response import respond

try:
    import h11
except ImportError as error:
    raise absent("h11", "the simulator", error) from error

if TYPE_CHECKING:
    from cline_transport.simulator._connection import Connection
    from cline_transport.simulator._response import Response


async def serve(connection: Connection, received: bytes) -> None:
    """Read a request, ask for the response, write it, and again, until the connection may close.

    `received` is what was read of the first request already.
    """
    http1 = _Http1(connection, received)
    while await http1.exchange():
        http1.again()


class _Http1:
    def __init__(self, connection: Connection, received: bytes) -> None:
        self._connection = connection
        self._h11 = h11.Connection(h11.SERVER)
        self._h11.receive_data(received)

    async def exchange(self) -> bool:
        """One request and its response; whether another may follow."""
        try:
            incoming = await self._receive()
        except h11.RemoteProtocolError as error:
            reply = Reply.error(400, message=str(error), headers={"connection": "close"})
            await self._send(respond(reply, b""), bodiless=False)
            return False
        response = self._connection.answer(incoming)
        try:
            return await self._respond(response, bodiless=incoming.method == "HEAD")
        finally:
            response.finished()

    async def _respond(self, response: Response, *, bodiless: bool) -> bool:
        """The response and what comes after it; whether another request may follow."""
        await self._send(response, bodiless=bodiless)
        if response.then == "end":
            return self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        if response.then == "close":
            return False
        if response.then == "reset":
            self._connection.reset()
        return await self._connection.ended()

    def again(self) -> None:
        """Be ready for the next request."""
        self._h11.start_next_cycle()

    async def _receive(self) -> Incoming:
        incoming = Incoming()
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                incoming.method = event.method.decode("ascii")
                incoming.target = event.target.decode("latin-1")
                incoming.http_version = f"HTTP/{event.http_version.decode('ascii')}"
                for name, value in event.headers:
                    incoming.add(name.decode("ascii"), value.decode("latin-1"))
            elif isinstance(event, h11.Data):
                incoming.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return incoming
            else:  # NEED_DATA
                if self._h11.they_are_waiting_for_100_continue:
                    await self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._h11.receive_data(await self._connection.read())

    async def _send(self, response: Response, *, bodiless: bool) -> None:
        await response.begin()
        if response.status is None:
            return
        headers = list(response.headers)
        await self._write(h11.Response(status_code=response.status, headers=headers))
        for index, piece in enumerate(() if bodiless else response.pieces):
            await response.turn(index)
            await self._write(h11.Data(data=piece))
        if response.then == "end":
            await self._write(h11.EndOfMessage())

    async def _write(self, event: h11.Event) -> None:
        await self._connection.write(self._h11.send(event) or b"")
