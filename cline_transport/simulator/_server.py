# SPDX-License-Identifier: Apache-2.0
"""A listening socket and its event loop, in a thread of their own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cline_transport.simulator._connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cline_transport.simulator._request import Incoming
    from cline_transport.simulator._response import Response


class Server:
    """Serves connections from construction until `stop`, which must be called once.

    `answer` and `changed` (a connection was opened or closed) are called in the thread of the
    server. Raises `OSError` if the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[int, Incoming], Response],
        changed: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._changed = changed
        self._numbers: dict[Connection, int] = {}
        self.accepted = 0
        self.refusing = False
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._host = host
        # Listening before the thread runs: a client may connect as soon as this returns.
        self._socket.listen()
        # Its `add_reader` is what not every loop on Windows has.
        self._loop = asyncio.SelectorEventLoop()
        self._stopping = asyncio.Event()
        self._connecting: set[asyncio.Task[None]] = set()
        self._main = self._loop.create_task(self._serve())
        self._thread = threading.Thread(
            target=self._run, name=f"cline-simulator-{self.port}", daemon=True
        )
        self._thread.start()

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._numbers)

    def stop(self) -> None:
        """Drop all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def pause(self) -> None:
        """Drop all connections and refuse new ones, keeping the port."""
        self._call(self._pause())

    def resume(self) -> None:
        """Listen again."""
        self._call(self._resume())

    def _call(self, step: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._listen()
        await self._stopping.wait()
        self._deafen()
        await self._drop_all()

    def _listen(self) -> None:
        self._socket.setblocking(False)
        self._socket.listen()
        self._loop.add_reader(self._socket, self._accept)
        self.refusing = False

    def _deafen(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    async def _pause(self) -> None:
        self.refusing = True
        self._deafen()
        # Bound but not listening: connecting is refused, and nobody else gets the port, not
        # even as the near end of a connection.
        self._socket = _bind(self._host, self.port)
        await self._drop_all()

    async def _resume(self) -> None:
        self._listen()

    async def _drop_all(self) -> None:
        # All tasks but the server's own belong to a connection, or to one in the making.
        own = {self._main, asyncio.current_task()}
        while tasks := asyncio.all_tasks() - own:
            for connection in self._numbers:
                connection.abort()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    def _accept(self) -> None:
        # Not asyncio's server: closing that while it accepts can lose the new socket.
        with suppress(BlockingIOError, ConnectionAbortedError):  # gone again before we came
            sock, _ = self._socket.accept()
            sock.setblocking(False)
            task = self._loop.create_task(self._connect(sock))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, sock: socket.socket) -> None:
        def answer(incoming: Incoming) -> Response:
            return self._answer(self._numbers[connection], incoming)

        connection = Connection(answer, self._opened, self._closed)
        await self._loop.connect_accepted_socket(lambda: connection, sock)

    def _opened(self, connection: Connection) -> None:
        self.accepted += 1
        self._numbers[connection] = self.accepted
        self._changed()

    def _closed(self, connection: Connection) -> None:
        del self._numbers[connection]
        self._changed()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only where the protocol is named does asyncio set TCP_NODELAY: each write leaves at once.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On Windows this option would let another process take the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name != "nt"))
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
