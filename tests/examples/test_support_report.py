# SPDX-License-Identifier: Apache-2.0
"""`examples/support_report.py` as a program."""

from __future__ import annotations

import re
from pathlib import Path

from cline_transport.simulator import Reply, Simulator

from .program import OFF, run

EXAMPLE = "support_report.py"
SECONDS = re.compile(r"\d+\.\d s")
END = re.compile(
    r"Time: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\nHost: 127\.0\.0\.1\n"
    r"Versions: cline-transport \S+, openai \S+, Python \S+\n"
)


def report(api: Simulator, cwd: Path, **more: str) -> str:
    """What is saved, without its end and without figures of time."""
    done = run(EXAMPLE, api, "What is the secret?", cwd=cwd, **more)
    assert done.returncode == 1
    text = (cwd / "support-report.txt").read_text()
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert api.api_key not in done.stderr
    start, blank, end = text.rpartition("\n\n")
    assert blank
    assert END.fullmatch(end)
    return SECONDS.sub("_ s", start)


def test_an_answer_needs_no_report(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(Reply.stream("Hello"))
    done = run(EXAMPLE, cline_api, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
    assert list(tmp_path.iterdir()) == []


def test_an_http_error_with_all_attempts(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(Reply.error(429), Reply.error(503), Reply.error(503), Reply.error(503))
    text = report(cline_api, tmp_path)
    ids = [request.request_id for request in cline_api.requests]
    assert text == (
        "1. Error code and message: 503: Service temporarily down\n"
        "2. Model ID: anthropic/claude-sonnet-4.6\n"
        f"3. Request ID (x-request-id): {ids[3]}\n"
        "4. Immediate or mid-stream: immediate (HTTP error 503)\n"
        "Attempts: 4\n"
        "What to do: Retry after a short delay\n"
        "\n"
        "Attempts, the last one at the bottom:\n"
        f"  1. waited _ s, took _ s: HTTP 429, 429, x-request-id {ids[0]}\n"
        f"  2. waited _ s, took _ s: HTTP 503, 503, x-request-id {ids[1]}\n"
        f"  3. waited _ s, took _ s: HTTP 503, 503, x-request-id {ids[2]}\n"
        f"  4. waited _ s, took _ s: HTTP 503, 503, x-request-id {ids[3]}"
    )


def test_an_error_in_a_stream(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(
        Reply.error(503),
        Reply.stream("A secret is", error="rate_limit", request_id=None),
    )
    text = report(cline_api, tmp_path)
    first = cline_api.requests[0].request_id
    assert text == (
        "1. Error code and message: rate_limit: Rate limit hit during generation.\n"
        "2. Model ID: anthropic/claude-sonnet-4.6\n"
        "3. Request ID (x-request-id): not present\n"
        '4. Immediate or mid-stream: mid-stream (finish_reason: "error")\n'
        "Attempts: 2\n"
        "What to do: Wait and retry with exponential backoff\n"
        "\n"
        "Attempts, the last one at the bottom:\n"
        f"  1. waited _ s, took _ s: HTTP 503, 503, x-request-id {first}\n"
        "  2. waited _ s, took _ s: HTTP 200, rate_limit, x-request-id not present"
    )


def test_without_the_transport_there_are_no_attempts_to_tell(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.enqueue(Reply.error(402))
    text = report(cline_api, tmp_path, **OFF)
    assert text.startswith("1. Error code and message: 402: ")
    assert text.endswith("\nWhat to do: Add credits at app.cline.bot")


def test_a_character_that_the_terminal_lacks_ends_nothing(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.enqueue(Reply.stream("Caf\N{LATIN SMALL LETTER E WITH ACUTE}"))
    done = run(EXAMPLE, cline_api, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Caf?\n", "")


def test_a_connection_without_a_response(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(*[Reply.close()] * 9)
    lines = report(cline_api, tmp_path).splitlines()
    assert len(cline_api.requests) == 4
    assert lines[0].startswith("1. Error code and message: connection_closed: ")
    assert lines[3] == "4. Immediate or mid-stream: no response (the connection failed)"
    assert lines[4] == "Attempts: 4"
    assert lines[8:] == [
        f"  {number}. waited _ s, took _ s: no response, connection_closed, "
        "x-request-id not present"
        for number in range(1, 5)
    ]
