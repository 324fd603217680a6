"""A run: calls of all kinds at once, and what must hold at its end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import logging
import math
import os
import statistics
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import trio
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from cline_transport._dropped import settle
from cline_transport._limiter import LINES
from cline_transport.simulator import ApiLimits, ReceivedRequest, Reply, Simulator

from .clients import WIRES, Clients, Colour, End, Waits, call_async, call_sync
from .faults import Call, plan

__all__ = ["Figures", "run"]

THREADS: Final = 12
TASKS: Final = 16
"""In each of the two event loops."""
CONCURRENT: Final = 10
"""What the API allows each key."""

FEW, MANY = 10, 200
"""Samples of the memory."""
ENOUGH: Final = 5000
"""Calls below which memory says nothing: most of them are its warming up."""
GROWTH: Final = 0.02
LONGEST: Final = 20.0
"""Seconds; nothing that the server does takes so long, and waits take no time."""


class Ledger(SpanProcessor):
    """Counts what starts and what ends."""

    def __init__(self) -> None:
        self.started = self.ended = self.calls = 0
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        with self._lock:
            self.started += 1

    def on_end(self, span: ReadableSpan) -> None:
        scope = span.instrumentation_scope
        with self._lock:
            self.ended += 1
            self.calls += scope is not None and scope.name == "cline_transport"


class Debug(logging.Handler):
    """Counts what telemetry swallowed: such a call goes on, and its line is at DEBUG."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # An HTTP span sees each failure on the wire; those are no news.
        failure = record.exc_info[1] if record.exc_info else None
        if record.levelno == logging.DEBUG and not isinstance(failure, WIRES):
            said = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self.lines.append(f"{record.getMessage()}\n{said}")


@dataclass
class Figures:
    """What a run found."""

    calls: int
    seed: int
    seconds: float = 0.0
    ends: Counter[tuple[Colour, str]] = field(default_factory=Counter[tuple[Colour, str]])
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    wrong: list[str] = field(default_factory=list[str])
    requests: int = 0
    spans: tuple[int, int] = (0, 0)
    memory: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Calls done, and bytes resident then."""
    failed: list[str] = field(default_factory=list[str])
    """The invariants that do not hold."""

    def check(self, holds: bool, message: str) -> None:  # noqa: FBT001 -- as `assert` has it
        if not holds:
            self.failed.append(message)

    @property
    def growth(self) -> float | None:
        """Of the memory, from the second tenth of the calls to the last; `None`: too few."""
        second, last = (
            [size for done, size in self.memory if low < done / self.calls <= high]
            for low, high in ((0.1, 0.2), (0.9, 1.0))
        )
        if self.calls < ENOUGH or not second or not last:
            return None
        return statistics.median(last) / statistics.median(second) - 1

    def table(self) -> str:
        """The closing summary."""
        colours: tuple[Colour, ...] = ("sync", "asyncio", "trio")
        outcomes = ("delivered", "failed", "cancelled")
        lines = [f"{'':22}" + "".join(f"{name:>11}" for name in (*outcomes, "all"))]
        rows: list[tuple[str, list[int]]] = [
            (colour, [self.ends[colour, outcome] for outcome in outcomes]) for colour in colours
        ]
        rows += [
            (kind, [self.kinds[kind, outcome] for outcome in outcomes])
            for kind in sorted({kind for kind, _ in self.kinds})
        ]
        for name, counts in rows:
            numbers = "".join(f"{count:>11,}" for count in (*counts, sum(counts)))
            lines.append(f"{name:22}{numbers}")
        growth = self.growth
        told = "not judged: too few calls" if growth is None else f"{growth:+.2%}"
        lines += [
            "",
            f"{self.calls:,} calls (seed {self.seed}), {self.requests:,} requests in "
            f"{self.seconds:.0f} s: {self.calls / self.seconds:.0f} calls a second",
            f"spans started {self.spans[0]:,}, ended {self.spans[1]:,}",
            f"memory, last tenth against second: {told}"
            + (f" ({self.memory[-1][1] / 2**20:.1f} MiB)" if self.memory else ""),
            *(f"FAILED: {message}" for message in self.failed),
        ]
        if not self.failed:
            lines.append("every invariant holds")
        return "\n".join(lines)


class _State(dict[str, Counter[str]]):
    """The threads and file descriptors of this process, by kind."""

    @classmethod
    def now(cls) -> _State:
        # Trio keeps idle workers for ten seconds.
        names = (one.name for one in threading.enumerate() if not one.name.startswith("Trio"))
        files = Counter[str]()
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the directory's own is gone
                files[str(link.readlink()).partition("[")[0]] += 1
        return cls(threads=Counter(names), files=files)


class _Run:
    def __init__(self, calls: int, seed: int, seconds: float, say: Callable[[str], object]) -> None:
        self.until = time.monotonic() + seconds
        self.begun = 0
        self.figures = Figures(calls, seed)
        self.say = say
        self.open: dict[str, Call] = {}
        self.waits = Waits()
        self.ledger = Ledger()
        self.done = 0
        self.changed = threading.Condition()
        self.clients: list[Clients] = []

    def take(self) -> Call | None:
        with self.changed:
            if self.begun >= self.figures.calls or time.monotonic() > self.until:
                return None
            number, self.begun = self.begun, self.begun + 1
        call = self.open[str(number)] = plan(self.figures.seed, number)
        return call

    def ended(self, colour: Colour, call: Call, end: End) -> None:
        del self.open[str(call.number)]
        with self.changed:
            self.figures.ends[colour, end.outcome] += 1
            self.figures.kinds[call.kinds[0], end.outcome] += 1
            self.figures.requests += call.attempts
            if end.wrong:
                self.wrong(colour, call, end.wrong)
            if (took := time.monotonic() - call.began) > LONGEST:
                self.wrong(
                    colour, call, f"it took {took:.1f} s, and ended {end.outcome}: {end.how}"
                )
            self.done += 1
            self.changed.notify_all()

    def wrong(self, colour: Colour, call: Call, what: str) -> None:
        clients = f"client {call.client}"
        self.figures.wrong.append(
            f"call {call.number} ({colour}, {clients}, {call.mode}, {call.behaviour}, "
            f"{' → '.join(call.kinds)}): {what}"
        )

    def respond(self, request: ReceivedRequest) -> Reply:
        call = self.open.get(request.headers["x-call"])
        # One that was given up may still arrive.
        return Reply.close() if call is None else call.answer(request)

    # --- the colours ---

    def sync(self, clients: Clients) -> None:
        while (call := self.take()) is not None:
            self.ended("sync", call, call_sync(clients, call))

    async def tasks(self, colour: Colour, clients: Clients) -> None:
        before = len(anyio.get_running_tasks())
        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(self._task, colour, clients)
        gc.collect()
        settle()
        self._nothing_checked_out(clients)
        for client in clients.made:
            await client.aclose()
        await anyio.wait_all_tasks_blocked()
        left = len(anyio.get_running_tasks()) - before
        self.figures.check(left == 0, f"{left} tasks are left in {colour}")

    async def _task(self, colour: Colour, clients: Clients) -> None:
        while (call := self.take()) is not None:
            self.ended(colour, call, await call_async(clients, call))

    def _nothing_checked_out(self, clients: Clients) -> None:
        found = clients.checked_out()
        message = f"{len(found)} connections are checked out ({clients.colour}): {found[:5]}"
        self.figures.check(not found, message)

    # --- the run ---

    def go(self) -> Figures:
        figures = self.figures
        LINES.reset()
        provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
        provider.add_span_processor(self.ledger)
        meters = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
        debug, logger = Debug(), logging.getLogger("cline_transport")
        level = logger.level
        logger.addHandler(debug)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        # It tells of each write of the simulator's to a client that has gone.
        logging.getLogger("asyncio").addFilter(_silent)
        limits = ApiLimits(concurrent=CONCURRENT)
        began = time.monotonic()
        try:
            with Simulator(respond=self.respond, limits=limits) as api:
                gc.collect()
                before = _State.now()
                telling = {"tracer_provider": provider, "meter_provider": meters}
                self._work(api, telling)
                figures.seconds = time.monotonic() - began
                self._judge(api, before, debug)
        finally:
            logging.getLogger("asyncio").removeFilter(_silent)
            logger.removeHandler(debug)
            logger.setLevel(level)
            logger.propagate = True
            meters.shutdown()
            provider.shutdown()
            LINES.reset()
        return figures

    def _work(self, api: Simulator, telling: Mapping[str, object]) -> None:
        def make(colour: Colour) -> Clients:
            return Clients(colour, self.waits, api.base_url, **telling)

        async def loop(colour: Colour) -> None:
            await self.tasks(colour, make(colour))

        # Not `anyio.run`: it leaves its backend's name in the context, where the collector, run in
        # trio's thread, would take it into a task of asyncio's.
        def run_asyncio() -> None:
            asyncio.run(loop("asyncio"))

        def run_trio() -> None:
            trio.run(loop, "trio")

        sync = make("sync")
        works = [*[partial(self.sync, sync)] * THREADS, run_asyncio, run_trio]
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        self._watch(api, threads)
        for thread in threads:
            thread.join()
        gc.collect()
        settle()
        self._nothing_checked_out(sync)
        for client in sync.made:
            client.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 -- it must not pass unseen
            said = "".join(traceback.format_exception(exc))
            self.figures.check(False, f"a worker ended in {exc!r}\n{said}")

    def _watch(self, api: Simulator, threads: list[threading.Thread]) -> None:
        """Take samples of the memory, and drop all connections now and then."""
        figures = self.figures
        samples = min(max(FEW, figures.calls // 50), MANY)
        for number in itertools.count(1):
            mark = figures.calls * number / samples
            while self.done < mark and any(thread.is_alive() for thread in threads):
                with self.changed:
                    self.changed.wait_for(lambda: self.done >= mark, 0.5)  # noqa: B023
            api.reset()  # it remembers requests
            gc.collect()
            figures.memory.append((self.done, _resident()))
            if number % (samples // 10) == 0:
                with api.refusing():
                    time.sleep(0.01)
            if number % (samples // 10) == 0:
                size = figures.memory[-1][1] / 2**20
                self.say(f"{self.done:>9,} of {figures.calls:,} calls, {size:.1f} MiB")
            if number >= samples or not any(thread.is_alive() for thread in threads):
                return

    def _judge(self, api: Simulator, before: _State, debug: Debug) -> None:
        figures, ledger = self.figures, self.ledger
        figures.spans = ledger.started, ledger.ended
        figures.calls = self.begun
        with suppress(TimeoutError):
            api.wait_for(lambda: api.connections_open == 0 and api.counts.concurrent == 0)
        gc.collect()
        settle()
        ended = sum(figures.ends.values())
        check = figures.check
        check(
            ended == figures.calls and not self.open,
            f"{figures.calls} calls started, {ended} are delivered, failed or cancelled; "
            f"open: {list(self.open)[:5]}",
        )
        check(
            not figures.wrong, f"{len(figures.wrong)} calls ended wrong: " + _first(figures.wrong)
        )
        check(
            ledger.started == ledger.ended,
            f"{ledger.started} spans started, {ledger.ended} ended",
        )
        check(
            ledger.calls == figures.calls, f"{figures.calls} calls, {ledger.calls} spans of calls"
        )
        lines = LINES._lines.values()
        held, waiting = (sum(len(getattr(one, name)) for one in lines) for name in
                         ("_holders", "_waiting"))  # fmt: skip
        check(held == 0, f"{held} permits of limits are held")
        check(waiting == 0, f"{waiting} calls wait in a line")
        check(api.connections_open == 0, f"{api.connections_open} connections are open")
        check(not debug.lines, f"telemetry swallowed {len(debug.lines)}: " + _first(debug.lines))
        after = _State.now()
        for what, names in after.items():
            left = names - before[what]
            check(not left, f"{left.total()} {what} are left: {dict(left)}")
        growth = figures.growth
        check(
            growth is None or growth <= GROWTH,
            f"memory grew by {growth or 0:.2%} from the second tenth to the last, "
            f"more than {GROWTH:.0%}",
        )


def _silent(record: logging.LogRecord) -> bool:
    return record.getMessage() != "socket.send() raised exception."


def _first(lines: list[str]) -> str:
    return "\n  ".join(["", *lines[:5]])


def _resident() -> int:
    """Bytes; what the allocator keeps of what was freed is given back first."""
    with suppress(AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(
    calls: int,
    seed: int,
    *,
    seconds: float = math.inf,
    say: Callable[[str], object] = lambda _: None,
) -> Figures:
    """Make calls, chosen by the seed, and check what must hold then.

    Args:
        calls: How many.
        seed: Of what goes wrong.
        seconds: After this no call begins, however many there were.
        say: Told how far it is.
    """
    return _Run(calls, seed, seconds, say).go()
