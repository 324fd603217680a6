# SPDX-License-Identifier: Apache-2.0
"""The tour: every scenario once, each checked against what has to come of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

import openai
from anyio.lowlevel import checkpoint
from rich.console import Console

from cline_transport._demo.calls import Outcome, complete, replace_sleep, stream, stream_async
from cline_transport._demo.recorder import Recorder
from cline_transport._demo.scenarios import SCENARIOS, Scenario
from cline_transport._demo.stage import Stage
from cline_transport._demo.waiting import Countdown
from cline_transport._demo.waterfall import Waterfall, duration_text, read_waterfall
from cline_transport.errors import ErrorInfo, error_info
from cline_transport.limits import LimitSettings
from cline_transport.openai import async_http_client, http_client
from cline_transport.retry import RetryPolicy
from cline_transport.settings import ErrorSettings, Settings, StreamSettings, TelemetrySettings
from cline_transport.simulator import Gate, Simulator

__all__ = ["MODEL", "documented_settings", "problems", "quiet_log", "run_tour"]

MODEL = "anthropic/claude-sonnet-4.6"

_PACE = 0.04
"""Seconds between two words of a stream: so that its span is longer than its headers."""

_READY = 2
"""Events of a stream that may go at once: the role, and a first word to wait for."""


@contextmanager
def quiet_log() -> Generator[None, None, None]:
    """Without a handler, Python writes the transport's warnings between the demo's lines."""
    logger, handler = logging.getLogger("cline_transport"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def documented_settings() -> Settings:
    """The documented policies: each one given, so that `CLINE_TRANSPORT_*` changes none."""
    return Settings(
        enabled=True,
        retry=RetryPolicy(),
        errors=ErrorSettings(),
        stream=StreamSettings(),
        limits=LimitSettings(),
        telemetry=TelemetrySettings(),
    )


def run_tour(
    console: Console,
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    sleep: Callable[[float], object] = time.sleep,
    async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> int:
    """Run and show the scenarios.

    Args:
        console: Where to show them.
        scenarios: Which ones.
        sleep: How to wait, in seconds: between attempts, and between the words of a stream.
        async_sleep: The same for the asynchronous client.

    Returns:
        The exit status: 0 if each scenario ended as it had to, else 1.

    Raises:
        OSError: No loopback socket could be opened.
    """
    began = time.monotonic()
    wrong = 0
    reported: ErrorInfo | None = None
    with quiet_log(), Simulator() as api:
        tour = _Tour(console, api, sleep, async_sleep)
        for number, scenario in enumerate(scenarios, start=1):
            failed, info = tour.show(scenario, f"{number}/{len(scenarios)}")
            wrong += failed
            reported = info or reported
    stage = tour.stage
    if reported is not None:
        stage.report(reported)
    summary = f"{len(scenarios)} scenarios in {duration_text(time.monotonic() - began)}"
    stage.verdict(
        [f"{wrong} of {summary} did not end as expected"] if wrong else [],
        f"{summary}: each ended as expected",
    )
    return 1 if wrong else 0


class _Tour:
    def __init__(
        self,
        console: Console,
        api: Simulator,
        sleep: Callable[[float], object],
        async_sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.stage = Stage(console)
        self._api = api
        self._settings = documented_settings()
        self._sleep = sleep
        self._async_sleep = async_sleep
        self._countdown = Countdown(console, sleep, async_sleep)
        self._recorder = Recorder()

    def show(self, scenario: Scenario, number: str) -> tuple[bool, ErrorInfo | None]:
        """Run one scenario; whether it ended otherwise than expected, and its error."""
        stage, api = self.stage, self._api
        stage.heading(scenario.title, scenario.point, number=number)
        api.reset()
        gate = Gate(_READY)
        api.enqueue(*scenario.replies(gate))
        self._countdown.restart()
        if scenario.way == "stream_async":
            outcome = asyncio.run(self._run_async(gate))
        else:
            outcome = self._run(scenario, gate)
        waterfall = read_waterfall(self._recorder.take())
        info = None if outcome.error is None else error_info(outcome.error)
        stage.outcome(outcome, info)
        stage.waterfall(waterfall)
        ids = [request.request_id for request in api.requests]
        found = problems(scenario, outcome, info, waterfall, ids)
        attempts = f"{len(ids)} attempt{'' if len(ids) == 1 else 's'} on the wire"
        stage.verdict(found, f"as expected, with {attempts}")
        return bool(found), info

    def _run(self, scenario: Scenario, gate: Gate) -> Outcome:
        def pace() -> None:
            gate.release()
            self._sleep(_PACE)

        # No proxy of the environment stands before the loopback.
        transport = http_client(
            settings=self._settings, tracer_provider=self._recorder.provider, trust_env=False
        )
        replace_sleep(transport, self._countdown.sleep)
        key = "sk-wrong" if scenario.wrong_key else self._api.api_key
        with openai.OpenAI(
            base_url=self._api.base_url, api_key=key, http_client=transport
        ) as client:
            if scenario.way == "stream":
                return stream(client, MODEL, pace)
            return complete(client, MODEL)

    async def _run_async(self, gate: Gate) -> Outcome:
        async def pace() -> None:
            gate.release()
            await self._async_sleep(_PACE)

        await checkpoint()  # loads anyio's backend, which the first attempt would do otherwise
        transport = async_http_client(
            settings=self._settings, tracer_provider=self._recorder.provider, trust_env=False
        )
        replace_sleep(transport, self._countdown.async_sleep)
        async with openai.AsyncOpenAI(
            base_url=self._api.base_url, api_key=self._api.api_key, http_client=transport
        ) as client:
            return await stream_async(client, MODEL, pace)


def problems(
    scenario: Scenario,
    outcome: Outcome,
    info: ErrorInfo | None,
    waterfall: Waterfall,
    request_ids: Sequence[str | None],
) -> list[str]:
    """Where a scenario ended otherwise than it had to: a line for each difference.

    Args:
        scenario: With what had to come of it.
        outcome: What the application saw.
        info: Its error, explained.
        waterfall: The spans.
        request_ids: What the simulator answered with, one for each request on the wire.
    """
    expected = scenario.expected
    rows = waterfall.rows
    failed = expected.error is not None
    last = request_ids[-1] if request_ids else None
    differences: tuple[tuple[str, object, object], ...] = (
        ("text", expected.text, outcome.text),
        ("exception", expected.error, None if outcome.error is None else type(outcome.error)),
        ("error code", expected.code, None if info is None else info.code),
        ("request ID of the error", last if failed else None, info and info.request_id),
        ("attempts on the wire", expected.attempts, len(request_ids)),
        ("spans of calls", 1, sum(row.kind == "call" for row in rows)),
        ("spans of attempts", expected.attempts, sum(row.kind == "attempt" for row in rows)),
        ("failed calls in the trace", int(failed), _failed_calls(waterfall)),
        ("request IDs in the trace", list(request_ids), _traced_ids(waterfall)),
    )
    return [
        f"{what}: expected {_shown(wanted)}, got {_shown(got)}"
        for what, wanted, got in differences
        if wanted != got
    ]


def _failed_calls(waterfall: Waterfall) -> int:
    return sum(row.kind == "call" and row.state == "failed" for row in waterfall.rows)


def _traced_ids(waterfall: Waterfall) -> list[str | None]:
    return [row.request_id for row in waterfall.rows if row.kind == "attempt"]


def _shown(value: object) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)
