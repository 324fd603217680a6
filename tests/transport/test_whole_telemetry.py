# SPDX-License-Identifier: Apache-2.0
"""Everything that each of the demo's scenarios tells: span, attribute, point and line, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from cline_transport.simulator import Gate, Simulator

from .rig import CHAT, Rig
from .telling import log_lines_exported, told_logs, told_metrics, told_spans

openai = pytest.importorskip("openai", reason="the demo's scenarios name the SDK's exceptions")
from cline_transport._demo.scenarios import SCENARIOS, Scenario  # noqa: E402 -- see above


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error as it is told: on the attempt, on the call, in the log.

    `reason` says why it was not retried; `seconds` how long was waited for the next attempt.
    `cooldown` is for how long the API asked all to wait.
    """

    code: str
    message: str = ""
    phase: str = "immediate"
    reason: str = ""
    seconds: float = 0
    cooldown: float = 0
    on_attempt: bool = True


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happens in a scenario: each attempt's status, and its failure if it has one."""

    attempts: list[tuple[int, Failure | None]]
    finish: str | None = None
    answered: bool = False
    first_chunk: float | None = None


GOOD = (200, None)
STREAMED = Story(attempts=[GOOD], finish="stop", answered=True, first_chunk=0.0)
TABLE = {
    "A stream that goes well": STREAMED,
    "A completion that goes well": Story(attempts=[GOOD], finish="stop", answered=True),
    "429 with Retry-After: 2, then good": Story(
        attempts=[(429, Failure(code="429", seconds=2, cooldown=2)), GOOD],
        finish="stop",
        answered=True,
        first_chunk=2.0,
    ),
    "500 once, then good": Story(
        attempts=[(500, Failure(code="500", seconds=1)), GOOD], finish="stop", answered=True
    ),
    "502 until the retries are spent": Story(
        attempts=[
            (502, Failure(code="502", seconds=1)),
            (502, Failure(code="502", seconds=2)),
            (502, Failure(code="502", seconds=4)),
            (502, Failure(code="502", message="Upstream provider error", reason="exhausted")),
        ],
    ),
    "A wrong key": Story(
        attempts=[(401, Failure(code="401", message="Invalid API key", reason="not_retryable"))]
    ),
    "403 as a web page, from a proxy before the API": Story(
        attempts=[
            (403, Failure(code="403", message="Access denied by proxy", reason="not_retryable"))
        ],
    ),
    "An error in the middle of a stream": Story(
        attempts=[
            (
                200,
                Failure(
                    code="server_error",
                    message="Upstream provider failed during generation.",
                    phase="mid_stream",
                    on_attempt=False,  # its span has ended with the headers and the first content
                ),
            )
        ],
        finish="error",
        answered=True,
        first_chunk=0.0,
    ),
    "An error before the first word": Story(
        attempts=[(200, Failure(code="rate_limit", seconds=1)), GOOD],
        finish="stop",
        answered=True,
        first_chunk=1.0,
    ),
    "An answer that just stops": Story(
        attempts=[
            (
                200,
                Failure(
                    code="stream_truncated",
                    message="The stream ended before the answer did",
                    phase="mid_stream",
                    on_attempt=False,
                ),
            )
        ],
        answered=True,
        first_chunk=0.0,
    ),
    "503 once, then good, with AsyncOpenAI": Story(
        attempts=[(503, Failure(code="503", seconds=1)), GOOD],
        finish="stop",
        answered=True,
        first_chunk=1.0,
    ),
}


@dataclass
class Wire:
    """What is different in each run: the port and the IDs."""

    port: int
    request_ids: list[str]
    response_id: str | None
    streamed: bool

    @property
    def server(self) -> dict[str, Any]:
        return {"server.address": "127.0.0.1", "server.port": self.port}

    @property
    def chat(self) -> dict[str, Any]:
        return {
            **self.server,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "127.0.0.1",
            "gen_ai.request.model": "cline/ok",
        }


def last_failure(story: Story) -> Failure | None:
    return story.attempts[-1][1]


def completes(story: Story) -> bool:
    return last_failure(story) is None


def waited(story: Story) -> float:
    return sum(failure.seconds for _, failure in story.attempts if failure)


def expected_call(story: Story, wire: Wire) -> dict[str, Any]:
    failure = last_failure(story)
    attributes: dict[str, Any] = {
        **wire.chat,
        "gen_ai.request.stream": wire.streamed,
        "cline.request_id": wire.request_ids[-1],
        "cline.retry.count": len(story.attempts) - 1,
    }
    if story.answered:
        attributes["gen_ai.response.id"] = wire.response_id
        attributes["gen_ai.response.model"] = "cline/ok"
    if story.finish:
        attributes["gen_ai.response.finish_reasons"] = (story.finish,)
    if story.first_chunk is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = story.first_chunk
        attributes["cline.stream.completed"] = completes(story)
    if completes(story):
        attributes |= {
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.cache_read.input_tokens": 4,
            "cline.usage.cost": 0.00042,
        }
    if failure:
        attributes |= {
            "error.type": failure.code,
            "cline.error.code": failure.code,
            "cline.error.message": failure.message,
            "cline.error.phase": failure.phase,
        }
    return {
        "scope": "ours",
        "name": "chat cline/ok",
        "kind": "CLIENT",
        "parent": None,
        "status": "ERROR" if failure else "UNSET",
        "description": failure.message if failure else None,
        "events": [],
        "attributes": attributes,
    }


def expected_attempt(story: Story, wire: Wire, index: int) -> dict[str, Any]:
    status, failure = story.attempts[index]
    marked = failure is not None and failure.on_attempt
    attributes: dict[str, Any] = {
        "http.method": "POST",
        "http.url": f"http://127.0.0.1:{wire.port}/api/v1/chat/completions",
        "http.status_code": status,
        "http.response.header.x-request-id": (wire.request_ids[index],),
        "cline.request_id": wire.request_ids[index],
    }
    if index:
        attributes["http.request.resend_count"] = index
    if failure and marked:
        attributes |= {"error.type": failure.code, "cline.error.code": failure.code}
    return {
        "scope": "http",
        "name": "POST",
        "kind": "CLIENT",
        "parent": 0,
        "status": "ERROR" if marked else "UNSET",
        "description": None,
        "events": [],
        "attributes": attributes,
    }


def expected_metrics(story: Story, wire: Wire) -> list[tuple[Any, ...]]:
    failure = last_failure(story)
    chat = {**wire.chat, "gen_ai.response.model": "cline/ok"} if story.answered else wire.chat
    failed = {"error.type": failure.code} if failure else {}
    points: list[tuple[Any, ...]] = [
        ("ours", "gen_ai.client.operation.duration", "s", {**chat, **failed}, (1, waited(story)))
    ]
    for status in {status for status, _ in story.attempts}:
        attributes = {"http.method": "POST", "http.scheme": "http", "http.status_code": status}
        count = sum(other == status for other, _ in story.attempts)
        points.append(("http", "http.client.duration", "ms", attributes, (count,)))
    if story.first_chunk is not None:
        name = "gen_ai.client.operation.time_to_first_chunk"
        points.append(("ours", name, "s", chat, (1, story.first_chunk)))
    if completes(story):
        points.append(("ours", "cline.client.cost", "{credit}", chat, 0.00042))
        for kind, tokens in (("input", 12), ("output", 5)):
            attributes = {**chat, "gen_ai.token.type": kind}
            name = "gen_ai.client.token.usage"
            points.append(("ours", name, "{token}", attributes, (1, tokens)))
    retried = [failure.code for _, failure in story.attempts[:-1] if failure]
    for code in set(retried):
        attributes = {**wire.chat, "error.type": code}
        points.append(("ours", "cline.client.retries", "{retry}", attributes, retried.count(code)))
    return points


def expected_logs(story: Story, wire: Wire) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number, (_, failure) in enumerate(story.attempts, 1):
        if failure is None:
            continue
        if failure.cooldown:
            held = f"cooldown of {failure.cooldown:.2f} s for 127.0.0.1"
            lines.append(
                {
                    "event": None,
                    "severity": "INFO",
                    "body": f"{held}: calls with the same key wait",
                    "in the call": True,
                    "attributes": {},
                }
            )
        request_id = wire.request_ids[number - 1]
        body = (
            f"retry {number} of POST 127.0.0.1 in {failure.seconds:.2f} s: {failure.code} "
            f"(request ID {request_id})"
        )
        if number == len(story.attempts):
            why = f", not retried: {failure.reason}" if failure.reason else ""
            body = (
                f"POST 127.0.0.1 failed after {number} attempt(s): {failure.code}: "
                f"{failure.message} (request ID {request_id}, {failure.phase}{why})"
            )
        lines.append(
            {
                "event": None,
                "severity": "WARN" if number == len(story.attempts) else "INFO",
                "body": body,
                "in the call": True,
                "attributes": {
                    "error.type": failure.code,
                    "cline.error.code": failure.code,
                    "cline.request_id": request_id,
                },
            }
        )
    return lines


def run(rig: Rig, api: Simulator, scenario: Scenario) -> Wire:
    """Let a scenario happen; return what the wire had of it."""
    gate = Gate()
    gate.release(100)
    api.enqueue(*scenario.replies(gate))
    client = rig.client(rig.transport(traced=True))
    streamed = scenario.way != "complete"
    secret = "sk-unknown" if scenario.wrong_key else api.api_key
    with log_lines_exported(rig):
        answer = client.post(
            f"{api.base_url}/chat/completions",
            json={**CHAT, "stream": streamed},
            headers={"authorization": f"Bearer {secret}"},
        )
    _, _, rest = answer.body.partition(b'"id":"gen-')
    response_id = "gen-" + rest.partition(b'"')[0].decode() if rest else None
    request_ids = [request.request_id or "" for request in api.requests]
    return Wire(api.port, request_ids, response_id, streamed)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_a_scenario_tells_this_and_no_more(rig: Rig, api: Simulator, scenario: Scenario) -> None:
    story = TABLE[scenario.title]
    wire = run(rig, api, scenario)
    attempts = [expected_attempt(story, wire, index) for index in range(len(story.attempts))]
    assert told_spans(rig) == [expected_call(story, wire), *attempts]
    assert told_metrics(rig) == sorted(expected_metrics(story, wire), key=repr)
    assert told_logs(rig) == expected_logs(story, wire)


def test_every_scenario_has_its_story() -> None:
    assert list(TABLE) == [scenario.title for scenario in SCENARIOS]
