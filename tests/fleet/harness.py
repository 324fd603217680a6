# SPDX-License-Identifier: Apache-2.0
"""Real processes that call a simulator which has limits."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

from cline_transport.simulator import ApiLimits, LimitCounts, ReceivedRequest, Reply, Simulator

ROOT = Path(__file__).parents[2]

STARTING = 60.0
"""Seconds that processes may take to start where the machine is busy."""


@dataclass(frozen=True)
class Call:
    """A call as its worker saw it."""

    ended: float
    seconds: float
    waited: float
    problem: str


class Worker:
    """A process of `worker.py`, whose lines are read as they come.

    Attributes:
        process: The process.
        calls: Those that have ended.
        reports: What it told of itself, the latest last.
        logged: The lines of its log.
        noise: What it printed besides.
    """

    def __init__(
        self,
        api: Simulator,
        name: str,
        *,
        tasks: int,
        limits: Mapping[str, Any],
    ) -> None:
        told = {
            "base_url": api.base_url, "api_key": api.api_key, "name": name, "tasks": tasks,
            "limits": dict(limits),
        }  # fmt: skip
        self.calls: list[Call] = []
        self.reports: list[dict[str, Any]] = []
        self.logged: list[str] = []
        self.noise: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self.process = subprocess.Popen(  # noqa: S603 -- our own interpreter
            [sys.executable, "-m", "tests.fleet.worker", json.dumps(told)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def failed(self) -> list[str]:
        return [call.problem for call in self.calls if call.problem]

    def wait_for(self, predicate: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Wait until something is true, asked with each line that comes."""
        with self._changed:
            self._changed.wait_for(lambda: predicate() or self._closed, timeout)
            if not predicate():
                state = "has ended" if self._closed else f"did not in {timeout} s"
                raise TimeoutError(f"the worker {state}; it said {self.noise + self.logged}")

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: bool(self.reports), timeout=STARTING)

    def wait_for_log(self, words: str) -> None:
        self.wait_for(lambda: any(words in line for line in self.logged))

    def go(self) -> None:
        self._say("go\n")

    def stop(self) -> None:
        """Its calls are cancelled."""
        self._say("stop\n")

    def wait_until_ended(self) -> None:
        """Its last report has come, and it ended well."""
        self.wait_for(lambda: "done" in self.reports[-1])
        assert self.process.wait(30) == 0
        assert self.noise == []

    def end(self) -> None:
        """Killed, if it has not ended by itself."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._take(line)
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            self.noise.append(line)
            return
        if "log" in told:
            self.logged.append(told["log"])
            return
        self.calls += [Call(*call) for call in told.get("calls", ())]
        self.reports.append(told)


@contextmanager
def workers(
    api: Simulator,
    names: list[str],
    *,
    tasks: int,
    limits: Mapping[str, Any],
) -> Generator[list[Worker], None, None]:
    """Processes that are ready, and have not begun."""
    with ExitStack() as stack:
        made: list[Worker] = []
        for name in names:
            worker = Worker(api, name, tasks=tasks, limits=limits)
            stack.callback(worker.end)
            made.append(worker)
        for worker in made:
            worker.wait_until_ready()
        yield made


def stop(fleet: Sequence[Worker]) -> None:
    for worker in fleet:
        worker.stop()
    for worker in fleet:
        worker.wait_until_ended()


class Api:
    """What the simulator answers: well, after some time; it notes what it accepted.

    Args:
        fastest: Seconds that a call takes at least.
        slowest: Seconds that it takes at most.
    """

    def __init__(self, fastest: float, slowest: float) -> None:
        self._random = random.Random(1)  # noqa: S311 -- the same durations each time
        self._between = (fastest, slowest)
        self.accepted: list[tuple[float, str]] = []

    def __call__(self, request: ReceivedRequest) -> Reply:
        self.accepted.append((request.time, request.headers.get("x-worker", "")))
        return Reply.ok(delay=self._random.uniform(*self._between))


def let_pass(api: Simulator, seconds: float) -> None:
    """Some time in which the workers call."""
    end = time.monotonic() + seconds
    api.wait_for(lambda: time.monotonic() >= end, timeout=seconds + 10)


PER_MINUTE, CONCURRENT, PROCESSES, TASKS = 600, 10, 8, 20


def strategies(storage: str) -> dict[str, dict[str, Any]]:
    """`LimitSettings` of each of the fleet's processes, by what one would call them."""
    whole = {"requests_per_minute": PER_MINUTE, "max_concurrency": CONCURRENT}
    return {
        "plain retries": {"cooldown": False},
        "cooldown only": {},
        "limits per process": whole,
        "limits divided by eight": {"requests_per_minute": PER_MINUTE / 8, "max_concurrency": 1},
        "shared limits": whole | {"storage": storage},
    }


@dataclass
class Figures:
    """What came of a fleet.

    Attributes:
        seconds: From the first request that was accepted to the end.
        counts: As the API counted.
        calls: Those that ended in that time.
        served: Requests that were accepted, by worker.
    """

    seconds: float
    counts: LimitCounts
    calls: list[Call]
    served: dict[str, int]

    @property
    def refused(self) -> float:
        """The share of the requests that were refused."""
        refused = self.counts.rate_refused + self.counts.concurrency_refused
        return refused / (refused + self.counts.served)

    @property
    def throughput(self) -> float:
        """What was served, as a share of what the rate allows, without the burst."""
        return self.counts.served / (self.seconds * PER_MINUTE / 60)

    @property
    def failed(self) -> list[str]:
        return [call.problem for call in self.calls if call.problem]

    @property
    def done(self) -> int:
        return len(self.calls) - len(self.failed)

    @property
    def least(self) -> float:
        """What the worker that was served least has of the mean."""
        return min(self.served.values()) / mean(self.served.values())

    def latency(self, percent: int) -> float:
        """Seconds of a call that went well, with its waits."""
        return quantiles([c.seconds for c in self.calls if not c.problem], n=100)[percent - 1]


def measure(limits: Mapping[str, Any], seconds: float, *, busy: int = PROCESSES) -> Figures:
    """Run a fleet of processes with these limits, of which so many have something to do."""
    answer = Api(0.2, 1.2)
    names = [f"w{number}" for number in range(busy)]
    allowed = ApiLimits(requests_per_minute=PER_MINUTE, burst=10, concurrent=CONCURRENT)
    with (
        Simulator(respond=answer, limits=allowed) as api,
        workers(api, names, tasks=TASKS, limits=limits) as fleet,
    ):
        for worker in fleet:
            worker.go()
        api.wait_for(lambda: bool(answer.accepted), timeout=STARTING)
        began = answer.accepted[0][0]
        api.wait_for(lambda: time.monotonic() >= began + seconds, timeout=seconds + 30)
        ended, counts = time.monotonic(), api.counts
        stop(fleet)
        served = Counter(name for at, name in answer.accepted if at <= ended)
        return Figures(
            seconds=ended - began,
            counts=counts,
            calls=[call for worker in fleet for call in worker.calls if call.ended <= ended],
            served={name: served[name] for name in names},
        )


FULL = os.environ.get("CLINE_TEST_FULL") == "1"
