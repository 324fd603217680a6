# SPDX-License-Identifier: Apache-2.0
"""`examples/streaming.py` as a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from cline_transport.simulator import Reply, Simulator

from .program import asked, halves, run

EXAMPLE = "streaming.py"
KEPT = "answer.partial.txt"


def test_it_prints_the_answer(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(Reply.error(429, retry_after=0), Reply.stream("Hello, hallo"))
    done = run(EXAMPLE, cline_api, "Say hello", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Hello, hallo\n")
    assert [asked(request) for request in cline_api.requests] == ["Say hello"] * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply.stream("Hello, hallo there", error="server_error", error_after=2), "server_error"),
        (Reply.stream("Hello, hallo there", cut_after=2), "stream_truncated"),
        (Reply.stream("Hello, hallo there", cut_after=2, then="close"), "connection_closed"),
    ],
    ids=["error", "truncated", "connection lost"],
)
def test_it_keeps_what_was_delivered_and_reports(
    cline_api: Simulator, tmp_path: Path, reply: Reply, code: str
) -> None:
    cline_api.enqueue(reply)
    done = run(EXAMPLE, cline_api, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "Hello, hallo\n")
    assert (tmp_path / KEPT).read_text() == "Hello, hallo"
    assert f"1. Error code and message: {code}: " in done.stderr
    assert f"Request ID (x-request-id): {cline_api.requests[0].request_id}\n" in done.stderr
    assert done.stderr.endswith(f"What was delivered is in {KEPT}\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_character_in_two_chunks_is_kept(
    cline_api: Simulator, tmp_path: Path, encoding: str
) -> None:
    headers = {"content-type": "text/event-stream"}
    cline_api.enqueue(Reply.raw(headers=headers, body=halves(end=False)))
    done = run(EXAMPLE, cline_api, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout) == (1, "Hi ??!\n")
    assert "Traceback" not in done.stderr
    assert (tmp_path / KEPT).read_text(encoding="utf-8") == "Hi \N{GRINNING FACE}!"


def test_a_character_that_the_terminal_lacks_ends_nothing(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.enqueue(Reply.stream("Caf\N{LATIN SMALL LETTER E WITH ACUTE}, please"))
    done = run(EXAMPLE, cline_api, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Caf?, please\n", "")


def test_where_it_is_kept_can_be_said(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(Reply.stream("Hello", error="server_error"))
    run(EXAMPLE, cline_api, "--keep", "here.txt", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["here.txt"]


def test_nothing_is_kept_where_nothing_was_delivered(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(Reply.error(402))
    done = run(EXAMPLE, cline_api, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "\n")
    assert "What to do: Add credits at app.cline.bot" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
