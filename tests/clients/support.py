# SPDX-License-Identifier: Apache-2.0
"""The official SDK over the transport, in three colours behind one synchronous face.

Whichever SDK is installed is used: openai 3 on httpx2, openai 2 and 1 on httpx.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final, Literal, TypeVar

import anyio.lowlevel
import openai
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from openai.types.chat import ChatCompletionUserMessageParam
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cline_transport.simulator import Simulator

MODEL: Final = "anthropic/claude-sonnet-4.6"
PATIENCE: Final = 30.0
"""Seconds; only what is broken takes so long."""

PROMPT: Final = "prompt-marker-5f1c"
Mode = Literal["json", "stream"]
"""What is asked for."""

COLOURS: Final = ("sync", "asyncio", "trio")

FAMILY: Final = next(
    module
    for base in openai.DefaultHttpxClient.__mro__
    if (module := base.__module__.partition(".")[0]) in ("httpx", "httpx2")
)
"""The library that the installed SDK is built on: asked of the SDK, both may be installed."""

LIBRARY: Final[Any] = import_module(FAMILY)
OURS: Final[Any] = import_module(f"cline_transport.{FAMILY}")

sdk_leaves_generators: Final = pytest.mark.filterwarnings(
    # On trio: at `[DONE]` and at an error the SDK leaves its own generators, and with them those of
    # httpx and httpcore beneath, to the garbage collector. It does the same without our transport.
    # A generator of `cline_transport` stays an error.
    r"ignore:Async generator '(openai|httpx2?|httpcore2?)\.:ResourceWarning"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Colour:
    """Sync, or an event loop in a thread that its calls are handed to."""

    name: str
    portal: BlockingPortal | None

    @property
    def is_sync(self) -> bool:
        return self.name == "sync"

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        assert self.portal is not None
        return self.portal.call(function, *args)


@contextmanager
def start_colour(name: str) -> Generator[Colour, None, None]:
    """A colour whose event loop runs meanwhile."""
    with nullcontext() if name == "sync" else start_blocking_portal(name) as portal:
        yield Colour(name, portal)


class Waits(list[float]):
    """The waits that were asked for, in seconds; none of them takes any time."""

    def __init__(self) -> None:
        self.during: Callable[[], object] = lambda: None
        """What happens meanwhile."""
        self._skipped = 0.0

    def monotonic(self) -> float:
        """A clock on which they took as long as they should."""
        return time.monotonic() + self._skipped

    def sync(self, seconds: float) -> None:
        self.append(seconds)
        self._skipped += seconds
        self.during()

    async def asynchronous(self, seconds: float) -> None:
        self.sync(seconds)

    def pause(self, wake: object, seconds: float) -> None:
        """Held back by limits: no wait of the policy's, and no time either."""
        self._skipped += seconds

    async def pause_asynchronous(self, wake: object, seconds: float) -> None:
        self.pause(wake, seconds)
        await anyio.lowlevel.checkpoint()


def assert_waits(waits: Sequence[float], documented: Sequence[float]) -> None:
    """At least the documented ones, and at most a quarter more."""
    assert len(waits) == len(documented), waits
    for waited, least in zip(waits, documented, strict=True):
        assert least <= waited <= least * 1.25


class Ledger(SpanProcessor):
    """Counts what starts and what ends."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        with self._lock:
            self.started += 1

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self.ended += 1


class Traces:
    """A tracer provider, and the spans that have ended."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
        self.provider.add_span_processor(self.ledger)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def calls(self) -> list[ReadableSpan]:
        """The spans of calls."""
        return [span for span in self.spans if _scope(span) == "cline_transport"]

    @property
    def attempts(self) -> list[ReadableSpan]:
        """The HTTP spans."""
        prefix = "opentelemetry.instrumentation.httpx"
        return [span for span in self.spans if _scope(span).startswith(prefix)]


def _scope(span: ReadableSpan) -> str:
    return "" if span.instrumentation_scope is None else span.instrumentation_scope.name


@dataclass
class Answer:
    """What a caller got: chunks of text, and the exception that ended them."""

    parts: list[str] = field(default_factory=list[str])
    chunks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    error: Exception | None = None

    @property
    def text(self) -> str:
        assert self.error is None, repr(self.error)
        return self.text_so_far

    @property
    def text_so_far(self) -> str:
        return "".join(self.parts)

    @property
    def raised(self) -> Exception:
        assert self.error is not None, self.parts
        return self.error

    @property
    def api_error(self) -> openai.APIError:
        assert isinstance(self.error, openai.APIError), repr(self.error)
        return self.error

    @property
    def status_error(self) -> openai.APIStatusError:
        assert isinstance(self.error, openai.APIStatusError), repr(self.error)
        return self.error

    def add(self, chunk: Any) -> None:
        # `created` is the time of day; everything else is the same in two equal answers.
        self.chunks.append(chunk.model_dump(exclude={"created"}))
        for choice in chunk.choices:
            said = getattr(choice, "message", None) or getattr(choice, "delta", None)
            if said is not None and said.content:
                self.parts.append(said.content)


def messages(prompt: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": prompt}]


def read_on() -> bool:
    return True


def ask(
    client: openai.OpenAI,
    mode: Mode,
    *,
    model: str = MODEL,
    prompt: str = PROMPT,
    on_chunk: Callable[[], bool] = read_on,
    **options: Any,
) -> Answer:
    """Ask for a completion; `on_chunk` says whether to read on."""
    answer = Answer()
    create: Any = client.chat.completions.create
    try:
        result = create(model=model, messages=messages(prompt), stream=mode == "stream", **options)
        if mode == "json":
            answer.add(result)
            return answer
        with result as chunks:
            for chunk in chunks:
                answer.add(chunk)
                if not on_chunk():
                    break
    except Exception as exc:  # noqa: BLE001 - what it is, the test says
        answer.error = exc
    return answer


async def ask_async(
    client: openai.AsyncOpenAI,
    mode: Mode,
    *,
    model: str = MODEL,
    prompt: str = PROMPT,
    on_chunk: Callable[[], bool] = read_on,
    **options: Any,
) -> Answer:
    """The same."""
    answer = Answer()
    create: Any = client.chat.completions.create
    try:
        result = await create(
            model=model, messages=messages(prompt), stream=mode == "stream", **options
        )
        if mode == "json":
            answer.add(result)
            return answer
        async with result as chunks:
            async for chunk in chunks:
                answer.add(chunk)
                if not on_chunk():
                    break
    except Exception as exc:  # noqa: BLE001 - what it is, the test says
        answer.error = exc
    return answer


def our_transports(http: Any) -> list[Any]:
    """The transports of ours under an HTTP client, its mounts included."""
    every = [http._transport, *http._mounts.values()]
    return [
        one for one in every if isinstance(one, (OURS.ClineTransport, OURS.AsyncClineTransport))
    ]


def pools(http: Any) -> list[Any]:
    """The connection pools beneath them."""
    return [one._transport._pool for one in our_transports(http)]


class Sdk:
    """One client of the SDK on our transport, and what it did."""

    def __init__(
        self, colour: Colour, client: openai.OpenAI | openai.AsyncOpenAI, traces: Traces
    ) -> None:
        self.colour = colour
        self.client = client
        self.traces = traces
        self.waits = Waits()
        self.sdk_waits: list[float] = []
        """The waits of the SDK's own retries; none of them takes any time."""
        self._hurry(client)
        for transport in our_transports(self.http):
            loop = transport._loop
            waits = self.waits
            loop.sleep = waits.sync if colour.is_sync else waits.asynchronous
            loop.pause = waits.pause if colour.is_sync else waits.pause_asynchronous
            loop.clock = replace(loop.clock, monotonic=waits.monotonic)

    @property
    def http(self) -> Any:
        """The HTTP client under the SDK's."""
        return self.client._client

    def at(self, epoch: float) -> None:
        """Set the clock to a time of day."""
        for transport in our_transports(self.http):
            transport._loop.clock = replace(transport._loop.clock, time=lambda: epoch)

    def copy(self, **options: Any) -> Sdk:
        """`with_options()`."""
        return Sdk(self.colour, self.client.with_options(**options), self.traces)

    def ask(self, mode: Mode, **options: Any) -> Answer:
        """Ask for a completion; it raises nothing."""
        if isinstance(self.client, openai.OpenAI):
            return ask(self.client, mode, **options)
        client = self.client
        return self.colour.run(lambda: ask_async(client, mode, **options))

    def close(self) -> None:
        if isinstance(self.client, openai.OpenAI):
            self.client.close()
        else:
            self.colour.run(self.client.close)

    def _hurry(self, client: Any) -> None:
        calculate = client._calculate_retry_timeout

        def at_once(*args: Any, **kwargs: Any) -> float:
            self.sdk_waits.append(calculate(*args, **kwargs))
            return 0.0

        client._calculate_retry_timeout = at_once


Connect = Callable[..., Sdk]
"""Makes clients, and after the test looks for what they left behind."""


def make_client(
    colour: Colour, api: Simulator, http: Any = None, **options: Any
) -> openai.OpenAI | openai.AsyncOpenAI:
    """The SDK's client as its documentation says, its `max_retries` left as they are."""
    kind: Any = openai.OpenAI if colour.is_sync else openai.AsyncOpenAI
    given = {"base_url": api.base_url, "api_key": api.api_key, "timeout": PATIENCE, **options}
    client: openai.OpenAI | openai.AsyncOpenAI = kind(http_client=http, **given)
    return client


@contextmanager
def leaving_nothing_behind(
    traces: Traces, caplog: pytest.LogCaptureFixture
) -> Generator[list[Sdk], None, None]:
    """The clients that are put into the list meanwhile are looked at, and closed.

    No connection is checked out, each span has ended, and telemetry swallowed no failure.
    """
    caplog.set_level(logging.DEBUG, logger="cline_transport")
    made: list[Sdk] = []
    yield made
    for sdk in made:
        assert_nothing_is_checked_out(sdk.http)
        sdk.close()
    assert traces.ledger.started == traces.ledger.ended
    # `caplog.records` are those of the phase that runs, which is the teardown by now.
    records = [one for phase in ("call", "teardown") for one in caplog.get_records(phase)]
    swallowed = [text for one in records if "telemetry failed" in (text := one.getMessage())]
    assert swallowed == [], "telemetry failed, and the call went on"


def assert_nothing_is_checked_out(http: Any) -> None:
    """No connection in use, and no request waiting for one."""
    for pool in pools(http):
        assert in_use(pool) == []


def in_use(pool: Any) -> list[Any]:
    """The connections that are checked out, and the requests that have or want one."""
    busy = [one for one in pool.connections if not (one.is_idle() or one.is_closed())]
    return [*pool._requests, *busy]
