# SPDX-License-Identifier: Apache-2.0
"""`examples/fleet/fleet.py`, as a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.limits.redis_server import RedisServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet" / "fleet.py"
SUMMARY = re.compile(
    r"(\d+) processes in (\d+\.\d) s: (\d+) calls done, (\d+) failed; (\d+) of (\d+) requests "
    r"refused \(\d+\.\d%\); (\d+) served a minute of 600 allowed; (\d+) at once of 10 allowed\."
)


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [sys.executable, "-W", "error", EXAMPLE, *options],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def summary(done: subprocess.CompletedProcess[str]) -> list[int]:
    """The whole numbers of the closing line."""
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert lines
    assert all("waiting" in line for line in lines)
    found = SUMMARY.fullmatch(last)
    assert found is not None, last
    return [int(number) for number in found.groups() if "." not in number]


def test_a_fleet_that_shares_is_not_refused(own_redis: RedisServer) -> None:
    options = ["--no-live", "--seconds", "3", "--processes", "3"]
    processes, done, failed, refused, requests, rate, most = summary(
        run(*options, REDIS_URL=own_redis.url)
    )
    assert (processes, failed) == (3, 0)
    assert refused <= requests / 100
    assert 0 < done <= requests
    # 600 and a burst of 2; in so short a time a second at the start counts.
    assert 400 <= rate <= 650
    assert most <= 10


def test_a_fleet_that_does_not_share_is_refused() -> None:
    options = ["--no-live", "--seconds", "3", "--processes", "3", "--no-share"]
    _, _, _, refused, requests, _, _ = summary(run(*options))
    assert refused > requests / 10


def test_it_says_what_is_missing() -> None:
    done = run("--no-live", REDIS_URL="", PATH="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "set REDIS_URL" in done.stderr
