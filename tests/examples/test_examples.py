# SPDX-License-Identifier: Apache-2.0
"""Every example runs, as a program, against the simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cline_transport.simulator import Reply, Simulator

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, api: Simulator) -> subprocess.CompletedProcess[str]:
    environment = {"CLINE_BASE_URL": api.base_url, "CLINE_API_KEY": api.api_key}
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [sys.executable, "-W", "error", EXAMPLES / name],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_has_a_test_here(example: str) -> None:
    assert f'"{example}"' in Path(__file__).read_text()


def test_streaming_prints_the_answer(cline_api: Simulator) -> None:
    cline_api.enqueue(Reply.error(429, retry_after=0), Reply.stream("Hello, hallo"))
    done = run("streaming.py", cline_api)
    assert (done.returncode, done.stdout) == (0, "Hello, hallo\n")


def test_streaming_keeps_what_was_delivered_and_reports(cline_api: Simulator) -> None:
    cline_api.enqueue(Reply.stream("Hello, hallo", error="server_error", request_id="req_1"))
    done = run("streaming.py", cline_api)
    assert (done.returncode, done.stdout) == (1, "Hello, hallo\n-- the answer ends here --\n")
    assert "Request ID (x-request-id): req_1" in done.stderr
