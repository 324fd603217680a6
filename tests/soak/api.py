# SPDX-License-Identifier: Apache-2.0
"""The API that a run calls: a simulator in a process of its own.

So its memory is not that of the clients, and it answers in time however busy they are.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from cline_transport.simulator import ApiLimits, ReceivedRequest, Reply, Simulator

from .faults import plan

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

__all__ = ["CONCURRENT", "Api"]

CONCURRENT: Final = 10
"""What it allows each key."""
_ROOT: Final = Path(__file__).parents[2]
_REFUSED: Final = 0.01
"""Seconds for which it refuses connections."""

Order = Literal["forget", "refuse", "end"]


class Api:
    """The simulator, from outside.

    Args:
        seed: What chooses its replies.
    """

    def __init__(self, seed: int) -> None:
        self.requests = 0
        """What it was asked and did not refuse, as of the last order."""
        self.open = 0
        """The connections that are open."""
        self.errors: list[str] = []
        """What it could not do."""
        self._process = subprocess.Popen(  # noqa: S603 -- our own
            [sys.executable, "-m", __name__, str(seed)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.base_url: str = self._told()["base_url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def order(self, what: Order) -> None:
        """Let it forget what was asked, drop all connections for a moment, or come to its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        told = self._told()
        self.requests, self.open, self.errors = told["requests"], told["open"], told["errors"]

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return told


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


def _serve(seed: int) -> None:
    attempts = Counter[int]()
    errors = _Errors()
    # Asyncio tells of each write to a client that has gone.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("cline_transport").addHandler(errors)

    def respond(request: ReceivedRequest) -> Reply:
        number = int(request.headers["x-call"])
        attempts[number] += 1
        return plan(seed, number).reply(attempts[number])

    def tell(**what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    with Simulator(respond=respond, limits=ApiLimits(concurrent=CONCURRENT)) as api:
        tell(base_url=api.base_url)
        for line in sys.stdin:
            order = line.strip()
            if order == "refuse":
                with api.refusing():
                    time.sleep(_REFUSED)
            elif order == "end":
                _wait(api)
            api.reset()
            tell(requests=attempts.total(), open=api.connections_open, errors=errors.lines)


def _wait(api: Simulator) -> None:
    try:
        api.wait_for(lambda: api.connections_open == 0 and api.counts.concurrent == 0)
    except TimeoutError:
        return  # what is open is told


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
