# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]", "rich>=13.9"]
#
# [tool.uv.sources]
# cline-transport = { path = "..", editable = true }
# ///
r"""Answer a file of prompts, each answer whole or not at all; run it again to go on.

The transport holds each answer back until it is whole (`stream.retry = "buffered"`), so that a
stream that fails half-way is asked for again unseen.

prompts.jsonl has a line for each prompt: {"id": "1", "prompt": "Say hello."}. Answers are added to
answers.jsonl: {"id": "1", "text": "Hello.", ...}. IDs that are there already are not asked again.

Live: CLINE_API_KEY=... uv run examples/batch.py prompts.jsonl answers.jsonl
Against a simulator: uv run cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
CLINE_MODEL=sim/truncated uv run examples/batch.py prompts.jsonl answers.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import anyio
from openai import AsyncOpenAI
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cline_transport import ErrorInfo, Settings, StreamSettings, call_record, error_info
from cline_transport.openai import async_http_client

HOPELESS = {401, 402, 403, 404, "insufficient_quota"}
"""What every other prompt would fail with, too: a status, or the code in its place."""

OF_THE_PROMPT = {"content_filter", "context_length_exceeded"}
"""Codes that say nothing of other prompts, whatever status they come with."""


class Prompt(NamedTuple):
    """A line of the input."""

    id: str
    text: str


class Result(NamedTuple):
    """What came of a prompt: a line of the output or an error."""

    id: str
    line: dict[str, Any]
    error: ErrorInfo | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file.

    Raises:
        ValueError: A line is wrong; the message says which.
    """
    prompts: dict[str, Prompt] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                prompt = parse_prompt(line)
            except ValueError as exc:
                raise ValueError(f"{path}, line {number}: {exc}") from exc
            if prompt.id in prompts:
                raise ValueError(f"{path}, line {number}: the ID {prompt.id!r} is there already")
            prompts[prompt.id] = prompt
    return list(prompts.values())


def parse_prompt(line: str) -> Prompt:
    """A line of the input.

    Raises:
        ValueError: It is none, or no request can be made of it.
    """
    wrong = 'must be {"id": "...", "prompt": "..."}'
    try:
        values = json.loads(line)
        identifier, text = values["id"], values["prompt"]
    except (ValueError, KeyError, TypeError) as exc:
        raise ValueError(wrong) from exc
    if not isinstance(identifier, str) or not isinstance(text, str):
        raise ValueError(wrong)
    if whole_characters(identifier + text) != identifier + text:
        raise ValueError("has half of a surrogate pair, which UTF-8 cannot say")
    return Prompt(identifier, text)


def whole_characters(text: str) -> str:
    """Text that UTF-8 can say: JSON may have a character in two halves, even in two chunks."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def answered(path: Path) -> set[str]:
    """The IDs of a file of answers; a last line that was not written to its end is cut off.

    A file that is not there is made: that it can be written is known before anything is asked.

    Raises:
        OSError: It cannot be read or written.
        ValueError: Another line is no answer.
    """
    ids: set[str] = set()
    with path.open("a+b") as file:
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                file.truncate(file.tell() - len(line))
                break
            try:
                ids.add(json.loads(line)["id"])
            except (ValueError, KeyError, TypeError) as exc:
                raise ValueError(f"{path}, line {number}: is no answer") from exc
    return ids


async def ask(client: AsyncOpenAI, prompt: Prompt) -> Result:
    """Answer one prompt."""
    parts: list[str] = []
    finish_reason = None
    try:
        stream = await client.chat.completions.create(
            model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
            messages=[{"role": "user", "content": prompt.text}],
            stream=True,
        )
        async with stream:
            try:
                async for chunk in stream:
                    for choice in chunk.choices:
                        finish_reason = choice.finish_reason or finish_reason
                        parts.append(choice.delta.content or "")
            except (AttributeError, TypeError):  # the SDK does not look whether it is a chunk
                finish_reason = None
    except Exception as exc:
        info = error_info(exc)
        if info is None:  # no failure of a call: a bug
            raise
        return Result(prompt.id, {}, info)
    record = call_record(stream)
    if finish_reason is None:  # it may be a proxy's page
        error = ErrorInfo(
            code="no_completion",
            message="The response is no whole completion",
            status_code=stream.response.status_code,
            request_id=stream.response.headers.get("x-request-id"),
            model=record.model if record else None,
            attempts=len(record.attempts) if record else 1,
        )
        return Result(prompt.id, {}, error)
    line: dict[str, Any] = {"id": prompt.id, "text": whole_characters("".join(parts))}
    if record is not None:  # there is none where CLINE_TRANSPORT_ENABLED=false
        line |= {
            "model": record.response_model,
            "finish_reason": record.finish_reason,
            "request_id": record.request_id,
            "attempts": len(record.attempts),
            "cost": record.usage.cost,
        }
    return Result(prompt.id, line)


def is_hopeless(error: ErrorInfo) -> bool:
    """Whether every other prompt would fail, too."""
    if error.code in OF_THE_PROMPT:
        return False
    return error.code in HOPELESS or error.status_code in HOPELESS


async def run(prompts: list[Prompt], output: Path, at_once: int, console: Console) -> list[Result]:
    """Answer prompts into a file, and show how far it is. Returns those that failed."""
    failed: list[Result] = []
    waiting = iter(prompts)
    settings = Settings(stream=StreamSettings(retry="buffered"))
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )

    async def work(client: AsyncOpenAI, file: TextIO, progress: Progress, bar: TaskID) -> None:
        for prompt in waiting:  # shared by all workers
            result = await ask(client, prompt)
            if result.error is None:
                file.write(json.dumps(result.line) + "\n")
                file.flush()
            else:
                failed.append(result)
                if is_hopeless(result.error):
                    deque(waiting, maxlen=0)  # nothing more is asked
            progress.update(bar, advance=1, failed=len(failed))

    async with AsyncOpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        max_retries=0,  # those of the transport are enough, and are counted
        http_client=async_http_client(settings=settings),
    ) as client:
        with (
            output.open("a", encoding="utf-8", newline="\n") as file,
            Progress(*columns, console=console) as progress,
        ):
            bar = progress.add_task("", total=len(prompts), failed=0)
            async with anyio.create_task_group() as workers:
                for _ in range(at_once):
                    workers.start_soon(work, client, file, progress, bar)
    return failed


def positive(text: str) -> int:
    """An argument that is a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {number})")
    return number


def main() -> int:
    """Run the job. Returns the exit status: 0 when all prompts are answered, 2 for a wrong file."""
    parser = argparse.ArgumentParser(description="Answer a file of prompts.")
    parser.add_argument("prompts", type=Path, help="JSON lines: id, prompt")
    parser.add_argument("answers", type=Path, help="JSON lines, to be added to")
    parser.add_argument("--at-once", type=positive, default=8, help="calls under way (default 8)")
    args = parser.parse_args()
    try:
        prompts, done = read_prompts(args.prompts), answered(args.answers)
    except (OSError, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 2
    todo = [prompt for prompt in prompts if prompt.id not in done]
    try:
        failed = anyio.run(run, todo, args.answers, args.at_once, Console(stderr=True))
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl+C; the latter on Python 3.10
        print("Stopped. Run it again to go on.", file=sys.stderr)
        return 130
    for result in failed:
        if result.error is not None:
            print(f"\n{result.id}\n{result.error.report()}", file=sys.stderr)
    good = len(answered(args.answers) & {prompt.id for prompt in prompts})
    left = len(prompts) - good - len(failed)
    print(f"{good} of {len(prompts)} answered, {len(failed)} failed, {left} not asked")
    return 1 if good < len(prompts) else 0


if __name__ == "__main__":
    sys.exit(main())
