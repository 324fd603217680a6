# SPDX-License-Identifier: Apache-2.0
"""A server that says what no server should, over real sockets, for as long as it is heard."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["HostileServer", "running"]

Script = Callable[[], Iterable[bytes]]


@dataclass
class HostileServer:
    """Answers each request with the pieces of its script, until the client goes away."""

    script: Script
    listener: socket.socket
    taken: list[int] = field(default_factory=list[int])
    """Bytes that were sent, request by request, also what lay in the sockets' buffers."""
    _open: set[socket.socket] = field(default_factory=set[socket.socket])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/api/v1/chat/completions"

    def serve(self) -> None:
        threads: list[threading.Thread] = []
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self._open.add(connection)
                threads.append(threading.Thread(target=self._answer, args=(connection,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        # A thread that waits in accept() or send() is woken by this, not by close().
        for one in (self.listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            _read_request(connection)
            self.taken.append(0)
            place = len(self.taken) - 1
            for piece in self.script():
                connection.sendall(piece)
                self.taken[place] += len(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


def _read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    while len(body) < sum(lengths):
        body += connection.recv(65536)


@contextmanager
def running(script: Script) -> Generator[HostileServer, None, None]:
    """Serve in a thread; all its threads have ended afterwards."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = HostileServer(script, listener)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
