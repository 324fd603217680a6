# SPDX-License-Identifier: Apache-2.0
"""`examples/observability/phoenix.py` with a real Phoenix: what it stores of the tour's traces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cline_transport._demo.scenarios import SCENARIOS, Scenario
from cline_transport._demo.tour import MODEL

EXAMPLE = Path(__file__).parents[2] / "examples" / "observability" / "phoenix.py"
CALL = f"chat {MODEL}"

# Installed once, then cached: the first time takes as long as the downloads.
INSTALL_SECONDS = 240
RUN_SECONDS = 120
STORE_SECONDS = 20


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again until it holds, or the time is over: another process cannot be waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "CLINE_", "PHOENIX_", "VIRTUAL_ENV", "COVERAGE_"))
    }
    return inherited | {"UV_PYTHON_DOWNLOADS": "never"}


def uv(*arguments: str | Path, seconds: float) -> str:
    """The output of uv; the test is skipped where it fails, for it installs from elsewhere."""
    command = shutil.which("uv")
    if command is None:
        pytest.skip("Phoenix has an environment of its own, which needs uv")
    try:
        return subprocess.run(  # noqa: S603 -- the tool that installs this project
            [command, *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds,
        ).stdout.strip()
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"uv could not install Phoenix: {exc.stderr.strip()[-2000:]}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"uv did not install Phoenix within {seconds} s")


@pytest.fixture(scope="module")
def interpreter() -> str:
    """The Python of the environment that the example's own header asks for."""
    uv("sync", "--script", EXAMPLE, "--python", sys.executable, seconds=INSTALL_SECONDS)
    return uv("python", "find", "--script", EXAMPLE, seconds=60)


@dataclass
class Shown:
    """A running example and what it has printed."""

    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def url(self) -> str:
        return self.lines[-1].removeprefix("Phoenix serves them at ").partition(" ")[0]

    def read(self, path: str) -> Any:
        parts = urlsplit(self.url)
        assert parts.hostname == "127.0.0.1"
        connection = HTTPConnection(parts.hostname, parts.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            return json.loads(answer.read())
        finally:
            connection.close()

    def spans(self) -> list[dict[str, Any]]:
        """What Phoenix has stored, by its own API."""
        return list(self.read("/v1/projects/cline-transport/spans?limit=1000")["data"])


@pytest.fixture(scope="module")
def shown(interpreter: str) -> Iterator[Shown]:
    process = subprocess.Popen(  # noqa: S603 -- our own example
        [interpreter, "-W", "error", EXAMPLE, "--port", "0"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    # Whatever happens to the test, neither it nor Phoenix is left behind.
    watchdog = threading.Timer(RUN_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.endswith("until Ctrl+C.\n"):
                break
        else:
            pytest.fail("\n".join(["the example ended:", *lines]))
        yield Shown(process, lines)
    finally:
        watchdog.cancel()
        with suppress(ProcessLookupError):  # as it should be
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def listening(example: int) -> set[str]:
    """The addresses on which an example's Phoenix listens, as Linux writes them."""
    (server,) = Path(f"/proc/{example}/task/{example}/children").read_text().split()
    held: set[str] = set()
    for descriptor in Path(f"/proc/{server}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.add(str(descriptor.readlink()))
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{server}/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in held:
                found.add(address.partition(":")[0])
    return found


def expected_statuses(scenario: Scenario) -> list[str]:
    """The status of each attempt's HTTP span: of headers, unless HTTP itself failed."""
    last = scenario.expected.code
    failed = isinstance(last, int)
    return ["ERROR"] * (scenario.expected.attempts - 1) + ["ERROR" if failed else "UNSET"]


def assert_is_the_trace(scenario: Scenario, spans: list[dict[str, Any]]) -> None:
    expected = scenario.expected
    error = expected.error is not None
    spans.sort(key=lambda span: (span["start_time"], span["name"]))
    (root,) = (span for span in spans if span["parent_id"] is None)
    (call,) = (span for span in spans if span["parent_id"] == root["context"]["span_id"])
    attempts = [span for span in spans if span["parent_id"] == call["context"]["span_id"]]
    assert len(spans) == 2 + len(attempts) == 2 + expected.attempts

    # Names, kinds and statuses.
    assert (root["name"], root["span_kind"]) == (scenario.title, "CHAIN")
    assert (call["name"], call["span_kind"]) == (CALL, "LLM")
    assert {(span["name"], span["span_kind"]) for span in attempts} == {("POST", "UNKNOWN")}
    assert root["status_code"] == call["status_code"] == ("ERROR" if error else "UNSET")
    assert [span["status_code"] for span in attempts] == expected_statuses(scenario)

    # What the transport tells.
    told = call["attributes"]
    ids = [span["attributes"]["cline.request_id"] for span in attempts]
    assert len(set(ids)) == expected.attempts
    assert told["cline.request_id"] == ids[-1]
    assert told["cline.retry.count"] == expected.attempts - 1
    assert told.get("cline.stream.completed") == (None if scenario.way == "complete" else not error)
    assert [span["attributes"].get("http.request.resend_count") for span in attempts] == [
        None,
        *range(1, expected.attempts),
    ]
    failure = {name: told.get(name) for name in ("error.type", "cline.error.code")}
    code = str(expected.code) if error else None
    assert failure == {"error.type": code, "cline.error.code": code}
    assert told.get("cline.error.message") == (call["status_message"] or None)
    phase = "immediate" if isinstance(expected.code, int) else "mid_stream"
    assert told.get("cline.error.phase") == (phase if error else None)

    # What Phoenix makes of the GenAI conventions, and that it keeps them.
    assert told["gen_ai.request.model"] == told["llm.model_name"] == MODEL
    assert told.get("gen_ai.response.id") == json.loads(told.get("output.value", "{}")).get("id")
    assert told.get("llm.token_count.prompt") == told.get("gen_ai.usage.input_tokens")
    assert told.get("llm.token_count.completion") == told.get("gen_ai.usage.output_tokens")
    assert ("llm.token_count.total" in told) is not error
    assert ("cline.usage.cost" in told) is not error


def test_phoenix_shows_every_scenario_of_the_tour(shown: Shown) -> None:
    count = sum(2 + scenario.expected.attempts for scenario in SCENARIOS)
    assert wait_for(lambda: len(shown.spans()) >= count, STORE_SECONDS)
    traces: dict[str, list[dict[str, Any]]] = {}
    for span in shown.spans():
        traces.setdefault(span["context"]["trace_id"], []).append(span)

    # Each title is followed by the address of its trace.
    printed = dict(zip(shown.lines[1:-1:2], shown.lines[2:-1:2], strict=True))
    assert list(printed) == [scenario.title for scenario in SCENARIOS]
    for scenario in SCENARIOS:
        url, _, trace_id = printed[scenario.title].strip().partition("/redirects/traces/")
        assert url == shown.url
        assert_is_the_trace(scenario, traces.pop(trace_id))
    assert traces == {}

    # HTTP and gRPC, on 127.0.0.1 alone.
    if sys.platform == "linux":
        assert listening(shown.process.pid) == {"0100007F", "0000000000000000FFFF00000100007F"}

    # It ends, and Phoenix with it. (SIGINT does the same, but is ignored in background jobs.)
    shown.process.terminate()
    rest, _ = shown.process.communicate()
    assert (shown.process.returncode, rest) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        shown.spans()
