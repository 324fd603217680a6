# SPDX-License-Identifier: Apache-2.0
"""A client in one of six combinations, each family in each colour, over real sockets.

`Rig` is used from a plain function whatever its colour: an asynchronous client runs in an event
loop of its own, which the test calls into.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cline_transport import CallRecord, Settings
from cline_transport._protocols import Clock

FAMILIES = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
COLOURS = ["sync", "asyncio", "trio"]
# Of a body that is not read to its end, both libraries leave generators behind; trio says so.
unread = pytest.mark.filterwarnings(
    "ignore:Async generator '(httpx|httpcore):ResourceWarning",
    "ignore:Exception ignored in. <async_generator object (Response|Bound|Pool|Async)"
    ":pytest.PytestUnraisableExceptionWarning",
)
CHAT = {"model": "cline/ok", "messages": [{"role": "user", "content": "hello"}]}


class FakeTime:
    """A clock that only sleeping moves, and the waits that moved it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.random = 0.0
        self.waits: list[float] = []
        self.held: list[float] = []
        """For how long limits held a call back."""
        self.on_wait: Callable[[], None] = lambda: None

    @property
    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: self.now,
            time=lambda: 1_700_000_000.0,  # Tue, 14 Nov 2023 22:13:20 GMT
            random=lambda: self.random,
        )

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_wait()
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def pause(self, wake: object, seconds: float) -> None:
        self.held.append(seconds)
        self.now += seconds

    async def pause_async(self, wake: object, seconds: float) -> None:
        self.pause(wake, seconds)

    def drive(self, transport: Any, *, is_sync: bool) -> None:
        """Let a transport of ours wait on this clock."""
        loop = transport._loop
        loop.clock = self.clock
        loop.sleep = self.sleep if is_sync else self.sleep_async
        loop.pause = self.pause if is_sync else self.pause_async


@dataclass
class Answer:
    """A response that was read, or the exception that came instead."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    chunks: list[bytes] = field(default_factory=list[bytes])
    exception: BaseException | None = None
    response: Any = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def record(self) -> CallRecord:
        record: CallRecord = self.response.extensions["cline_transport"]
        return record

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client of either colour, called without one."""

    def __init__(self, raw: Any, portal: BlockingPortal | None) -> None:
        self.raw = raw
        self.portal = portal

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args) if self.portal is None else self.portal.call(function, *args)

    def open(self, method: str, url: str, **options: Any) -> Any:
        """A response whose body is not read."""
        request = self.raw.build_request(method, url, **options)
        return self.run(lambda: self.raw.send(request, stream=True))

    def chunks(self, response: Any) -> Generator[bytes, None, None]:
        """The body as it comes, undecoded."""
        if self.portal is None:
            yield from response.iter_raw()
            return
        iterator = response.aiter_raw()
        try:
            while True:
                try:
                    yield self.portal.call(iterator.__anext__)
                except StopAsyncIteration:  # noqa: PERF203 -- one call into the loop at a time
                    return
        finally:
            self.portal.call(iterator.aclose)

    def close(self, response: Any) -> None:
        self.run(response.close if self.portal is None else response.aclose)

    def request(self, method: str, url: str, **options: Any) -> Answer:
        """Send and read; an exception is part of the answer."""
        answer = Answer()
        try:
            answer.response = self.open(method, url, **options)
            answer.status = answer.response.status_code
            answer.headers = dict(answer.response.headers)
            answer.raw_headers = answer.response.headers.raw
            for chunk in self.chunks(answer.response):
                answer.chunks.append(chunk)
        except Exception as exc:  # noqa: BLE001 -- which one is what the test asks
            answer.exception = exc
        if answer.response is not None:
            self.close(answer.response)
        return answer

    def post(self, url: str, **options: Any) -> Answer:
        return self.request("POST", url, **options)


@dataclass
class Rig:
    """One family, one colour."""

    family: str
    colour: str
    time: FakeTime
    spans: InMemorySpanExporter
    provider: TracerProvider
    reader: InMemoryMetricReader
    meter_provider: MeterProvider
    logs: InMemoryLogRecordExporter
    logger_provider: LoggerProvider
    stack: ExitStack
    portal: BlockingPortal | None = None

    @property
    def library(self) -> Any:
        return importlib.import_module(self.family)

    @property
    def ours(self) -> Any:
        return importlib.import_module(f"cline_transport.{self.family}")

    @property
    def is_sync(self) -> bool:
        return self.portal is None

    def inner(self, **options: Any) -> Any:
        """A plain transport of the library."""
        kind = "HTTPTransport" if self.is_sync else "AsyncHTTPTransport"
        return getattr(self.library, kind)(**options)

    def transport(
        self, inner: Any = None, *, settings: Settings | None = None, traced: bool = False
    ) -> Any:
        kind = "ClineTransport" if self.is_sync else "AsyncClineTransport"
        transport = getattr(self.ours, kind)(
            self.inner() if inner is None else inner,
            settings=settings,
            tracer_provider=self.provider if traced else None,
            meter_provider=self.meter_provider if traced else None,
            logger_provider=self.logger_provider if traced else None,
        )
        self.own_time(transport)
        return transport

    def own_time(self, transport: Any) -> None:
        """Let a transport of ours wait on the test's clock."""
        self.time.drive(transport, is_sync=self.is_sync)

    def client(self, transport: Any = None, **options: Any) -> Client:
        """A client, closed after the test; `transport` is ours by default."""
        transport = self.transport() if transport is None else transport
        if self.portal is None:
            raw = self.stack.enter_context(
                self.library.Client(transport=transport, timeout=10, **options)
            )
        else:
            raw = self.stack.enter_context(
                self.portal.wrap_async_context_manager(
                    self.library.AsyncClient(transport=transport, timeout=10, **options)
                )
            )
        return Client(raw, self.portal)

    def plain(self, **options: Any) -> Client:
        """A client of the library without us, to compare with."""
        return self.client(self.inner(), **options)

    def exception(self, name: str) -> type[BaseException]:
        found: type[BaseException] = getattr(self.library, name)
        return found

    def finished(self) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
        """The ended spans: calls, and HTTP attempts."""
        spans = self.spans.get_finished_spans()
        ours = [s for s in spans if is_ours(s)]
        return ours, [s for s in spans if s not in ours]


def is_ours(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == "cline_transport"


@contextmanager
def make_rig(
    family: str, colour: str, request: pytest.FixtureRequest
) -> Generator[Rig, None, None]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = MeterProvider(metric_readers=[reader])
    logger_provider = LoggerProvider()
    logger_provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    with ExitStack() as stack:
        portal = None
        if colour != "sync":
            portal = stack.enter_context(start_blocking_portal(backend=colour))
        yield Rig(
            family,
            colour,
            FakeTime(),
            exporter,
            provider,
            reader,
            meter_provider,
            logs,
            logger_provider,
            stack,
            portal,
        )
    provider.shutdown()
    meter_provider.shutdown()
    logger_provider.shutdown()
    if request.node.get_closest_marker("filterwarnings"):
        gc.collect()  # what such a test leaves behind is reported in it, not in a later one
