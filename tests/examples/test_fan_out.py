# SPDX-License-Identifier: Apache-2.0
"""`examples/fan_out.py` as a program, and the order and the room of its fan-out."""

from __future__ import annotations

import itertools
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cline_transport.simulator import ApiLimits, ReceivedRequest, Reply, Simulator

from .program import EXAMPLES, OFF, asked, run

EXAMPLE = "fan_out.py"
SUMMARY = re.compile(r"(\d+) answered, (\d+) failed; (\d+) attempts; cost ([\d.]+); \d+\.\d s")


def question(number: int) -> str:
    return f"In one sentence, what is {number} known for?"


def number_of(request: ReceivedRequest) -> int:
    found = re.search(r"\d+", asked(request))
    assert found
    return int(found[0])


def fan_out(
    api: Simulator, folder: Path, requests_per_minute: int, **more: str
) -> tuple[int, list[str], tuple[int, int, int, float], str]:
    """The exit status, the lines of results, the figures of the summary and the reports."""
    done = run(EXAMPLE, api, "--requests-per-minute", str(requests_per_minute), cwd=folder, **more)
    assert "Traceback" not in done.stderr
    *lines, last = done.stdout.splitlines()
    found = SUMMARY.fullmatch(last)
    assert found, last
    answered, failed, attempts, cost = found.groups()
    figures = int(answered), int(failed), int(attempts), float(cost)
    return done.returncode, lines, figures, done.stderr


def test_results_come_in_order_and_failures_are_collected(
    cline_api: Simulator, tmp_path: Path
) -> None:
    refused = False

    def respond(request: ReceivedRequest) -> Reply:
        nonlocal refused
        number = number_of(request)
        if number == 7:
            return Reply.error(400, message="Malformed", request_id="req_7")
        if number == 3 and not refused:
            refused = True
            return Reply.error(429, retry_after_ms=1)
        # Every other one is late: those after it overtake it.
        return Reply.completion(f"It is\n{number}", cost=0.25, delay=0.05 * (number % 2))

    cline_api.respond = respond
    status, lines, figures, told = fan_out(cline_api, tmp_path, 60_000)
    results = [f"It is {number}" for number in range(100)]
    results[7] = "failed: 400"
    assert lines == [f"{question(number)} {result}" for number, result in enumerate(results)]
    assert (status, figures) == (1, (99, 1, 101, 24.75))
    _, found, report = told.partition(
        f"\n{question(7)}\n1. Error code and message: 400: Malformed\n"
    )
    assert found
    assert "3. Request ID (x-request-id): req_7\n" in report


@pytest.mark.parametrize(
    "odd",
    [
        Reply.raw(headers={"content-type": "application/json"}, body=body, request_id="req_odd")
        for body in (b'{"choices": []}', b'{"choices": null}', b'{"choices": [{}]}', b'"hello"')
    ]
    + [
        Reply.html(200, request_id="req_odd"),
        Reply.raw(headers={"content-type": "application/json"}, body=b"{", request_id="req_odd"),
    ],
    ids=["empty", "null", "no message", "text", "page", "no JSON"],
)
def test_an_answer_of_another_shape_is_a_failure_among_others(
    cline_api: Simulator, tmp_path: Path, odd: Reply
) -> None:
    def respond(request: ReceivedRequest) -> Reply:
        return odd if number_of(request) == 7 else Reply.completion("Yes", cost=0.25)

    cline_api.respond = respond
    status, lines, figures, told = fan_out(cline_api, tmp_path, 60_000)
    assert lines[7] == f"{question(7)} failed: no_completion"
    assert (status, figures) == (1, (99, 1, 100, 24.75))
    assert "1. Error code and message: no_completion: " in told
    assert "3. Request ID (x-request-id): req_odd\n" in told


def test_a_character_that_the_terminal_lacks_ends_nothing(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.respond = lambda _: Reply.completion("Caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    status, lines, _, _ = fan_out(cline_api, tmp_path, 60_000, PYTHONIOENCODING="ascii")
    assert (status, lines[99]) == (0, f"{question(99)} Caf?")


def test_without_the_transport_there_is_no_record(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.respond = lambda _: Reply.completion("Yes", cost=0.25)
    status, _, figures, _ = fan_out(cline_api, tmp_path, 60_000, **OFF)
    assert (status, figures) == (0, (100, 0, 100, 0.0))


# The most that may arrive together: all that are under way, and what a pause has saved (0.2 s of
# the rate). Whoever sends no more than that, at half of the API's rate, is never refused.
RATE = 3000
LIMITS = ApiLimits(requests_per_minute=2 * RATE, burst=32 + RATE // 300)


def test_below_the_rate_none_is_refused(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.limits = LIMITS
    cline_api.respond = lambda _: Reply.completion("Yes", cost=0.25)
    status, _, figures, told = fan_out(cline_api, tmp_path, RATE)
    assert (status, figures, told) == (0, (100, 0, 100, 25.0), "")
    assert cline_api.counts.rate_refused == 0


def test_the_rate_is_kept(cline_api: Simulator, tmp_path: Path) -> None:
    options = ["--questions", "4", "--requests-per-minute", "60"]
    assert run(EXAMPLE, cline_api, *options, cwd=tmp_path).returncode == 0
    first, _, _, last = [request.time for request in cline_api.requests]
    # Two at once, then one each second. Half of it is for the first, which may take its time.
    assert last - first > 1


def test_what_is_refused_all_the_same_is_asked_again(cline_api: Simulator, tmp_path: Path) -> None:
    number = itertools.count()

    def respond(_: ReceivedRequest) -> Reply:
        if 20 <= next(number) < 24:
            return Reply.error(429, retry_after=1)
        return Reply.completion("Yes", cost=0.25)

    cline_api.respond = respond
    status, lines, figures, told = fan_out(cline_api, tmp_path, 60_000)
    assert (status, figures, told) == (0, (100, 0, 104, 25.0), "")
    assert lines == [f"{question(number)} Yes" for number in range(100)]


def test_no_more_are_in_memory_than_there_is_room_for() -> None:
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / EXAMPLE))
    taken = 0
    given: list[str] = []

    def questions() -> Iterator[str]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield str(number)

    async def main() -> None:
        first = anyio.Event()

        async def answer(question: str) -> Any:
            await (first.wait() if question == "0" else anyio.lowlevel.checkpoint())
            return example["Result"](question=question)

        def give(result: Any) -> None:
            given.append(result.question)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(example["fan_out"], questions(), answer, give)
            await anyio.wait_all_tasks_blocked()
            # All but the first have been answered; one more waits to get in.
            assert (taken, given) == (example["AT_ONCE"] + 1, [])
            first.set()

    anyio.run(main)
    assert (taken, given) == (100, [str(number) for number in range(100)])
