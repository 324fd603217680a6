"""HTTP/1.1: one connection, read and written by h11.

Another protocol needs a module like this one, that turns requests into `Incoming` and
writes the `Response` it gets for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from cline_transport.simulator._reply import Reply, respond

try:
    import h11
except ImportError as error:
    raise ImportError(
        "the simulator needs h11: pip install 'cline-transport[simulator]'", name="h11"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from cline_transport.simulator._reply import Response

logger = logging.getLogger(__name__)

# RST instead of FIN when the socket is closed.
LINGER_0 = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


@dataclass(slots=True, kw_only=True)
class Incoming:
    """A request as the connection reads it."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)


class Connection(asyncio.Protocol):
    """One connection: reads a request, asks `answer` for the response, writes it, and again.

    `task` runs from the connection's begin to its end: whoever awaits it knows that the socket
    is closed.
    """

    def __init__(
        self,
        answer: Callable[[Incoming], Response],
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self._answer = answer
        self._opened = opened
        self._closed = closed
        self._h11 = h11.Connection(h11.SERVER)
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport
        self.task: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # No buffer of our own: what has been written is with the kernel before the next step.
        self._transport.set_write_buffer_limits(0)
        self.task = asyncio.get_running_loop().create_task(self._run())
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self.task.cancel()
        self._closed(self)

    def data_received(self, data: bytes) -> None:
        self._h11.receive_data(data)
        self._readable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """Drop the connection, whatever it is doing."""
        self._transport.abort()

    async def _run(self) -> None:
        try:
            while await self._exchange():
                self._h11.start_next_cycle()
            self._transport.close()
        except Exception:
            logger.exception("The simulator could not answer a request")
            self._transport.abort()
        await _forever()

    async def _exchange(self) -> bool:
        """One request and its response; whether another may follow."""
        try:
            incoming = await self._receive()
        except h11.RemoteProtocolError as error:
            reply = Reply.error(400, message=str(error), headers={"connection": "close"})
            await self._send(respond(reply, b""), bodiless=False)
            return False
        response = self._answer(incoming)
        await self._send(response, bodiless=incoming.method == "HEAD")
        if response.then == "end":
            return self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        if response.then == "close":
            return False
        if response.then == "reset":
            sock = cast("socket.socket", self._transport.get_extra_info("socket"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            self._transport.abort()
        return await _forever()

    async def _receive(self) -> Incoming:
        incoming = Incoming(method="", target="")
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                incoming.method = event.method.decode("ascii")
                incoming.target = event.target.decode("latin-1")
                for name, value in event.headers:
                    key, text = name.decode("ascii"), value.decode("latin-1")
                    known = incoming.headers.get(key)
                    incoming.headers[key] = text if known is None else f"{known}, {text}"
            elif isinstance(event, h11.Data):
                incoming.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return incoming
            else:
                # NEED_DATA: the end of the connection is not read here but cancels the task.
                if self._h11.they_are_waiting_for_100_continue:
                    await self._write(h11.InformationalResponse(status_code=100, headers=[]))
                await self._readable.wait()
                self._readable.clear()

    async def _send(self, response: Response, *, bodiless: bool) -> None:
        if response.status is None:
            return
        headers = list(response.headers)
        await self._write(h11.Response(status_code=response.status, headers=headers))
        for piece in () if bodiless else response.pieces:
            if response.gate is not None:
                await response.gate.acquire()
            await self._write(h11.Data(data=piece))
        if response.then == "end":
            await self._write(h11.EndOfMessage())

    async def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        self._transport.write(data or b"")
        await self._writable.wait()


async def _forever() -> bool:
    """Wait until the task is cancelled."""
    return await asyncio.Event().wait()
