# SPDX-License-Identifier: Apache-2.0
"""A run: calls of all kinds at once, and what must hold at its end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import math
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import anyio
import trio
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from cline_transport._dropped import settle
from cline_transport._limiter import LINES

from .api import Api
from .clients import WIRES, Clients, Colour, End, Waits, call_async, call_sync
from .faults import Call, plan
from .figures import GROWTH, Figures

__all__ = ["Figures", "run"]

THREADS: Final = 12
TASKS: Final = 16
"""In each of the two event loops."""
SAMPLES: Final = 100
OFTEN: Final = 10.0
"""Seconds between two samples, at most."""
REST: Final = 0.01
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
        self.open: set[int] = set()
        self.waits = Waits()
        self.ledger = Ledger()
        self.done = 0
        self.resting = False
        self.lock = threading.Lock()
        self.clients: list[Clients] = []

    def take(self) -> Call | Literal["rest", "end"]:
        """What a worker does next."""
        with self.lock:
            if self.begun >= self.figures.calls or time.monotonic() > self.until:
                return "end"
            if self.resting:
                return "rest"
            number, self.begun = self.begun, self.begun + 1
            self.open.add(number)
        return plan(self.figures.seed, number)

    def ended(self, colour: Colour, call: Call, end: End) -> None:
        took = time.monotonic() - call.began
        with self.lock:
            figures = self.figures
            figures.ends[colour, end.outcome] += 1
            figures.kinds[call.kinds[0], end.outcome] += 1
            figures.cut += end.cut
            figures.longest = max(figures.longest, took)
            if end.wrong:
                self.wrong(colour, call, end.wrong)
            if took > LONGEST:
                self.wrong(
                    colour, call, f"it took {took:.1f} s, and ended {end.outcome}: {end.how}"
                )
            self.done += 1
            self.open.remove(call.number)

    def wrong(self, colour: Colour, call: Call, what: str) -> None:
        clients = f"client {call.client}"
        self.figures.wrong.append(
            f"call {call.number} ({colour}, {clients}, {call.mode}, {call.behaviour}, "
            f"{' → '.join(call.kinds)}): {what}"
        )

    # --- the colours ---

    def sync(self, clients: Clients) -> None:
        while (call := self.take()) != "end":
            if call == "rest":
                time.sleep(REST)
            else:
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
        while (call := self.take()) != "end":
            if call == "rest":
                await anyio.sleep(REST)
            else:
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
        try:
            with Api(figures.seed) as api:
                gc.collect()
                before = _State.now()
                began = time.monotonic()
                self._work(api, {"tracer_provider": provider, "meter_provider": meters})
                figures.seconds = time.monotonic() - began
                self._judge(api, before, debug)
        finally:
            logger.removeHandler(debug)
            logger.setLevel(level)
            logger.propagate = True
            meters.shutdown()
            provider.shutdown()
            LINES.reset()
        return figures

    def _work(self, api: Api, telling: Mapping[str, object]) -> None:
        def make(colour: Colour) -> Clients:
            clients = Clients(colour, self.waits, api.base_url, **telling)
            self.clients.append(clients)
            return clients

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

    def _watch(self, api: Api, threads: list[threading.Thread]) -> None:
        """Rest now and then, to see that all is even; and let the API drop all connections."""
        figures = self.figures
        step = max(50, figures.calls // SAMPLES)
        told = 0

        def alive() -> bool:
            return any(thread.is_alive() for thread in threads)

        while alive():
            mark, late = self.done + step, time.monotonic() + OFTEN
            while self.done < mark and time.monotonic() < late and alive():
                time.sleep(REST)
            with self.lock:
                self.resting = True
            self._rest()
            self.resting = False
            api.order("forget")
            if self.done - told >= figures.calls // 10:
                told = self.done
                size = figures.memory[-1][1] / 2**20
                self.say(f"{self.done:>9,} of {figures.calls:,} calls, {size:.1f} MiB")
                api.order("refuse")

    def _rest(self) -> None:
        """No call is under way: what is there now is left over, or belongs to the clients.

        The memory is that which is in use: what the allocator keeps of what was freed depends on
        how the threads' calls met, and is given back first.
        """
        late = time.monotonic() + 2 * LONGEST
        while self.open and time.monotonic() < late:
            time.sleep(REST)
        self.figures.check(not self.open, f"calls do not end: {list(self.open)[:5]}")
        gc.collect()
        settle()
        gc.collect()
        self._even()
        self.figures.memory.append((self.done, _resident()))

    def _even(self) -> None:
        """What was taken was given back."""
        check, ledger = self.figures.check, self.ledger
        check(
            ledger.started == ledger.ended,
            f"{ledger.started} spans started, {ledger.ended} ended",
        )
        check(ledger.calls == self.done, f"{self.done} calls, {ledger.calls} spans of calls")
        lines = LINES._lines.values()
        held, waiting = (sum(len(getattr(one, name)) for one in lines) for name in
                         ("_holders", "_waiting"))  # fmt: skip
        check(held == 0, f"{held} permits of limits are held")
        check(waiting == 0, f"{waiting} calls wait in a line")

    def _judge(self, api: Api, before: _State, debug: Debug) -> None:
        figures = self.figures
        figures.spans = self.ledger.ended
        figures.calls = self.begun
        api.order("end")
        figures.requests = api.requests
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
        self._even()
        check(api.open == 0, f"{api.open} connections are open")
        check(not api.errors, f"the simulator failed {len(api.errors)}: " + _first(api.errors))
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
