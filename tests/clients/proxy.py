# SPDX-License-Identifier: Apache-2.0
"""A forward proxy on loopback: plain HTTP, one request per connection."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from typing_extensions import override

_HOP_BY_HOP = {"connection", "proxy-connection", "transfer-encoding", "content-length"}


class Proxy(ThreadingHTTPServer):
    """Forwards requests whose target is a whole URL, and remembers the targets."""

    # Their end is waited for: no thread is left over.
    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.targets: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Proxy)
        self.server.targets.append(self.path)
        target = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        origin = HTTPConnection(target.hostname or "", target.port, timeout=30)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            origin.request("POST", target.path, body, headers)
            response = origin.getresponse()
            answer = response.read()
        finally:
            origin.close()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running_proxy() -> Generator[Proxy, None, None]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
