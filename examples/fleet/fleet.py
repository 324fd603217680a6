# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[redis,simulator]", "rich>=13.9"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""Eight processes on one key stay within its limits, which they share in Redis; watch them.

    uv run examples/fleet/fleet.py                # needs REDIS_URL, or redis-server on the path
    uv run examples/fleet/fleet.py --no-share     # each process has all of the limits: a storm

The API is the built-in simulator, which allows 600 requests a minute and 10 at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cline_transport import LimitSettings, Settings
from cline_transport.httpx import AsyncClineTransport
from cline_transport.simulator import ApiLimits, Reply, Simulator

PER_MINUTE, CONCURRENT, TASKS = 600, 10, 20

# --- a worker: a process that calls, as yours would ---


class Counting(httpx.AsyncHTTPTransport):
    """The network beneath the transport: what is sent, and what comes of it."""

    sent = refused = in_flight = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and count."""
        self.sent += 1
        self.in_flight += 1
        try:
            response = await super().handle_async_request(request)
        finally:
            self.in_flight -= 1
        self.refused += response.status_code == 429
        return response


class Told(NamedTuple):
    """What a worker tells of itself."""

    done: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting: int = 0
    refused: int = 0
    waited: float = 0.0


async def work(base_url: str, api_key: str, storage: str | None) -> None:
    """Call with many tasks until the input ends, and print what comes of it as JSON."""
    limits = LimitSettings(
        requests_per_minute=PER_MINUTE, max_concurrency=CONCURRENT, storage=storage
    )
    network = Counting()
    done = failed = calling = 0
    waited = 0.0

    async def call_on(client: httpx.AsyncClient) -> None:
        nonlocal done, failed, calling, waited
        body = {"model": "cline/ok", "messages": [{"role": "user", "content": "Hello"}]}
        while True:
            calling += 1
            try:
                response = await client.post("chat/completions", json={**body, "stream": False})
            finally:
                calling -= 1
            waited += response.extensions["cline_transport"].limit_wait
            if response.is_success:
                done += 1
            else:
                failed += 1
                await asyncio.sleep(1)

    async def tell() -> None:
        while True:
            waiting = calling - network.in_flight
            print(
                json.dumps(Told(done, failed, network.in_flight, waiting, network.refused, waited))
            )
            sys.stdout.flush()
            await asyncio.sleep(0.2)

    async with httpx.AsyncClient(
        transport=AsyncClineTransport(network, settings=Settings(limits=limits)),
        base_url=base_url,
        headers={"authorization": f"Bearer {api_key}"},
        timeout=60,
    ) as client:
        jobs = [asyncio.create_task(tell())]
        if await asyncio.to_thread(sys.stdin.readline):  # all begin together
            jobs += [asyncio.create_task(call_on(client)) for _ in range(TASKS)]
            await asyncio.to_thread(sys.stdin.read)
        for job in jobs:
            job.cancel()
        for job in jobs:
            with suppress(asyncio.CancelledError):
                await job


class Worker:
    """A worker's process, and what it told last."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.told = Told()
        self.ready = threading.Event()
        self._process = subprocess.Popen(  # noqa: S603 -- this very file
            [sys.executable, __file__, "--worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl+C is for the parent
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("pipes were asked for")
        self._input, self._output = self._process.stdin, self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._output:
            self.told = Told(*json.loads(line))
            self.ready.set()
        self.ready.set()

    def go(self) -> None:
        """Begin."""
        with suppress(BrokenPipeError):
            self._input.write("\n")
            self._input.flush()

    def close(self) -> None:
        """Ask it to end: its input does."""
        with suppress(BrokenPipeError):
            self._input.close()

    def wait(self) -> None:
        """It has ended, or is ended."""
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._output.close()


# --- what is around them ---


@contextmanager
def storage() -> Generator[str, None, None]:
    """The URL of a Redis: the one that `REDIS_URL` names, or one of our own.

    Raises:
        FileNotFoundError: There is none.
    """
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    command = shutil.which("redis-server")
    if command is None:
        raise FileNotFoundError(
            "no Redis: set REDIS_URL=redis://HOST:6379, or install one "
            "(apt install redis-server; brew install redis)"
        )
    with socket.socket() as sock, TemporaryDirectory() as directory:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
        sock.close()
        options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        with subprocess.Popen(  # noqa: S603 -- found on the path
            [command, *options], stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as server:
            try:
                if not any("Ready to accept" in line for line in server.stdout or ()):
                    raise FileNotFoundError(f"{command} does not start; set REDIS_URL")
                yield f"redis://127.0.0.1:{port}"
            finally:
                server.terminate()


@dataclass
class Fleet:
    """The workers, and the API that they call.

    Attributes:
        api: The simulator.
        workers: The workers.
        shared: Where they share the limits.
        began: When they began.
        seconds: For how long they have worked.
    """

    api: Simulator
    workers: list[Worker]
    shared: str | None
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def look(self) -> None:
        """Note the time."""
        self.seconds = time.monotonic() - self.began

    @property
    def total(self) -> Told:
        """Of all workers."""
        return Told(*map(sum, zip(*(worker.told for worker in self.workers), strict=True)))

    @property
    def rate(self) -> float:
        """Requests that the API served, in a minute."""
        return 60 * self.api.counts.served / max(self.seconds, 1.0)

    @property
    def refused(self) -> int:
        """Requests that the API refused."""
        return self.api.counts.rate_refused + self.api.counts.concurrency_refused

    def line(self) -> str:
        """How it stands, in one line."""
        total = self.total
        return (
            f"{self.seconds:5.1f} s  done {total.done}  failed {total.failed}  in flight "
            f"{total.in_flight}  waiting {total.waiting}  429s {self.refused}"
        )

    def summary(self) -> str:
        """How it ended."""
        total, counts = self.total, self.api.counts
        requests = counts.served + self.refused
        return (
            f"{len(self.workers)} processes in {self.seconds:.1f} s: {total.done} calls done, "
            f"{total.failed} failed; {self.refused} of {requests} requests refused "
            f"({self.refused / max(1, requests):.1%}); {self.rate:.0f} served a minute of "
            f"{PER_MINUTE} allowed; {counts.most_concurrent} at once of {CONCURRENT} allowed."
        )

    def __rich__(self) -> Group:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("worker")
        for name in ("calls done", "in flight", "waiting", "429s", "failed", "mean wait"):
            table.add_column(name, justify="right")
        for number, worker in enumerate(self.workers, start=1):
            table.add_row(str(number), *_cells(worker.told))
        table.add_section()
        table.add_row("all", *_cells(self.total), style="bold")
        counts = self.api.counts
        host = (
            urlsplit(self.shared).hostname if self.shared else None
        )  # its URL may hold a password
        where = f"limits shared in Redis on {host}" if host else "each has all of the limits"
        bars = Table.grid(padding=(0, 2, 0, 0))
        bars.add_row(
            "served a minute", _bar(self.rate, PER_MINUTE), f"{self.rate:.0f} of {PER_MINUTE}"
        )
        bars.add_row(
            "at once", _bar(counts.concurrent, CONCURRENT), f"{counts.concurrent} of {CONCURRENT}"
        )
        title = f"{len(self.workers)} processes, one key, {where}; {self.seconds:.0f} s"
        return Group(Text(title, style="bold"), Text(), table, Text(), bars)


def _bar(value: float, most: float) -> ProgressBar:
    return ProgressBar(total=most, completed=min(value, most), width=40)


def _cells(told: Told) -> list[Text]:
    calls = told.done + told.failed
    return [
        Text(str(told.done)),
        Text(str(told.in_flight)),
        Text(str(told.waiting)),
        Text(str(told.refused), style="red" if told.refused else "green"),
        Text(str(told.failed), style="red" if told.failed else "green"),
        Text(f"{told.waited / calls:.1f} s" if calls else "-"),
    ]


def answer(_: object) -> Reply:
    """A model takes its time."""
    return Reply.ok(delay=random.uniform(0.2, 1.2))  # noqa: S311 -- no secret


@contextmanager
def fleet(processes: int, shared: str | None) -> Generator[Fleet, None, None]:
    """So many workers, who work until the end; then the figures are final."""
    limits = ApiLimits(requests_per_minute=PER_MINUTE, burst=10, concurrent=CONCURRENT)
    with Simulator(respond=answer, limits=limits) as api, ExitStack() as stack:
        arguments = [api.base_url, api.api_key, *([shared] if shared else [])]
        workers: list[Worker] = []
        for _ in range(processes):
            workers.append(Worker(arguments))
            stack.callback(workers[-1].wait)
        for worker in workers:
            stack.callback(worker.close)  # all of them, before the first is waited for
        for worker in workers:
            worker.ready.wait()
        for worker in workers:
            worker.go()
        yield Fleet(api, workers, shared)


def watch(made: Fleet, seconds: float, *, live: bool, console: Console) -> None:
    """Show them for so long, or until Ctrl+C."""
    view = Live(made, console=console, refresh_per_second=5) if live else None
    with suppress(KeyboardInterrupt), view or nullcontext():
        while made.seconds < seconds:
            time.sleep(max(0.0, min(0.2 if live else 1.0, seconds - made.seconds)))
            made.look()
            if not live:
                console.print(made.line(), highlight=False)


def main() -> int:
    """Run the fleet. Returns the exit status."""
    if sys.argv[1:2] == ["--worker"]:
        base_url, api_key, *url = sys.argv[2:]
        asyncio.run(work(base_url, api_key, url[0] if url else None))
        return 0
    parser = argparse.ArgumentParser(description="Eight processes share the limits of one key.")
    parser.add_argument("--seconds", type=float, default=30.0, help="for how long (default 30)")
    parser.add_argument("--processes", type=int, default=8, help="how many (default 8)")
    parser.add_argument("--no-share", action="store_true", help="no Redis: see the storm")
    parser.add_argument("--no-live", action="store_true", help="lines instead of a live view")
    options = parser.parse_args()
    console = Console()
    with ExitStack() as stack:
        try:
            shared = None if options.no_share else stack.enter_context(storage())
        except FileNotFoundError as exc:
            print(exc, file=sys.stderr)
            return 1
        made = stack.enter_context(fleet(options.processes, shared))
        watch(made, options.seconds, live=not options.no_live, console=console)
        print(made.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
