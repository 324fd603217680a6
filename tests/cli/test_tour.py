# SPDX-License-Identifier: Apache-2.0
"""The tour, with waits that take no time."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import openai
import pytest

from cline_transport._demo.calls import Outcome
from cline_transport._demo.scenarios import SCENARIOS, Expected, Scenario
from cline_transport._demo.stage import Stage, make_console
from cline_transport._demo.tour import problems, run_tour
from cline_transport._demo.waiting import Countdown
from cline_transport._demo.waterfall import Waterfall
from cline_transport.errors import ErrorInfo
from cline_transport.simulator import Gate, Reply

from .conftest import Terminal

PACE = 0.04


class Sleeps:
    """Notes how long was slept, and sleeps not."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def sync(self, seconds: float) -> None:
        self.all.append(seconds)

    async def of_async(self, seconds: float) -> None:
        self.all.append(seconds)

    @property
    def waits(self) -> list[float]:
        return [seconds for seconds in self.all if seconds != PACE]


def tour(
    scenarios: Sequence[Scenario] = SCENARIOS, file: io.StringIO | None = None
) -> tuple[int, str, Sleeps]:
    sleeps = Sleeps()
    out = io.StringIO() if file is None else file
    status = run_tour(
        make_console(file=out), scenarios=scenarios, sleep=sleeps.sync, async_sleep=sleeps.of_async
    )
    return status, out.getvalue(), sleeps


def named(title: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if title in scenario.title)


def test_every_scenario_ends_as_documented() -> None:
    status, out, sleeps = tour()
    assert status == 0, out
    for number, scenario in enumerate(SCENARIOS, start=1):
        assert f"{number}/{len(SCENARIOS)}  {scenario.title}" in out
    # 429 with Retry-After: 2; 500; 502 to exhaustion; 503. The jitter only adds, up to a quarter.
    least = [2, 1, 1, 2, 4, 1, 1]
    assert len(sleeps.waits) == len(least)
    assert all(a <= b <= a * 1.25 for a, b in zip(least, sleeps.waits, strict=True))
    assert out.count("as expected, with 1 attempt on the wire") == 6
    assert out.count("as expected, with 2 attempts on the wire") == 4
    assert out.count("as expected, with 4 attempts on the wire") == 1
    assert "each ended as expected" in out.splitlines()[-1]
    assert '4. Immediate or mid-stream: mid-stream (finish_reason: "error")' in out


def test_what_is_no_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, _ = tour([named("wrong key"), named("500 once"), named("middle of a stream")])
    assert "\x1b" not in out
    assert "\r" not in out
    assert max(map(len, out.splitlines())) == 100
    assert all(line == line.rstrip() for line in out.splitlines())
    assert "s before attempt 2\n" in out
    assert "openai.AuthenticationError" in out
    assert "sk-wrong" not in out


def test_a_terminal_gets_colours_and_a_countdown(terminal: Terminal) -> None:
    status, out, sleeps = tour([named("500 once"), named("AsyncOpenAI")], terminal)
    assert status == 0
    assert "\x1b[32m" in out
    assert "before attempt 2" in out
    # A refresh each tenth of a second, together no shorter than the documented second.
    assert max(sleeps.all) <= 0.1 + 1e-9
    assert 2.0 <= sum(sleeps.waits) <= 2.5 + 1e-6


def test_no_color(terminal: Terminal) -> None:
    console = make_console(no_color=True, file=terminal)
    assert run_tour(console, scenarios=[named("wrong key")]) == 0
    assert "\x1b[3" not in terminal.getvalue()


def test_a_dumb_terminal_gets_no_countdown(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    _, out, sleeps = tour([named("500 once")], terminal)
    assert "\x1b" not in out
    assert len(sleeps.waits) == 1


def test_a_terminal_is_not_used_in_its_full_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert make_console(file=Terminal()).width == 110


def test_an_output_that_cannot_encode_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    sleeps = Sleeps()

    def replies(_: Gate) -> tuple[Reply, ...]:
        return (Reply.error(401, message="caf\u00e9"),)

    scenario = replace(named("wrong key"), title="\u65e5\u672c", replies=replies)
    assert run_tour(make_console(file=file), scenarios=[scenario], sleep=sleeps.sync) == 0
    file.seek(0)
    out = file.read()
    assert "message     caf?" in out
    assert "1/1  ??" in out
    assert "`- POST attempt 1" in out


def test_a_countdown_on_a_terminal_that_cannot_encode_lines() -> None:
    class AsciiTerminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    file = AsciiTerminal(io.BytesIO(), encoding="ascii")
    sleeps = Sleeps()
    countdown = Countdown(make_console(file=file), sleeps.sync, sleeps.of_async)
    countdown.sleep(0.25)
    asyncio.run(countdown.async_sleep(0.05))
    assert sleeps.all == [0.1, 0.1, pytest.approx(0.05), 0.05]
    file.seek(0)
    out = file.read()
    assert "waiting 0.2 s before attempt 2" in out
    assert "before attempt 3" in out


def test_an_interrupted_countdown_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    countdown = Countdown(make_console(file=terminal), interrupted, asyncio.sleep)
    with pytest.raises(KeyboardInterrupt):
        countdown.sleep(1.0)
    hide, show = "\x1b[?25l", "\x1b[?25h"
    out = terminal.getvalue()
    assert out.count(hide) == out.count(show) == 1


@pytest.mark.parametrize("way", ["stream", "stream_async"])
def test_an_error_ends_a_stream_of_either_colour(way: Literal["stream", "stream_async"]) -> None:
    scenario = replace(named("middle of a stream"), way=way)
    status, out, _ = tour([scenario])
    assert status == 0, out


def test_a_scenario_that_ends_otherwise_is_told_and_counted(terminal: Terminal) -> None:
    good = named("completion that goes well")
    scenarios = [
        replace(good, expected=Expected(text="Bye.", error=openai.RateLimitError, code=429)),
        good,
    ]
    status, out, _ = tour(scenarios)
    assert status == 1
    assert "✗ text: expected 'Bye.', got 'Hello there from the simulator.'" in out
    assert "✗ exception: expected RateLimitError, got None" in out
    assert "✗ error code: expected 429, got None" in out
    assert "✗ failed calls in the trace: expected 1, got 0" in out
    assert out.splitlines()[-1].startswith("  ✗ 1 of 2 scenarios in ")
    status, out, _ = tour(scenarios[:1], terminal)
    assert status == 1
    assert "\x1b[1;31m✗ exception" in out


def test_a_call_that_never_reached_the_wire_is_a_problem() -> None:
    found = problems(
        named("completion that goes well"),
        Outcome(text="Hello there from the simulator."),
        None,
        Waterfall(rows=(), duration=0),
        [],
    )
    assert found == [
        "attempts on the wire: expected 1, got 0",
        "spans of calls: expected 1, got 0",
        "spans of attempts: expected 1, got 0",
    ]


def test_the_tour_ignores_the_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "false")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__ENABLED", "false")
    monkeypatch.setenv("CLINE_TRANSPORT_LIMITS__REQUESTS_PER_MINUTE", "1")
    monkeypatch.setenv("CLINE_TRANSPORT_LIMITS__BURST", "1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY")
    status, out, _ = tour([named("500 once")])
    assert status == 0, out


def test_without_an_sdk_there_is_no_trace_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    with pytest.raises(ValueError, match="OTEL_SDK_DISABLED"):
        tour()


def test_the_log_is_quiet_meanwhile_and_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger("cline_transport").handlers)
    tour([named("wrong key")])
    assert capsys.readouterr().err == ""
    assert logging.getLogger("cline_transport").handlers == before


def test_a_long_message_is_wrapped_in_its_column() -> None:
    out = io.StringIO()
    info = ErrorInfo(code=400, message="word " * 30)
    Stage(make_console(file=out)).outcome(Outcome(text="", error=RuntimeError()), info)
    lines = out.getvalue().splitlines()
    assert "                       status      none (immediate)" in lines
    start = lines.index("                       message     " + " ".join(["word"] * 13))
    assert lines[start + 1] == " " * 35 + " ".join(["word"] * 13)
    assert lines[start + 2] == " " * 35 + " ".join(["word"] * 4)


def test_a_failure_of_which_nothing_is_known_shows_its_message() -> None:
    out = io.StringIO()
    stage = Stage(make_console(file=out), secrets=("sk-1", ""))
    stage.outcome(Outcome(text="", error=RuntimeError("no sk-1 \x1b[2J here")), None)
    assert out.getvalue().split() == [
        "the", "application", "saw", "builtins.RuntimeError",
        "message", "no", "[redacted]", "[2J", "here",
    ]  # fmt: skip
