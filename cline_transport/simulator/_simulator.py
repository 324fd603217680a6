# SPDX-License-Identifier: Apache-2.0
"""The simulator: a server, a queue of replies, and a record of what came."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cline_transport.simulator._gateway import Gateway
from cline_transport.simulator._limits import Limiter
from cline_transport.simulator._reply import Reply
from cline_transport.simulator._request import Incoming, ReceivedRequest
from cline_transport.simulator._response import nobody_waits, respond
from cline_transport.simulator._server import Server

if TYPE_CHECKING:
    import sys
    from collections.abc import Callable, Generator, Iterable
    from types import TracebackType

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

    from cline_transport.simulator._limits import ApiLimits, LimitCounts
    from cline_transport.simulator._response import Response

# What has limits, with whatever before it.
LIMITED = "/chat/completions"


class Simulator:
    """A Cline API on a loopback socket that misbehaves as told.

    A request is served with the next reply of the queue, whatever its path, key and model. With an
    empty queue it is answered as the API documents: 404 for an unknown path, 401 for a wrong key,
    400 for a body without model or messages, 404 for an unknown model, otherwise as the model's
    scenario says (`cline_transport.simulator.scenarios`). `GET /api/v1/models` lists the models.

    - `port`: where to listen; default 0, any free port, another one at each start.
    - `host`: the address to listen on, default `127.0.0.1`.
    - `api_key`: the key it accepts.
    - `models`: further model ids that give good answers.
    - `respond`: called with each request, before the queue is looked at, in the server's thread and
      one request at a time; its `Reply` is the answer, `None` (as for no `respond`, the default)
      leaves the request to the queue. It must not wait for a client. If it raises, that is logged
      and the connection is dropped. The attribute of the same name may be set at any time.
    - `limits`: how many requests it takes from each key; default `None`, any. What is over them is
      refused before `respond` and the queue are asked, and is among `requests` all the same. The
      attribute of the same name may be set at any time.

    It speaks HTTP/1.1, and HTTP/2 without TLS to clients that begin with it (prior knowledge, as
    `httpx.HTTPTransport(http1=False, http2=True)` does), for which `h2` must be installed.

    All methods may be called from any thread, but do wait for the server's own thread; stopping
    takes no longer than closing the connections. It may be started again after it was stopped.

    Example:
        ```python
        with Simulator() as api:
            api.enqueue(Reply.error(503), Reply.ok("Hello"))
            client = openai.OpenAI(base_url=api.base_url, api_key=api.api_key)

        # By request, whatever comes first.
        with Simulator(respond=lambda r: Reply.error(503) if "x-bad" in r.headers else None) as api:
            ...
        ```
    """

    respond: Callable[[ReceivedRequest], Reply | None] | None
    """What is asked first for an answer. Example: `api.respond = lambda request: Reply.ok()`."""

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        api_key: str = "sk-simulator",
        models: Iterable[str] = (),
        respond: Callable[[ReceivedRequest], Reply | None] | None = None,
        limits: ApiLimits | None = None,
    ) -> None:
        self.api_key = api_key
        self.respond = respond
        self._port = port
        self._host = host
        self._gateway = Gateway(api_key, models)
        self._limiter = Limiter(limits)
        self._queue: deque[Reply] = deque()
        self._requests: list[ReceivedRequest] = []
        self._changed = threading.Condition()
        self._lifecycle = threading.Lock()
        self._server: Server | None = None
        self._accepted = 0

    def start(self) -> Self:
        """Listen, and return the simulator itself.

        Raises `RuntimeError` if it is started already, `OSError` if the port is taken.
        """
        with self._lifecycle:
            if self._server is not None:
                raise RuntimeError("the simulator is started already")
            self._server = Server(self._host, self._port, self._answer, self._notify)
        return self

    def stop(self) -> None:
        """Drop all connections and stop; nothing happens if it is not started."""
        with self._lifecycle:
            server, self._server = self._server, None
            if server is not None:
                server.stop()
                self._accepted = server.accepted

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on. Raises `RuntimeError` if it is not started."""
        return self._started().port

    @property
    def base_url(self) -> str:
        """What a client takes as base URL: `http://127.0.0.1:PORT/api/v1`.

        Raises `RuntimeError` if it is not started.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/api/v1"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests so far, oldest first: a copy, that does not grow."""
        with self._changed:
            return list(self._requests)

    @property
    def connections_open(self) -> int:
        """How many TCP connections are open now, as seen from here; 0 if it is not started."""
        server = self._server
        return 0 if server is None else server.open

    @property
    def connections_accepted(self) -> int:
        """How many TCP connections there were since the last start."""
        server = self._server
        return self._accepted if server is None else server.accepted

    @property
    def limits(self) -> ApiLimits | None:
        """The limits that each request from now on is held to.

        What is in progress stays so, whatever is set. Another rate begins with the requests that
        the old one had left; one after none (`None`) begins anew.
        Example: `api.limits = ApiLimits(requests_per_minute=60)`.
        """
        with self._changed:
            return self._limiter.limits

    @limits.setter
    def limits(self, limits: ApiLimits | None) -> None:
        with self._changed:
            self._limiter.change(limits, time.monotonic())

    @property
    def counts(self) -> LimitCounts:
        """What became of the requests to the chat endpoint, with limits or without.

        A client may have its response a moment before the request is no longer `concurrent`.
        Example: `api.wait_for(lambda: api.counts.concurrent == 0)`.
        """
        with self._changed:
            return self._limiter.counts

    def enqueue(self, *replies: Reply) -> None:
        """Add replies to the queue; each request takes one, first in, first out.

        Example: `api.enqueue(Reply.error(500), Reply.ok())`.
        """
        with self._changed:
            self._queue.extend(replies)

    def reset(self) -> None:
        """Forget the queue, the requests, the `counts` and the attempts that scenarios count.

        What is in progress still is; limits stay, and so does what they have left.
        """
        with self._changed:
            self._queue.clear()
            self._requests.clear()
            self._gateway.reset()
            self._limiter.reset()

    def wait_for(self, predicate: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Wait until `predicate()` is true; it is asked when a request or connection comes or ends.

        `timeout` is in seconds; `TimeoutError` after it.
        Example: `api.wait_for(lambda: api.connections_open == 0)`.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise TimeoutError(f"the simulator saw no such thing in {timeout} s")

    @contextmanager
    def refusing(self) -> Generator[None]:
        """Meanwhile refuse connections; those that are open are dropped. The port stays ours.

        Raises `RuntimeError` if it is not started or refuses already.

        Example:
            ```python
            with api.refusing():
                httpx.get(api.base_url)  # raises ConnectError
            ```
        """
        with self._lifecycle:
            server = self._started()
            if server.refusing:
                raise RuntimeError("the simulator refuses connections already")
            server.pause()
        try:
            yield
        finally:
            with self._lifecycle:
                if self._server is server:
                    server.resume()

    def _started(self) -> Server:
        server = self._server
        if server is None:
            raise RuntimeError("the simulator is not started")
        return server

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _next(self, request: ReceivedRequest) -> Reply:
        return self._queue.popleft() if self._queue else self._gateway.answer(request)

    def _answer(self, connection: int, incoming: Incoming) -> Response:
        request = ReceivedRequest(
            time=time.monotonic(),
            method=incoming.method,
            target=incoming.target,
            path=urlsplit(incoming.target).path,
            headers=incoming.headers,
            body=bytes(incoming.body),
            connection=connection,
            http_version=incoming.http_version,
        )
        reply, finished = None, nobody_waits
        if request.method == "POST" and request.path.endswith(LIMITED):
            key = request.headers.get("authorization", "")
            with self._changed:
                reply = self._limiter.admit(key, request.time)
            if reply is None:
                finished = partial(self._finished, key)
        try:
            # Not under the lock: what it does takes as long as it takes.
            if reply is None and self.respond is not None:
                reply = self.respond(request)
            with self._changed:
                response = respond(reply or self._next(request), request.body, finished=finished)
                self._requests.append(replace(request, request_id=response.request_id))
                self._changed.notify_all()
        except BaseException:
            finished()
            raise
        return response

    def _finished(self, key: str) -> None:
        with self._changed:
            self._limiter.finished(key)
            self._changed.notify_all()


def serve_forever(
    port: int,
    *,
    host: str = "127.0.0.1",
    limits: ApiLimits | None = None,
    on_ready: Callable[[Simulator], None] | None = None,
) -> None:
    """Run a simulator until Ctrl+C (`KeyboardInterrupt`), then stop it and return.

    `host` and `limits` as in `Simulator`. `on_ready` is called once it listens, with the
    simulator. Raises `OSError` if the port is taken.

    Example: `serve_forever(8080, on_ready=lambda api: print(api.base_url))`.
    """
    try:
        with Simulator(port=port, host=host, limits=limits) as api:
            if on_ready is not None:
                on_ready(api)
            while True:
                # Not a lock or an event: on Windows Ctrl+C would not wake them.
                time.sleep(3600)
    except KeyboardInterrupt:
        return
