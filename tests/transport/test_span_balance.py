# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of calls, in any order: each span ends once, and retries add up.

Random paths through the life cycle of calls, several of them open at a time. `HYPOTHESIS_EXAMPLES`
sets how many for each family and colour.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from cline_transport._dropped import settle
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, is_ours, unread
from .telling import told_metrics

TEXT: Final = "one two three four"
REPLIES: Final[dict[str, Callable[[Gate], tuple[Reply, ...]]]] = {
    "stream": lambda gate: (Reply.stream(TEXT, gate=gate),),
    "gzip": lambda gate: (Reply.stream(TEXT, encoding="gzip", gate=gate),),
    "completion": lambda _: (Reply.completion(TEXT),),
    "400": lambda _: (Reply.error(400),),
    "402": lambda _: (Reply.error(402),),
    "429, good": lambda gate: (Reply.error(429, retry_after=2), Reply.stream(TEXT, gate=gate)),
    "429, too long": lambda _: (Reply.error(429, retry_after=9999),),
    "500, good": lambda _: (Reply.error(500), Reply.completion(TEXT)),
    "502, 503, good": lambda gate: (
        Reply.error(502),
        Reply.error(503),
        Reply.stream(TEXT, gate=gate),
    ),
    "503 to the end": lambda _: (Reply.error(503),) * 4,
    "a page": lambda _: (Reply.html(403),),
    "an error in a 200": lambda _: (Reply.json_error_in_200("server_error"),) * 4,
    "early, good": lambda gate: (
        Reply.stream(TEXT, error="rate_limit", error_after=0),
        Reply.stream(TEXT, gate=gate),
    ),
    "early to the end": lambda _: (Reply.stream(TEXT, error="server_error", error_after=0),) * 4,
    "mid-stream": lambda gate: (
        (Reply.stream(TEXT, error="server_error", error_after=3, gate=gate),) * 4
    ),
    "truncated": lambda gate: (Reply.stream(TEXT, cut_after=3, gate=gate),) * 4,
    "cut": lambda gate: (Reply.stream(TEXT, cut_after=3, then="close", gate=gate),) * 4,
    "closed": lambda _: (Reply.close(),) * 4,
    "reset, good": lambda _: (Reply.reset(), Reply.completion(TEXT)),
}


class Balance(SpanProcessor):
    """Counts each span's starts and ends."""

    def __init__(self) -> None:
        self.all_calls = 0
        self.begin()

    def begin(self) -> None:
        """A new path."""
        self.started: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.calls = self.attempts = 0

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        assert span.context is not None
        self.started[span.context.span_id] += 1
        if is_ours(span):
            self.calls += 1
            self.all_calls += 1
        else:
            self.attempts += 1

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        self.ended[span.context.span_id] += 1


class Complaints(logging.Handler):
    """What the SDK says of a span that is ended or changed again."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Open:
    """A response whose body is not at its end."""

    response: Any
    chunks: Iterator[bytes]
    gate: Gate


class LifeCycle(RuleBasedStateMachine):
    """Calls that are started, read, closed, dropped and cancelled."""

    rig: Rig
    api: Simulator
    url: str
    client: Any
    balance: Balance

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Open] = []
        self.balance.begin()
        self.retried = self.retries()
        self.rig.time.on_wait = lambda: None
        self.client.raw._transport._loop._throttle.tokens = 100.0

    @rule(
        reply=st.sampled_from(sorted(REPLIES)),
        on_error=st.sampled_from(["normalize", "raise", "observe"]),
        retry=st.sampled_from(["before_content", "never", "buffered"]),
        events=st.integers(2, 9),
    )
    def start(self, reply: str, on_error: str, retry: str, events: int) -> None:
        gate = Gate()
        gate.release(200 if retry == "buffered" else events)
        self.enqueue(REPLIES[reply](gate))
        if on_error == "observe" and retry == "buffered":
            retry = "never"  # the two contradict each other
        stream = {"on_error": on_error, "retry": retry}
        try:
            response = self.client.open(
                "POST", self.url, json=CHAT, extensions={"cline_transport": {"stream": stream}}
            )
        except self.rig.library.HTTPError:
            return
        self.open.append(Open(response, self.client.chunks(response), gate))

    def enqueue(self, replies: tuple[Reply, ...]) -> None:
        self.api.reset()
        self.api.enqueue(*replies)

    @rule()
    def another_endpoint(self) -> None:
        self.enqueue((Reply.error(503), Reply.completion("x")))
        self.client.request("GET", f"{self.api.base_url}/models")

    @precondition(lambda self: self.rig.is_sync)
    @rule()
    def interrupt_a_wait(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        self.enqueue((Reply.error(503), Reply.completion("x")))
        self.rig.time.on_wait = interrupt
        with suppress(KeyboardInterrupt):
            self.client.post(self.url, json=CHAT)
        self.rig.time.on_wait = lambda: None

    @precondition(lambda self: not self.rig.is_sync)
    @rule()
    def cancel_a_retry(self) -> None:
        self.enqueue((Reply.error(503), Reply.completion("x")))

        async def go() -> None:
            with anyio.CancelScope() as scope:
                self.rig.time.on_wait = scope.cancel
                await self.client.raw.post(self.url, json=CHAT)

        self.client.run(go)
        self.rig.time.on_wait = lambda: None

    def pick(self, data: st.DataObject) -> Open:
        return self.open[data.draw(st.integers(0, len(self.open) - 1))]

    @precondition(lambda self: self.open)
    @rule(data=st.data(), events=st.integers(1, 3))
    def read_a_little(self, data: st.DataObject, events: int) -> None:
        one = self.pick(data)
        one.gate.release(events)
        with suppress(self.rig.library.HTTPError, self.rig.library.StreamError, StopIteration):
            next(one.chunks)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def read_to_the_end(self, data: st.DataObject) -> None:
        one = self.pick(data)
        one.gate.release(200)
        with suppress(self.rig.library.HTTPError, self.rig.library.StreamError):
            for _ in one.chunks:
                pass

    @precondition(lambda self: self.open)
    @rule(data=st.data(), times=st.integers(1, 2))
    def close(self, data: st.DataObject, times: int) -> None:
        one = self.pick(data)
        for _ in range(times):
            self.client.close(one.response)
        self.open.remove(one)
        self.end(one)

    @precondition(lambda self: self.open and self.rig.is_sync)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.open.remove(self.pick(data))
        gc.collect()

    @precondition(lambda self: self.open and not self.rig.is_sync)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = self.pick(data)

        async def go() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                with suppress(self.rig.library.HTTPError, self.rig.library.StreamError):
                    await one.response.aread()

        self.client.run(go)

    def end(self, one: Open) -> None:
        with suppress(self.rig.library.HTTPError, self.rig.library.StreamError):
            one.chunks.close()  # type: ignore[attr-defined]

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert max(self.balance.ended.values(), default=1) == 1

    def teardown(self) -> None:
        for one in self.open:
            self.client.close(one.response)
            self.end(one)
        self.open.clear()
        settle()
        assert self.balance.started == self.balance.ended
        retried = self.retries() - self.retried
        assert retried == self.balance.attempts - self.balance.calls

    def retries(self) -> int:
        """What the counter stands at."""
        return sum(p[-1] for p in told_metrics(self.rig) if p[1] == "cline.client.retries")


@unread
def test_spans_and_retries_balance_on_every_path(rig: Rig, api: Simulator, url: str) -> None:
    balance, complaints = Balance(), Complaints()
    rig.provider.add_span_processor(balance)
    logger = logging.getLogger("opentelemetry.sdk.trace")
    logger.addHandler(complaints)
    inner = rig.inner()
    machine = type(
        "Machine",
        (LifeCycle,),
        {
            "rig": rig,
            "api": api,
            "url": url,
            "client": rig.client(rig.transport(inner, traced=True)),
            "balance": balance,
        },
    )
    try:
        # An example is a dozen calls over sockets: a quarter as many as of what is pure.
        few = settings(stateful_step_count=12, max_examples=settings().max_examples // 4)
        run_state_machine_as_test(machine, settings=few)
    finally:
        logger.removeHandler(complaints)
    assert balance.all_calls > 100
    assert complaints.lines == []
    assert [c for c in inner._pool.connections if not (c.is_idle() or c.is_closed())] == []
