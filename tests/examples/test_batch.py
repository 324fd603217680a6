# SPDX-License-Identifier: Apache-2.0
"""`examples/batch.py` as a program."""

from __future__ import annotations

import json
import re
import runpy
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cline_transport.simulator import ReceivedRequest, Reply, Simulator

from .program import COMMAND, EXAMPLES, OFF, asked, environment, halves, run

EXAMPLE = "batch.py"


@cache
def example() -> dict[str, Any]:
    """What the file defines."""
    return runpy.run_path(str(EXAMPLES / EXAMPLE))


def write_prompts(folder: Path, ids: str) -> None:
    lines = [json.dumps({"id": one, "prompt": f"Say {one}"}) + "\n" for one in ids]
    (folder / "prompts.jsonl").write_text("".join(lines))


def batch(api: Simulator, folder: Path, *options: str, **more: str) -> tuple[int, str, str]:
    done = run(EXAMPLE, api, "prompts.jsonl", "answers.jsonl", *options, cwd=folder, **more)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def answers(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    by_id = {line["id"]: line for line in lines}
    assert len(by_id) == len(lines)
    return by_id


def asked_for(request: ReceivedRequest) -> str:
    """The ID of the prompt."""
    return asked(request).removeprefix("Say ")


def echo(request: ReceivedRequest) -> Reply:
    return Reply.stream(f"This is {asked_for(request)}", cost=0.5)


def echo_but(
    failing: str, *failures: Reply
) -> tuple[Callable[[ReceivedRequest], Reply], Counter[str]]:
    """Answers all, but fails one ID with the first failures, the last of them for ever after."""
    attempts: Counter[str] = Counter()

    def respond(request: ReceivedRequest) -> Reply:
        one = asked_for(request)
        attempts[one] += 1
        if one != failing or attempts[one] > len(failures):
            return echo(request)
        return failures[attempts[one] - 1]

    return respond, attempts


def test_each_answer_is_whole_although_a_stream_failed_half_way(
    cline_api: Simulator, tmp_path: Path
) -> None:
    half = Reply.stream("This was half", error="server_error", error_after=2)
    cut = Reply.stream("This was half", cut_after=2)
    cline_api.respond, attempts = echo_but("b", half, cut)
    write_prompts(tmp_path, "abc")
    status, printed, told = batch(cline_api, tmp_path)
    assert (status, printed) == (0, "3 of 3 answered, 0 failed, 0 not asked\n")
    assert re.fullmatch(r"━+ 3/3 0 failed \S+\s*", told)
    assert attempts == {"a": 1, "b": 3, "c": 1}
    found = answers(tmp_path)
    assert {one: line["text"] for one, line in found.items()} == {
        "a": "This is a",
        "b": "This is b",
        "c": "This is c",
    }
    assert found["b"].pop("request_id") in {one.request_id for one in cline_api.requests}
    assert found["b"] == {
        "id": "b",
        "text": "This is b",
        "model": "anthropic/claude-sonnet-4.6",
        "finish_reason": "stop",
        "attempts": 3,
        "cost": 0.5,
    }


def test_what_failed_is_reported_and_alone_asked_again(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.respond, attempts = echo_but("b", Reply.stream("No", error="content_filter"))
    write_prompts(tmp_path, "abc")
    status, printed, told = batch(cline_api, tmp_path)
    assert (status, printed) == (1, "2 of 3 answered, 1 failed, 0 not asked\n")
    assert "3/3 1 failed" in told
    refused = next(one for one in cline_api.requests if asked_for(one) == "b")
    _, found, report = told.partition("\nb\n1. Error code and message: content_filter: ")
    assert found
    assert f"3. Request ID (x-request-id): {refused.request_id}\n" in report
    assert set(answers(tmp_path)) == {"a", "c"}

    status, printed, told = batch(cline_api, tmp_path)
    assert (status, printed) == (0, "3 of 3 answered, 0 failed, 0 not asked\n")
    assert "1/1 0 failed" in told
    assert attempts == {"a": 1, "b": 2, "c": 1}
    assert set(answers(tmp_path)) == {"a", "b", "c"}


def test_a_line_that_was_half_written_is_asked_again(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.respond = echo
    write_prompts(tmp_path, "ab")
    (tmp_path / "answers.jsonl").write_text('{"id": "a", "text": "Good"}\n{"id": "b", "te')
    status, printed, _ = batch(cline_api, tmp_path)
    assert (status, printed) == (0, "2 of 2 answered, 0 failed, 0 not asked\n")
    assert [asked_for(request) for request in cline_api.requests] == ["b"]
    assert {one: line["text"] for one, line in answers(tmp_path).items()} == {
        "a": "Good",
        "b": "This is b",
    }


def test_it_stops_at_what_every_prompt_would_fail_with(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.respond = lambda _: Reply.error(402)
    write_prompts(tmp_path, "abcdefghij")
    status, printed, told = batch(cline_api, tmp_path, "--at-once", "3")
    assert (status, printed) == (1, "0 of 10 answered, 3 failed, 7 not asked\n")
    assert len(cline_api.requests) == 3
    assert told.count("What to do: Add credits at app.cline.bot") == 3


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_so_it_does_where_the_code_is_a_word(
    cline_api: Simulator, tmp_path: Path, status: int
) -> None:
    cline_api.respond = lambda _: Reply.error(status, code="invalid_api_key")
    write_prompts(tmp_path, "abcde")
    code, printed, _ = batch(cline_api, tmp_path, "--at-once", "1")
    assert (code, printed) == (1, "0 of 5 answered, 1 failed, 4 not asked\n")
    assert len(cline_api.requests) == 1


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_a_word_about_one_prompt_stops_no_other(
    cline_api: Simulator, tmp_path: Path, code: str
) -> None:
    cline_api.respond, _ = echo_but("a", Reply.error(403, code=code))
    write_prompts(tmp_path, "abc")
    status, printed, _ = batch(cline_api, tmp_path, "--at-once", "1")
    assert (status, printed) == (1, "2 of 3 answered, 1 failed, 0 not asked\n")


def test_a_character_in_two_chunks_is_kept(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.enqueue(Reply.raw(headers={"content-type": "text/event-stream"}, body=halves()))
    write_prompts(tmp_path, "a")
    assert batch(cline_api, tmp_path)[:2] == (0, "1 of 1 answered, 0 failed, 0 not asked\n")
    assert answers(tmp_path)["a"]["text"] == "Hi \N{GRINNING FACE}!"


def events(*data: str) -> Reply:
    """A stream of these events, whatever they are, and its end."""
    body = [f"data: {one}\n\n".encode() for one in (*data, "[DONE]")]
    return Reply.raw(headers={"content-type": "text/event-stream"}, body=body)


@pytest.mark.parametrize("more", [{}, OFF], ids=["on", "off"])
@pytest.mark.parametrize(
    "odd",
    [
        Reply.html(200),
        events('{"choices": null}'),
        events('{"choices": [{"index": 0, "finish_reason": "stop"}]}'),
        events('"hello"'),
    ],
    ids=["page", "null", "no delta", "text"],
)
def test_an_answer_of_another_shape_is_a_failure_among_others(
    cline_api: Simulator, tmp_path: Path, odd: Reply, more: dict[str, str]
) -> None:
    cline_api.respond, _ = echo_but("a", odd)
    write_prompts(tmp_path, "ab")
    status, printed, told = batch(cline_api, tmp_path, "--at-once", "1", **more)
    assert (status, printed) == (1, "1 of 2 answered, 1 failed, 0 not asked\n")
    assert "\na\n1. Error code and message: no_completion: " in told
    assert set(answers(tmp_path)) == {"b"}


def test_half_an_answer_is_none_also_without_the_transport(
    cline_api: Simulator, tmp_path: Path
) -> None:
    cline_api.respond, _ = echo_but("a", Reply.stream("This was half", cut_after=2))
    write_prompts(tmp_path, "ab")
    status, printed, _ = batch(cline_api, tmp_path, **OFF)
    assert (status, printed) == (1, "1 of 2 answered, 1 failed, 0 not asked\n")
    assert set(answers(tmp_path)) == {"b"}


def test_without_the_transport_there_is_no_record(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.respond = echo
    write_prompts(tmp_path, "ab")
    status, printed, _ = batch(cline_api, tmp_path, **OFF)
    assert (status, printed) == (0, "2 of 2 answered, 0 failed, 0 not asked\n")
    assert answers(tmp_path)["a"] == {"id": "a", "text": "This is a"}


def test_it_can_be_stopped_and_gone_on_with(cline_api: Simulator, tmp_path: Path) -> None:
    cline_api.respond, _ = echo_but("b", Reply.stall())
    write_prompts(tmp_path, "abc")
    options = ["prompts.jsonl", "answers.jsonl", "--at-once", "1"]
    with subprocess.Popen(  # noqa: S603 -- our own interpreter, our own example
        [*COMMAND, EXAMPLES / EXAMPLE, *options],
        cwd=tmp_path,
        env=environment(cline_api),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        cline_api.wait_for(lambda: len(cline_api.requests) == 2, timeout=60)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.endswith("\nStopped. Run it again to go on.\n")
    assert "Traceback" not in told
    assert set(answers(tmp_path)) == {"a"}
    assert batch(cline_api, tmp_path)[:2] == (0, "3 of 3 answered, 0 failed, 0 not asked\n")
    assert set(answers(tmp_path)) == {"a", "b", "c"}


def test_a_wrong_file_is_told_before_anything_is_asked(
    cline_api: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "prompt": "Say a"}\n\n{"id": "b"}\n')
    status, printed, told = batch(cline_api, tmp_path)
    assert (status, printed) == (2, "")
    assert told == 'prompts.jsonl, line 3: must be {"id": "...", "prompt": "..."}\n'
    assert cline_api.requests == []
    assert not (tmp_path / "answers.jsonl").exists()


def test_so_is_an_answers_file_that_cannot_be(cline_api: Simulator, tmp_path: Path) -> None:
    write_prompts(tmp_path, "a")
    done = run(EXAMPLE, cline_api, "prompts.jsonl", Path("nowhere/answers.jsonl"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r".*No such file or directory: .*answers\.jsonl'\n", done.stderr)
    assert cline_api.requests == []


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_so_is_a_number_at_once_that_is_none(
    cline_api: Simulator, tmp_path: Path, number: str
) -> None:
    write_prompts(tmp_path, "a")
    status, printed, told = batch(cline_api, tmp_path, f"--at-once={number}")
    assert (status, printed) == (2, "")
    assert "error: argument --at-once: " in told
    assert cline_api.requests == []


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        ("read_prompts", '{"id": 1, "prompt": "Say a"}\n', "file, line 1: must be"),
        ("read_prompts", "[]\n", "file, line 1: must be"),
        ("read_prompts", "text\n", "file, line 1: must be"),
        ("read_prompts", '{"id": "a", "prompt": "\\ud83d"}\n', "file, line 1: has half of a"),
        ("read_prompts", '{"id": "\\ude00", "prompt": ""}\n', "file, line 1: has half of a"),
        ("read_prompts", '{"id": "a", "prompt": ""}\n' * 2, "file, line 2: the ID 'a' is there"),
        ("answered", '{"id": "a"}\ntext\n', "file, line 2: is no answer"),
        ("answered", "[]\n", "file, line 1: is no answer"),
    ],
)
def test_each_wrong_line_is_named(tmp_path: Path, reader: str, text: str, message: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=message):
        example()[reader](tmp_path / "file")
    assert (tmp_path / "file").read_text() == text
