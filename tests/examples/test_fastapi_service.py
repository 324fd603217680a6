# SPDX-License-Identifier: Apache-2.0
"""`examples/fastapi_service.py`: a real server in a process of its own, between caller and API."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cline_transport.simulator import Gate, Reply, Simulator

from .program import COMMAND, EXAMPLES, asked, environment

EXAMPLE = "fastapi_service.py"
SERVING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+) ")
PROMPT = {"prompt": "Say hello"}
# The transport is not to wait for it.
AT_ONCE = {"x-should-retry": "false"}


@dataclass
class Service:
    """The running example, the API that it calls, and what it has logged."""

    api: Simulator
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list[str])
    port: int = 0
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/chat"

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := SERVING.search(line):
                self.port = int(found[1])
                self.ready.set()
        self.ready.set()


@contextmanager
def serve(folder: Path, **more: str) -> Generator[Service, None, None]:
    """The example with its API, for as long as the block runs."""
    with (
        Simulator(api_key="sk-service-0123456789abcdef") as api,
        subprocess.Popen(  # noqa: S603 -- our own interpreter, our own example
            [*COMMAND, EXAMPLES / EXAMPLE, "--port", "0"],
            cwd=folder,
            env=environment(api, **more),
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        service = Service(api, process)
        reader = threading.Thread(target=service.read_log)
        reader.start()
        try:
            service.ready.wait()
            assert service.port, "".join(service.log)
            yield service
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(30)
            reader.join()
    log = "".join(service.log)
    assert status == 0
    assert "Application shutdown complete" in log
    assert "Traceback" not in log
    assert api.api_key not in log
    assert PROMPT["prompt"] not in log


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    running.api.reset()
    return running


def post(service: Service, body: object = PROMPT) -> httpx.Response:
    return httpx.post(service.url, json=body, trust_env=False, timeout=30)


def events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events: each one's name and data."""
    *blocks, end = text.split("\n\n")
    assert end == ""
    found = [re.fullmatch(r"event: (\w+)\ndata: (.*)", block) for block in blocks]
    return [(one[1], json.loads(one[2])) for one in found if one]


def words(*texts: str) -> list[tuple[str, Any]]:
    return [("message", {"text": text}) for text in texts]


def problem(service: Service, status: int, title: str, code: int | str, **more: Any) -> Any:
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": f"No answer from the model: {title}",
        "code": code,
        "request_id": service.api.requests[-1].request_id,
        "retryable": False,
        **more,
    }


# --- an answer ---


def test_an_answer_comes_as_events(service: Service) -> None:
    service.api.enqueue(Reply.stream("Hello you\nthere", finish_reason="length"))
    response = post(service)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert events(response.text) == [
        *words("Hello", " you", "\nthere"),
        ("done", {"finish_reason": "length"}),
    ]
    assert [asked(request) for request in service.api.requests] == ["Say hello"]


def test_each_word_is_passed_on_when_it_comes(service: Service) -> None:
    gate = Gate(2)  # the role and the first word
    service.api.enqueue(Reply.stream("Hello you", gate=gate))
    with httpx.stream("POST", service.url, json=PROMPT, trust_env=False, timeout=30) as response:
        pieces = response.iter_text()
        assert events(next(pieces)) == words("Hello")
        gate.release(10)
        assert events("".join(pieces)) == [*words(" you"), ("done", {"finish_reason": "stop"})]


def test_an_answer_without_words_is_none_the_less_one(service: Service) -> None:
    service.api.enqueue(Reply.stream("", finish_reason="content_filter"))
    response = post(service)
    assert response.status_code == 200
    assert events(response.text) == [("done", {"finish_reason": "content_filter"})]


def test_what_was_refused_at_first_is_an_answer(service: Service) -> None:
    service.api.enqueue(Reply.error(429, retry_after_ms=1), Reply.stream("Hello"))
    response = post(service)
    assert response.status_code == 200
    assert events(response.text)[0] == ("message", {"text": "Hello"})
    assert len(service.api.requests) == 2


def test_all_callers_share_one_pool_of_connections(service: Service) -> None:
    service.api.enqueue(*[Reply.stream("Hello")] * 3)
    for _ in range(3):
        assert post(service).status_code == 200
    assert len({request.connection for request in service.api.requests}) == 1


# --- no answer ---


def test_a_rate_limit_and_how_long_to_wait_are_passed_on(service: Service) -> None:
    service.api.enqueue(Reply.error(429, retry_after=3600))
    response = post(service)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3600"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == problem(service, 429, "Too Many Requests", 429, retryable=True)
    assert len(service.api.requests) == 1


@pytest.mark.parametrize(
    ("reply", "status", "title", "code", "more"),
    [
        (
            Reply.error(400, message="Bad prompt"),
            400,
            "Bad Request",
            400,
            {"detail": "Bad prompt"},
        ),
        (
            Reply.stream(error="context_length_exceeded", error_after=0),
            400,
            "Bad Request",
            "context_length_exceeded",
            {"detail": "The input exceeds the model's maximum context length."},
        ),
        (Reply.error(402, message="Secret"), 502, "Bad Gateway", 402, {}),
        (Reply.error(404, message="Secret"), 502, "Bad Gateway", 404, {}),
        (
            Reply.error(429, code="insufficient_quota", message="Secret", retry_after=1),
            502,
            "Bad Gateway",
            "insufficient_quota",
            {},
        ),
        (
            Reply.error(429, code="too_fast", headers=AT_ONCE),
            429,
            "Too Many Requests",
            "too_fast",
            {"retryable": True},
        ),
        (Reply.html(502, headers=AT_ONCE), 502, "Bad Gateway", 502, {"retryable": True}),
        (
            Reply.error(503, headers=AT_ONCE),
            503,
            "Service Unavailable",
            503,
            {"retryable": True},
        ),
        (Reply.error(504, headers=AT_ONCE), 504, "Gateway Timeout", 504, {"retryable": True}),
        (
            Reply.stream(error="server_error", error_after=0, headers=AT_ONCE),
            502,
            "Bad Gateway",
            "server_error",
            {"retryable": True},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, (int, str)) else "",
)
def test_a_failure_before_the_first_word_has_the_right_status(
    service: Service, reply: Reply, status: int, title: str, code: int | str, more: dict[str, Any]
) -> None:
    service.api.enqueue(reply)
    response = post(service)
    assert response.status_code == status
    assert "retry-after" not in response.headers
    assert response.json() == problem(service, status, title, code, **more)
    assert "Secret" not in response.text


def test_so_has_one_after_more_than_the_transport_holds_back(service: Service) -> None:
    comments = 20_000  # over 256 KiB
    service.api.enqueue(Reply.stream(error="content_filter", error_after=0, comments=comments))
    response = post(service)
    assert response.status_code == 400
    told = problem(service, 400, "Bad Request", "content_filter")
    assert response.json() == told | {"detail": "Content was blocked by a safety filter."}


def test_our_key_is_not_told_to_callers(service: Service) -> None:
    key = service.api.api_key
    service.api.enqueue(Reply.error(401, message=f"Invalid API key {key}"))
    response = post(service)
    assert response.json() == problem(service, 502, "Bad Gateway", 401)
    assert key not in response.text


def test_a_question_that_is_none_is_not_asked(service: Service) -> None:
    assert post(service, {"prompt": ""}).status_code == 422
    assert service.api.requests == []


def test_patience_ends_although_the_api_says_that_it_is_alive(tmp_path: Path) -> None:
    with serve(tmp_path, CHAT_PATIENCE="0.3") as service:
        # A comment every 50 ms and, for as long as any caller would wait, no word.
        service.api.enqueue(Reply.stream("Hello", comments=100_000, drip=(26, 0.05)))
        response = post(service)
        assert response.status_code == 504
        assert response.headers["content-type"] == "application/problem+json"
        expected = problem(service, 504, "Gateway Timeout", "read_timeout", request_id=None)
        assert response.json() == expected
        service.api.wait_for(lambda: service.api.connections_open == 0)
        assert len(service.api.requests) == 1


# --- half an answer ---


@pytest.mark.parametrize(
    ("reply", "title", "status", "code"),
    [
        (
            Reply.stream("Hello you", error="rate_limit"),
            "Too Many Requests",
            429,
            "rate_limit",
        ),
        (Reply.stream("Hello you", cut_after=2), "Bad Gateway", 502, "stream_truncated"),
        (
            Reply.stream("Hello you", cut_after=2, then="close"),
            "Bad Gateway",
            502,
            "connection_closed",
        ),
    ],
    ids=["error", "truncated", "connection lost"],
)
def test_a_failure_after_the_first_word_ends_the_stream_with_an_error(
    service: Service, reply: Reply, title: str, status: int, code: str
) -> None:
    service.api.enqueue(reply)
    response = post(service)
    assert response.status_code == 200
    assert events(response.text) == [
        *words("Hello", " you"),
        ("error", problem(service, status, title, code, retryable=True)),
    ]


# --- callers who leave ---


def test_a_caller_who_leaves_half_way_ends_the_call(service: Service) -> None:
    service.api.enqueue(Reply.stream("Hello you", gate=Gate(2)))
    with httpx.stream("POST", service.url, json=PROMPT, trust_env=False, timeout=30) as response:
        assert events(next(response.iter_text())) == words("Hello")
    service.api.wait_for(lambda: service.api.connections_open == 0)


@pytest.mark.parametrize(
    "reply",
    [Reply.stall(), Reply.stream("Hello", gate=Gate())],
    ids=["no response", "no word"],
)
def test_so_does_one_who_leaves_before_the_first_word(service: Service, reply: Reply) -> None:
    service.api.enqueue(reply)
    body = json.dumps(PROMPT).encode()
    head = (
        "POST /chat HTTP/1.1\r\nhost: service\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", service.port))) as caller:
        caller.sendall(head.encode() + body)
        service.api.wait_for(lambda: len(service.api.requests) == 1)
    service.api.wait_for(lambda: service.api.connections_open == 0)
    assert len(service.api.requests) == 1


# --- what it says of itself ---


def test_its_schema_has_the_problems(service: Service) -> None:
    schema = httpx.get(service.url.replace("/chat", "/openapi.json"), trust_env=False).json()
    responses = schema["paths"]["/chat"]["post"]["responses"]
    assert set(responses["200"]["content"]) == {"text/event-stream"}
    assert set(responses["429"]["content"]) == {"application/problem+json"}


def test_it_needs_a_key(cline_api: Simulator, tmp_path: Path) -> None:
    variables = environment(cline_api)
    del variables["CLINE_API_KEY"]
    done = subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [*COMMAND, EXAMPLES / EXAMPLE, "--port", "0"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "KeyError: 'CLINE_API_KEY'" in done.stderr
