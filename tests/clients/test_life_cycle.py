# SPDX-License-Identifier: Apache-2.0
"""A thousand mixed calls of one client, many at a time: afterwards nothing is left over."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anyio
import openai
import pytest
from anyio.lowlevel import checkpoint

from cline_transport import RetryPolicy, Settings
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import ReceivedRequest, Reply, Simulator

from .support import (
    LIBRARY,
    PATIENCE,
    Answer,
    Colour,
    Mode,
    Sdk,
    Traces,
    ask,
    ask_async,
    assert_nothing_is_checked_out,
    make_client,
    sdk_leaves_generators,
)

pytestmark = sdk_leaves_generators

CALLS = 1000
THREADS = 16
TASKS = 100
TEXT = "one two three"

Stop = Literal["early", "in the wait", "at the headers", "in the stream"]

# Connections are scarcer than tasks: one that leaks is missed.
LIMITS = LIBRARY.Limits(max_connections=24, max_keepalive_connections=12)

PATIENT = LIBRARY.Timeout(PATIENCE, pool=10.0)
IMPATIENT = LIBRARY.Timeout(PATIENCE, pool=10.0, read=0.05)

# The bucket would close in such an outage; what is counted here is the table.
SETTINGS = Settings(retry=RetryPolicy(throttle=False))

waiting: ContextVar[Callable[[], None] | None] = ContextVar("waiting", default=None)
"""What happens in the wait of a call; a call is in a context of its own."""


@dataclass(frozen=True)
class Kind:
    """A way for a call to go: what the server does with each attempt, and what comes of it."""

    first: Reply
    then: Reply
    outcome: str
    attempts: int
    stop: Stop | None = None
    mode: Mode = "stream"
    timeout: Any = field(default_factory=lambda: PATIENT)

    def reply(self, attempt: int) -> Reply:
        return self.first if attempt == 1 else self.then


def always(reply: Reply, outcome: str, attempts: int = 1, **options: Any) -> Kind:
    return Kind(reply, reply, outcome, attempts, **options)


def once(reply: Reply) -> Kind:
    return Kind(reply, GOOD, TEXT, 2)


GOOD = Reply.ok(TEXT)
ENDLESS = Reply.stream(TEXT, cut_after=1, then="stall")
BROKEN = "the wire's"

EVERYWHERE = {
    "good": always(GOOD, TEXT),
    "429 once": once(Reply.error(429)),
    "500 once": once(Reply.error(500)),
    "502 once": once(Reply.html(502)),
    "closed once": once(Reply.close()),
    "reset once": once(Reply.reset()),
    "400": always(Reply.error(400), "BadRequestError"),
    "402": always(Reply.error(402), "APIStatusError"),
    "500": always(Reply.error(500), "InternalServerError", 2),
    "503": always(Reply.error(503), "InternalServerError", 4),
    "closed": always(Reply.close(), "APIConnectionError", 6),
    "error after text": always(Reply.ok(TEXT, error="server_error", error_after=2), "APIError"),
    "cut after text": always(Reply.stream(TEXT, cut_after=2, then="close"), BROKEN),
    "no answer": always(Reply.stall(), "APITimeoutError", 3, timeout=IMPATIENT),
    "closed early": always(Reply.stream(TEXT), "", stop="early"),
    "closed early while it stalls": always(ENDLESS, "", stop="early"),
}
# Those that have an answer that is no stream.
JSON = {
    f"{name}, JSON": replace(kind, mode="json")
    for name, kind in EVERYWHERE.items()
    if kind.stop is None and "text" not in name
}
SYNC = {
    "interrupted in the wait": always(Reply.error(429), "KeyboardInterrupt", stop="in the wait"),
}
ASYNC = {
    "cancelled in the wait": always(Reply.error(429), "cancelled", stop="in the wait"),
    "cancelled at the headers": always(Reply.stall(), "cancelled", 0, stop="at the headers"),
    "cancelled in the stream": always(ENDLESS, "cancelled", stop="in the stream"),
}


class Server:
    """Answers each attempt of a call as its kind says; the call's number is in a header."""

    def __init__(self, api: Simulator, kinds: dict[str, Kind]) -> None:
        self.api = api
        self.kinds = kinds
        self.attempts = Counter[str]()
        self.broken = False
        api._gateway.answer = self.answer  # type: ignore[method-assign]  # the queue knows no calls

    def answer(self, request: ReceivedRequest) -> Reply:
        call = request.headers["x-call"]
        self.attempts[call] += 1
        return self.kinds[call.partition("/")[0]].reply(self.attempts[call])

    def ended(self, call: str, outcome: str) -> str:
        """Note how a call ended; after the first wrong end the other calls are not made."""
        self.broken = self.broken or outcome != self.kinds[call.partition("/")[0]].outcome
        return outcome

    def miscounted(self, outcomes: Iterable[str]) -> dict[str, int]:
        """Calls with another number of attempts than the table's, where it is known (not 0)."""
        wanted = {call: self.kinds[call.partition("/")[0]].attempts for call in outcomes}
        return {
            call: self.attempts[call]
            for call, attempts in wanted.items()
            if attempts and self.attempts[call] != attempts
        }


def calls(kinds: dict[str, Kind]) -> list[str]:
    names = list(kinds) * (CALLS // len(kinds) + 1)
    every = [f"{name}/{number}" for number, name in enumerate(names[:CALLS])]
    random.Random(20260714).shuffle(every)  # noqa: S311 - the same order each time
    return every


def outcome(answer: Answer) -> str:
    error = answer.error
    if error is None:
        return answer.text if answer.text == TEXT else ""
    if answer.parts and not isinstance(error, openai.APIStatusError):
        # What the SDK makes of a body that breaks depends on its version.
        return type(error).__name__ if type(error) is openai.APIError else BROKEN
    return type(error).__name__


def interrupt() -> None:
    raise KeyboardInterrupt


def call_sync(sdk: Sdk, kinds: dict[str, Kind], call: str) -> str:
    kind = kinds[call.partition("/")[0]]
    assert isinstance(sdk.client, openai.OpenAI)
    token = waiting.set(interrupt if kind.stop == "in the wait" else None)
    try:
        return outcome(
            ask(
                sdk.client,
                kind.mode,
                on_chunk=lambda: kind.stop != "early",
                extra_headers={"x-call": call},
                timeout=kind.timeout,
            )
        )
    except KeyboardInterrupt:
        return "KeyboardInterrupt"
    finally:
        waiting.reset(token)


async def call_async(sdk: Sdk, kinds: dict[str, Kind], call: str) -> str:
    kind = kinds[call.partition("/")[0]]
    assert isinstance(sdk.client, openai.AsyncOpenAI)

    def go_on() -> bool:
        if kind.stop == "in the stream":
            scope.cancel()
        return kind.stop != "early"

    # The server never answers: the deadline meets some point before the headers, whatever the time.
    late = random.Random(call).random() / 100 if kind.stop == "at the headers" else PATIENCE  # noqa: S311
    with anyio.move_on_after(late) as scope:
        token = waiting.set(scope.cancel if kind.stop == "in the wait" else None)
        try:
            return outcome(
                await ask_async(
                    sdk.client,
                    kind.mode,
                    on_chunk=go_on,
                    extra_headers={"x-call": call},
                    timeout=kind.timeout,
                )
            )
        finally:
            waiting.reset(token)
    return "cancelled"


def in_the_wait() -> None:
    what = waiting.get()
    if what is not None:
        what()


def threads() -> set[threading.Thread]:
    # Trio keeps idle workers for ten seconds (the SDK asks for the platform in one).
    return {one for one in threading.enumerate() if not one.name.startswith("Trio thread")}


def assert_everything_went_as_it_should(
    server: Server, outcomes: dict[str, str], traces: Traces
) -> None:
    wrong = {
        call: found
        for call, found in outcomes.items()
        if found != server.kinds[call.partition("/")[0]].outcome
    }
    assert wrong == {}
    assert len(outcomes) == CALLS
    # The server may not have read yet what a client has given up.
    with suppress(TimeoutError):
        server.api.wait_for(lambda: server.miscounted(outcomes) == {})
    assert server.miscounted(outcomes) == {}
    assert traces.ledger.started == traces.ledger.ended == len(traces.spans)
    assert len(traces.spans) == len(traces.calls) + len(traces.attempts)
    assert len({span.context.span_id for span in traces.spans if span.context}) == len(traces.spans)


@pytest.fixture
def before(cline_api: Simulator) -> set[threading.Thread]:
    """The threads that there are, the server's among them."""
    return threads()


@pytest.fixture
def nothing_collected() -> Iterator[None]:
    """What the test leaves to the garbage collector is collected before it ends."""
    yield
    gc.collect()


def make_sdk(name: str, api: Simulator) -> Sdk:
    traces = Traces()
    colour = Colour(name, None)
    make = http_client if colour.is_sync else async_http_client
    http = make(settings=SETTINGS, tracer_provider=traces.provider, limits=LIMITS)
    return Sdk(colour, make_client(colour, api, http), traces)


@pytest.mark.usefixtures("nothing_collected")
def test_after_a_thousand_calls_from_threads_nothing_is_left(
    cline_api: Simulator, before: set[threading.Thread]
) -> None:
    server = Server(cline_api, EVERYWHERE | JSON | SYNC)
    sdk = make_sdk("sync", cline_api)
    sdk.waits.during = in_the_wait
    every = calls(server.kinds)

    def call(one: str) -> str:
        if server.broken:
            return "not made"
        return server.ended(one, call_sync(sdk, server.kinds, one))

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(call, every))

    assert_everything_went_as_it_should(server, dict(zip(every, found, strict=True)), sdk.traces)
    assert_nothing_is_checked_out(sdk.http)
    sdk.close()
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert threads() == before


@pytest.mark.usefixtures("nothing_collected")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_after_a_thousand_calls_from_tasks_nothing_is_left(
    backend: str, cline_api: Simulator, before: set[threading.Thread]
) -> None:
    server = Server(cline_api, EVERYWHERE | JSON | ASYNC)
    sdk = make_sdk(backend, cline_api)
    for_each = iter(calls(server.kinds))
    outcomes: dict[str, str] = {}

    async def sleep(_: float) -> None:
        in_the_wait()
        await checkpoint()

    sdk.http._transport._loop.sleep = sleep

    async def work() -> None:
        for call in for_each:
            if server.broken:
                return
            outcomes[call] = server.ended(call, await call_async(sdk, server.kinds, call))

    async def main() -> None:
        tasks = len(anyio.get_running_tasks())
        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(work)
        assert_everything_went_as_it_should(server, outcomes, sdk.traces)
        assert_nothing_is_checked_out(sdk.http)
        await sdk.client.close()  # type: ignore[misc]  # an async client
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) == tasks

    anyio.run(main, backend=backend)
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert threads() == before
