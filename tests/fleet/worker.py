# SPDX-License-Identifier: Apache-2.0
"""One process of a fleet: tasks that call until told to stop, and what comes of it as JSON lines.

    python -m tests.fleet.worker '{"base_url": ..., "tasks": 20, "limits": {...}}'

It says `ready`, begins at a line on its input, and ends at the next, or at the input's end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextlib import suppress
from typing import Any

import httpx

from cline_transport._limiter import LINES
from cline_transport.httpx import AsyncClineTransport
from cline_transport.limits import LimitSettings
from cline_transport.settings import Settings

EVERY = 0.1
"""Seconds from one report to the next."""

PAUSE = 1.0
"""Seconds that a task waits after a call that failed, as whoever has to report it would."""


def say(**told: Any) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201 -- this is how it is heard


class ToLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(log=record.getMessage())


class Wire(httpx.AsyncHTTPTransport):
    """Counts what is sent, and what was refused."""

    attempts = 0
    refused = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.attempts += 1
        response = await super().handle_async_request(request)
        self.refused += response.status_code == 429
        return response


class Work:
    """The calls of this process."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.wire = Wire()
        settings = Settings(limits=LimitSettings(**told["limits"]))
        self.client = httpx.AsyncClient(
            transport=AsyncClineTransport(self.wire, settings=settings),
            base_url=told["base_url"],
            headers={"authorization": f"Bearer {told['api_key']}", "x-worker": told["name"]},
            timeout=60,
        )
        self.tasks: int = told["tasks"]
        self.ended: list[tuple[float, float, float, str]] = []
        """Of each call: when it ended, how long it took, how long limits held it, what it met."""

    async def call(self) -> str:
        body = {"model": "cline/ok", "messages": [{"role": "user", "content": "Hi"}]}
        began, waited, problem = time.monotonic(), 0.0, ""
        try:
            response = await self.client.post("/chat/completions", json=body | {"stream": False})
            waited = response.extensions["cline_transport"].limit_wait
            problem = "" if response.is_success else str(response.status_code)
        except httpx.HTTPError as exc:
            problem = repr(exc)
        now = time.monotonic()
        self.ended.append((now, now - began, waited, problem))
        return problem

    async def call_on(self) -> None:
        while True:
            if await self.call():
                await asyncio.sleep(PAUSE)

    async def report(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.tell()

    def tell(self, **more: Any) -> None:
        ended, self.ended = self.ended, []
        line = next(iter(LINES._lines.values()), None)
        say(
            at=time.monotonic(),
            calls=ended,
            attempts=self.wire.attempts,
            refused=self.wire.refused,
            held=line.held if line else 0,
            waiting=len(line._waiting) if line else 0,
            limit=line.limit if line else 0,
            alone=line.alone if line else True,
            **more,
        )

    async def run(self) -> None:
        async with self.client:
            say(ready=True)
            if not await asyncio.to_thread(sys.stdin.readline):
                return
            tasks = [asyncio.create_task(self.call_on()) for _ in range(self.tasks)]
            tasks.append(asyncio.create_task(self.report()))
            await asyncio.to_thread(sys.stdin.readline)
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            self.tell(done=True)


def main() -> None:
    logger = logging.getLogger("cline_transport")
    logger.addHandler(ToLines())
    logger.setLevel(logging.INFO)
    asyncio.run(Work(json.loads(sys.argv[1])).run())


if __name__ == "__main__":
    main()
