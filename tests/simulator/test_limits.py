# SPDX-License-Identifier: Apache-2.0
"""Limits: what is refused, what is counted, and that nothing is counted for ever."""

from __future__ import annotations

import math
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import h2.events
import httpx
import pytest

from cline_transport.simulator import ApiLimits, Gate, LimitCounts, ReceivedRequest, Reply
from cline_transport.simulator._connection import LINGER_0
from cline_transport.simulator._limits import SLACK, TokenBucket

from .peer import Peer
from .support import PATIENCE, ask, busy, idle, on_the_wire, read_all, read_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from cline_transport.simulator import Simulator

    Dial = Callable[[bytes], socket.socket]

BIG = 1 << 25  # more than all buffers between the server and a client that does not read


# The values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"requests_per_minute": -1}, "requests_per_minute must be > 0 (got -1)"),
        ({"requests_per_minute": 0}, "requests_per_minute must be > 0 (got 0)"),
        ({"requests_per_minute": math.nan}, "requests_per_minute must be > 0 (got nan)"),
        ({"requests_per_minute": math.inf}, "requests_per_minute must be finite (got inf)"),
        ({"requests_per_minute": 1, "burst": 0}, "burst must be >= 1 (got 0)"),
        ({"concurrent": 0}, "concurrent must be >= 1 (got 0)"),
        ({"burst": 1}, "burst needs requests_per_minute (got None)"),
    ],
)
def test_a_limit_out_of_range_is_a_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ApiLimits(**options)


# Over the socket


def test_over_the_rate_it_is_429_with_the_time_to_wait(
    cline_api: Simulator, http: httpx.Client
) -> None:
    cline_api.limits = ApiLimits(requests_per_minute=0.001, burst=2)
    cline_api.enqueue(*[Reply.completion("queued")] * 3)
    asked: list[ReceivedRequest] = []
    cline_api.respond = asked.append
    answers = [http.post("chat/completions", json=ask(False)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    first, second, third = cline_api.requests
    bucket = TokenBucket(0.001 / 60, 2, first.time)
    assert bucket.take(first.time) == bucket.take(second.time) == 0
    # Not the time as it is now: the one at which the request was complete.
    wait = math.ceil(bucket.take(third.time) - SLACK)
    assert answers[2].headers["retry-after"] == str(wait)
    assert answers[2].json() == {
        "error": {
            "code": 429,
            "message": "Rate limit exceeded: 0.001 requests per minute",
            "metadata": {},
        }
    }
    assert third.request_id == answers[2].headers["x-request-id"]
    # Nobody else was asked, and nothing taken from the queue.
    assert len(asked) == 2
    cline_api.limits = None
    answer = http.post("chat/completions", json=ask(False)).json()
    assert answer["choices"][0]["message"]["content"] == "queued"
    idle(cline_api)
    assert cline_api.counts == LimitCounts(3, 1, 0, 0, 1)


def test_nothing_else_has_limits(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.limits = limits = ApiLimits(requests_per_minute=0.001, concurrent=1)
    assert cline_api.limits is limits
    for _ in range(2):
        assert http.get("models").status_code == 200
        assert http.get("chat/completions").status_code == 404
        assert http.post("completions").status_code == 404
    assert cline_api.counts == LimitCounts(0, 0, 0, 0, 0)
    # Wherever the endpoint is, and whatever it says.
    assert http.post("/v9/chat/completions?q=1").status_code == 404
    assert http.post("chat/completions", json=ask(False)).status_code == 429
    other = {"authorization": "Bearer other"}
    assert http.post("chat/completions", headers=other).status_code == 401
    assert cline_api.counts.served == 2


def test_over_the_concurrency_it_is_429_without_a_time(
    cline_api: Simulator, http: httpx.Client, dial: Dial
) -> None:
    gate = Gate()
    cline_api.limits = ApiLimits(concurrent=5)
    cline_api.respond = lambda _: Reply.raw(body=b"x", gate=gate)
    socks = [dial(on_the_wire(ask())) for _ in range(8)]
    heads = [read_until(sock, b"\r\n\r\n") for sock in socks]
    assert sorted(head.split()[1] for head in heads) == [b"200"] * 5 + [b"429"] * 3
    assert cline_api.counts == LimitCounts(5, 0, 3, 5, 5)
    answer = http.post("chat/completions", json=ask(False))
    assert (answer.status_code, answer.headers.get("retry-after")) == (429, None)
    assert answer.json()["error"]["message"] == "Too many concurrent requests: 5"
    # What is in progress is known whatever the limits were.
    cline_api.reset()
    assert cline_api.counts == LimitCounts(0, 0, 0, 5, 5)
    cline_api.limits = None
    cline_api.limits = ApiLimits(concurrent=1)
    gate.release(4)
    busy(cline_api, 1)
    assert http.post("chat/completions", json=ask(False)).status_code == 429
    gate.release(2)
    idle(cline_api)
    assert http.post("chat/completions", json=ask(False)).text == "x"
    idle(cline_api)
    assert cline_api.counts == LimitCounts(1, 0, 1, 0, 5)


def test_limits_may_be_set_from_any_thread(cline_api: Simulator, http: httpx.Client) -> None:
    def change() -> None:
        for n in range(1, 200):
            cline_api.limits = ApiLimits(requests_per_minute=6e6 * n, concurrent=n)
            assert cline_api.counts.concurrent <= 1

    thread = threading.Thread(target=change)
    thread.start()
    answers = {http.post("chat/completions", json=ask(False)).status_code for _ in range(30)}
    thread.join()
    assert answers == {200}
    idle(cline_api)
    assert cline_api.counts == LimitCounts(30, 0, 0, 0, 1)


# Nothing is counted for ever


def is_free(api: Simulator, http: httpx.Client) -> None:
    """Nothing is in progress, and so one request is served."""
    idle(api)
    api.limits = ApiLimits(concurrent=1)
    assert http.post("chat/completions", json=ask(False)).status_code == 200
    idle(api)
    assert api.counts.most_concurrent >= 1
    assert api.counts.concurrency_refused == 0


# Replies that do not end by themselves, each with a gate of its own.
HELD: dict[str, Callable[[], Reply]] = {
    "gate": lambda: Reply.stream("Hi", gate=Gate()),
    "stall": Reply.stall,
    "stall in the body": lambda: Reply.stream("Hi", cut_after=1, then="stall"),
    "delay": lambda: Reply.ok(delay=3600),
    "drip": lambda: Reply.ok(drip=(1, 3600)),
    "too big for the buffers": lambda: Reply.raw(body=b"x" * BIG),
}


@pytest.mark.parametrize("kind", list(HELD))
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_that_goes_is_not_counted(
    cline_api: Simulator, http: httpx.Client, dial: Dial, kind: str, how: str
) -> None:
    cline_api.enqueue(*[HELD[kind]()] * 2)
    socks = [dial(on_the_wire(ask())) for _ in range(2)]
    busy(cline_api, 2)
    for sock in socks:
        if how == "half-close":
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        elif how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        sock.close()
    is_free(cline_api, http)
    assert cline_api.counts.served == 3


@pytest.mark.parametrize("kind", list(HELD)[:-1])
def test_a_client_that_has_no_more_time_is_not_counted(
    cline_api: Simulator, http: httpx.Client, kind: str
) -> None:
    cline_api.enqueue(HELD[kind]())
    with pytest.raises(httpx.ReadTimeout):
        http.post("chat/completions", json=ask(), timeout=httpx.Timeout(PATIENCE, read=0.01))
    is_free(cline_api, http)


@pytest.mark.parametrize(
    "reply",
    [
        Reply.close(),
        Reply.reset(),
        Reply.stream(cut_after=1, then="close"),
        Reply.stream(cut_after=1, then="reset"),
        Reply.raw(headers={"content-length": "1"}, body=b"too long"),
    ],
    ids=lambda reply: f"{reply.status} {reply.then}",
)
def test_a_response_that_is_lost_is_not_counted(
    cline_api: Simulator, http: httpx.Client, reply: Reply
) -> None:
    cline_api.enqueue(reply)
    with pytest.raises(httpx.TransportError):
        http.post("chat/completions", json=ask())
    is_free(cline_api, http)


def test_a_request_that_is_not_answered_is_not_counted(
    cline_api: Simulator, http: httpx.Client
) -> None:
    def respond(request: ReceivedRequest) -> Reply:
        raise LookupError(request.path)

    cline_api.respond = respond
    with pytest.raises(httpx.TransportError):
        http.post("chat/completions", json=ask())
    cline_api.respond = None
    is_free(cline_api, http)


@pytest.mark.parametrize("kind", list(HELD))
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_stopping_ends_what_is_in_progress(
    cline_api: Simulator, dial: Dial, h2_dial: Callable[..., Peer], kind: str, version: str
) -> None:
    cline_api.enqueue(HELD[kind]())
    if version == "HTTP/2":
        h2_dial().ask()
    else:
        dial(on_the_wire(ask()))
    busy(cline_api)
    cline_api.stop()
    assert cline_api.counts == LimitCounts(1, 0, 0, 0, 1)


@pytest.mark.parametrize("kind", list(HELD))
@pytest.mark.parametrize("how", ["reset", "close", "goodbye", "nonsense"])
def test_a_stream_that_is_given_up_is_not_counted(
    cline_api: Simulator, http: httpx.Client, h2_dial: Callable[..., Peer], kind: str, how: str
) -> None:
    cline_api.enqueue(*[HELD[kind]()] * 2)
    peer = h2_dial()
    streams = [peer.ask(), peer.ask()]
    busy(cline_api, 2)
    if how == "reset":
        peer.h2.reset_stream(streams[0])
        peer.flush()
        busy(cline_api, 1)
        peer.h2.reset_stream(streams[1])
        peer.flush()
    elif how == "close":
        peer.sock.close()
    elif how == "goodbye":
        peer.h2.close_connection()
        peer.flush()
    else:
        peer.sock.sendall(b"\x00" * 64)
    is_free(cline_api, http)
    assert cline_api.counts.served == 3


def test_streams_are_counted_one_by_one(
    cline_api: Simulator, http: httpx.Client, h2_dial: Callable[..., Peer]
) -> None:
    gate = Gate()
    cline_api.limits = ApiLimits(concurrent=2)
    cline_api.respond = lambda _: Reply.raw(body=[b"x"], gate=gate)
    peer = h2_dial()
    first, second, third = (peer.ask() for _ in range(3))
    for stream, status in ((first, "200"), (second, "200"), (third, "429")):
        response = peer.until(h2.events.ResponseReceived, stream)
        assert dict(response.headers)[":status"] == status
    gate.release(2)
    ended = {peer.until(h2.events.StreamEnded).stream_id for _ in range(3)}
    assert ended == {first, second, third}
    idle(cline_api)
    assert cline_api.counts == LimitCounts(2, 0, 1, 0, 2)
    cline_api.respond = lambda _: Reply.raw(body=[b"x"], then="reset")
    peer.until(h2.events.StreamReset, peer.ask())
    cline_api.respond = None
    cline_api.reset()
    is_free(cline_api, http)


def test_a_close_ends_the_other_streams_in_the_count_too(
    cline_api: Simulator, http: httpx.Client, h2_dial: Callable[..., Peer]
) -> None:
    cline_api.enqueue(Reply.stall(), Reply.stream(gate=Gate()), Reply.close())
    peer = h2_dial()
    for _ in range(3):
        peer.ask()
    read_all(peer.sock)
    is_free(cline_api, http)
