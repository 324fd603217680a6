# SPDX-License-Identifier: Apache-2.0
"""One TCP connection: its bytes, its end, and the protocol that is spoken on it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from cline_transport.simulator import _http1

if TYPE_CHECKING:
    from collections.abc import Callable

    from cline_transport.simulator._request import Incoming
    from cline_transport.simulator._response import Response

logger = logging.getLogger(__name__)

# What a client begins with that knows, and need not ask, that HTTP/2 is spoken here.
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RST instead of FIN when the socket is closed.
LINGER_0: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Connection(asyncio.Protocol):
    """One connection: finds out the protocol, and lets its module speak it.

    `answer` gives the response to a request. `task` runs from the connection's begin to its end:
    whoever awaits it knows that the socket is closed.
    """

    def __init__(
        self,
        answer: Callable[[Incoming], Response],
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self.answer = answer
        self._opened = opened
        self._closed = closed
        self._received = bytearray()
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
        self._received += data
        self._readable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read(self) -> bytes:
        """What has come; the end of the connection is not read here but cancels the task."""
        await self._readable.wait()
        self._readable.clear()
        data = bytes(self._received)
        self._received.clear()
        return data

    async def write(self, data: bytes) -> None:
        """Write, and wait until it is with the kernel. Not after `shut`."""
        self._transport.write(data)
        await self._writable.wait()

    def close(self) -> None:
        """Close the connection; what has been written still goes."""
        self._transport.close()

    def shut(self) -> None:
        """Close our side of the connection, and leave the rest to the client.

        If it still sends, as it does unasked in HTTP/2, a closed socket would answer with a reset.
        """
        self._transport.write_eof()

    def reset(self) -> None:
        """Drop the connection with a TCP RST."""
        sock = cast("socket.socket", self._transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self.abort()

    def abort(self) -> None:
        """Drop the connection, whatever it is doing."""
        self._transport.abort()

    def fail(self, error: Exception) -> None:
        """Log the error, and drop the connection."""
        logger.error("The simulator could not answer a request", exc_info=error)
        self.abort()

    async def ended(self) -> bool:
        """Wait for the end of the connection, which cancels who waits."""
        return await asyncio.Event().wait()

    async def _run(self) -> None:
        try:
            received = await self.read()
            while len(received) < len(HTTP2_PREFACE) and HTTP2_PREFACE.startswith(received):
                received += await self.read()
            if received.startswith(HTTP2_PREFACE):
                # Not before a client speaks it: it needs a package of its own.
                from cline_transport.simulator import _http2  # noqa: PLC0415

                await _http2.serve(self, received)
            else:
                await _http1.serve(self, received)
            self.close()
        except Exception as error:  # noqa: BLE001 - told in the log
            self.fail(error)
        await self.ended()
