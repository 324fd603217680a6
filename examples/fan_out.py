# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]"]
#
# [tool.uv.sources]
# cline-transport = { path = "..", editable = true }
# ///
r"""Ask a hundred questions at once and stay below the API's rate limit.

The transport holds calls back so that they keep the rate, and finds out how many the API takes at
once. Answers come in the order of the questions; what failed is collected.

Live: CLINE_API_KEY=... uv run examples/fan_out.py --requests-per-minute 300
Against a simulator: uv run cline-transport simulate --port 8080 --requests-per-minute 600, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
uv run examples/fan_out.py --requests-per-minute 550
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

import anyio
from openai import AsyncOpenAI

from cline_transport import ErrorInfo, LimitSettings, Settings, call_record, error_info
from cline_transport.openai import async_http_client

AT_ONCE = 32
"""Questions that are in memory at once: waiting, under way, or answered before an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a question: an answer or an error."""

    question: str
    answer: str | None = None
    error: ErrorInfo | None = None
    attempts: int = 1
    cost: float = 0.0


@dataclass
class Summary:
    """What came of all of them."""

    answered: int = 0
    failed: list[Result] = field(default_factory=list[Result])
    attempts: int = 0
    cost: float = 0.0

    def add(self, result: Result) -> None:
        """Count one."""
        self.attempts += result.attempts
        self.cost += result.cost
        if result.error is None:
            self.answered += 1
        else:
            self.failed.append(result)


async def ask(client: AsyncOpenAI, question: str) -> Result:
    """Ask one question."""
    try:
        response = await client.chat.completions.with_raw_response.create(
            model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
            messages=[{"role": "user", "content": question}],
            max_tokens=100,
            stream=False,
        )
    except Exception as exc:
        info = error_info(exc)
        if info is None:  # no failure of a call: a bug
            raise
        return Result(question=question, error=info, attempts=info.attempts)
    record = call_record(response)  # `None` where CLINE_TRANSPORT_ENABLED=false
    attempts = len(record.attempts) if record else 1
    cost = (record.usage.cost if record else None) or 0.0
    try:
        answer = response.parse().choices[0].message.content or ""
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        # The SDK does not look whether a 200 is a completion: it may be a proxy's page.
        error = ErrorInfo(
            code="no_completion",
            message=f"The response is no completion ({type(exc).__name__})",
            status_code=response.status_code,
            request_id=response.request_id,
            model=record.model if record else None,
            attempts=attempts,
        )
        return Result(question=question, error=error, attempts=attempts, cost=cost)
    return Result(question=question, answer=answer, attempts=attempts, cost=cost)


async def fan_out(
    questions: Iterable[str],
    answer: Callable[[str], Awaitable[Result]],
    give: Callable[[Result], None],
) -> None:
    """Answer all questions; give each result in order, as soon as those before it were given."""
    room = anyio.Semaphore(AT_ONCE)
    done: dict[int, Result] = {}
    given = 0

    async def one(number: int, question: str) -> None:
        nonlocal given
        done[number] = await answer(question)
        while given in done:
            give(done.pop(given))
            given += 1
            room.release()

    async with anyio.create_task_group() as tasks:
        for number, question in enumerate(questions):
            await room.acquire()
            tasks.start_soon(one, number, question)


def show(result: Result) -> None:
    """Print a result in one line."""
    text = f"failed: {result.error.code}" if result.error else result.answer or ""
    print(result.question, " ".join(text.split()), flush=True)


async def run(count: int, requests_per_minute: float) -> Summary:
    """Ask so many questions, and print what comes of them."""
    limits = LimitSettings(requests_per_minute=requests_per_minute, max_concurrency="adaptive")
    summary = Summary()

    def give(result: Result) -> None:
        summary.add(result)
        show(result)

    async with AsyncOpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        max_retries=0,  # those of the transport are enough, and are counted
        http_client=async_http_client(settings=Settings(limits=limits)),
    ) as client:
        questions = (f"In one sentence, what is {number} known for?" for number in range(count))
        await fan_out(questions, lambda question: ask(client, question), give)
    return summary


def main() -> int:
    """Run the program. Returns the exit status: 1 if a question has no answer."""
    parser = argparse.ArgumentParser(description="Ask many questions below a rate limit.")
    parser.add_argument("--questions", type=int, default=100, help="how many (default 100)")
    parser.add_argument(
        "--requests-per-minute",
        type=float,
        default=300,
        help="a little below what the API allows you (default 300)",
    )
    args = parser.parse_args()
    # The terminal may lack a character of an answer.
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace")
    began = time.monotonic()
    summary = anyio.run(run, args.questions, args.requests_per_minute)
    for result in summary.failed:
        if result.error is not None:
            print(f"\n{result.question}\n{result.error.report()}", file=sys.stderr)
    print(
        f"{summary.answered} answered, {len(summary.failed)} failed; {summary.attempts} attempts; "
        f"cost {summary.cost:.6g}; {time.monotonic() - began:.1f} s"
    )
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
