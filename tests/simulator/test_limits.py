# SPDX-License-Identifier: Apache-2.0
"""Limits: what is refused, what is counted, and that nothing is counted for ever."""

from __future__ import annotations

import math
import re
import socket
import threading
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import h2.events
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport.simulator import ApiLimits, Gate, LimitCounts, ReceivedRequest, Reply
from cline_transport.simulator._connection import LINGER_0
from cline_transport.simulator._limits import SLACK, Limiter, TokenBucket

from .peer import Peer
from .support import PATIENCE, ask, on_the_wire, read_all, read_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from cline_transport.simulator import Simulator

    Dial = Callable[[bytes], socket.socket]

BIG = 1 << 25  # more than all buffers between the server and a client that does not read


def idle(api: Simulator) -> None:
    """Wait until no request is in progress."""
    api.wait_for(lambda: api.counts.concurrent == 0)


def busy(api: Simulator, n: int = 1) -> None:
    """Wait until so many requests are in progress."""
    api.wait_for(lambda: api.counts.concurrent == n)


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


# The bucket, with a clock of our own

rates = st.floats(0.001, 1000)
bursts = st.integers(1, 20)
# What comes at once, within a moment, and after a while.
pauses = st.sampled_from([0.0, 1e-9]) | st.floats(0, 0.01) | st.floats(0, 100)


@given(
    start=st.floats(0, 1e6),
    rules=st.lists(st.tuples(rates, bursts), min_size=1, max_size=3),
    asked=st.lists(st.tuples(pauses, st.integers(0, 20)), max_size=60),
)
def test_no_window_has_more_than_the_burst_and_the_rate(
    start: float, rules: list[tuple[float, int]], asked: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(*rules[0], start)
    accepted: list[float] = []
    times = list(accumulate((pause for pause, _ in asked), initial=start))[1:]
    for now, (_, choice) in zip(times, asked, strict=True):
        if 0 < choice < len(rules):
            bucket.change(*rules[choice], now)
        if not bucket.take(now):
            accepted.append(now)
    rate, burst = (max(values) for values in zip(*rules, strict=True))
    for first, begin in enumerate(accepted):
        for last, end in enumerate(accepted[first:], 1):
            assert last <= burst + rate * (end - begin) + 1e-3


@given(start=st.floats(0, 1e6), rate=rates, burst=bursts, times=st.lists(pauses, max_size=40))
def test_who_waits_as_long_as_told_is_accepted(
    start: float, rate: float, burst: int, times: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    now = start
    for pause in times:
        now += pause
        wait = bucket.take(now)
        if wait:
            assert 0 < wait < 1.00001 / rate
            now += wait
            assert bucket.take(now) == 0


def test_a_bucket_fills_up_to_its_burst_and_no_further() -> None:
    bucket = TokenBucket(2, 3, 0)
    assert [bucket.take(0) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert bucket.take(0.25) == 0.25
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 0.5]


def test_another_rate_begins_with_what_the_old_one_left() -> None:
    bucket = TokenBucket(1, 4, 0)
    assert [bucket.take(0) for _ in range(4)] == [0] * 4
    bucket.change(10, 4, 2)  # two seconds at the old rate
    assert [bucket.take(2) for _ in range(3)] == [0, 0, 0.1]
    bucket.change(0.5, 1, 100)  # full: four, of which the new burst has room for one
    assert [bucket.take(100) for _ in range(2)] == [0, 2]
    bucket.change(0.5, 9, 100)
    assert bucket.take(100) == 2


# The limiter, the same way


def refused(reply: Reply | None) -> str:
    """What the reply that refuses a request says, `""` for a request that is accepted."""
    if reply is None:
        return ""
    assert reply.status == 429
    assert isinstance(reply.body, bytes)
    after = dict(reply.headers).get("retry-after")
    said = re.search(rb'"message": "([^"]*)"', reply.body)
    assert said is not None
    return said[1].decode() + ("" if after is None else f" ({after})")


def test_a_refused_request_counts_for_neither_limit() -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=6, burst=2, concurrent=1))
    many = "Too many concurrent requests: 1"
    often = "Rate limit exceeded: 6 requests per minute"
    assert [refused(limiter.admit("a", 0)) for _ in range(3)] == ["", many, many]
    limiter.finished("a")
    assert refused(limiter.admit("a", 0)) == ""  # the second of the burst
    limiter.finished("a")
    assert [refused(limiter.admit("a", now)) for now in (0, 0.5, 9.25)] == [
        f"{often} (10)",
        f"{often} (10)",
        f"{often} (1)",
    ]
    assert limiter.counts == LimitCounts(2, 3, 2, 0, 1)
    assert refused(limiter.admit("a", 10)) == ""
    assert refused(limiter.admit("a", 10)) == many  # over both
    assert limiter.counts == LimitCounts(3, 3, 3, 1, 1)


def test_who_has_to_wait_for_less_than_a_second_is_told_a_second() -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=6000.5))
    # One second's worth.
    assert [refused(limiter.admit("a", 0)) for _ in range(101)] == [
        *[""] * 100,
        "Rate limit exceeded: 6000.5 requests per minute (1)",
    ]


@given(seconds=st.integers(1, 10_000))
def test_whole_seconds_are_not_rounded_up(seconds: int) -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=60 / seconds))
    assert refused(limiter.admit("a", 0.1)) == ""
    assert refused(limiter.admit("a", 0.1)).endswith(f" ({seconds})")
    assert refused(limiter.admit("a", 0.1 + seconds)) == ""


def test_each_key_has_its_own() -> None:
    limiter = Limiter(ApiLimits(requests_per_minute=1, concurrent=1))
    assert [bool(refused(limiter.admit(key, 0))) for key in "abab"] == [False, False, True, True]
    assert limiter.counts == LimitCounts(2, 0, 2, 2, 2)
    limiter.finished("a")
    assert refused(limiter.admit("b", 0)).startswith("Too many")
    assert refused(limiter.admit("a", 0)) == "Rate limit exceeded: 1 requests per minute (60)"


def test_limits_can_change() -> None:
    limiter = Limiter(None)
    assert [refused(limiter.admit("a", 0)) for _ in range(3)] == [""] * 3
    limiter.change(ApiLimits(concurrent=3), 0)
    assert refused(limiter.admit("a", 0)) == "Too many concurrent requests: 3"
    limiter.change(ApiLimits(concurrent=4, requests_per_minute=60, burst=1), 0)
    assert refused(limiter.admit("a", 0)) == ""
    for _ in range(4):
        limiter.finished("a")
    limiter.change(ApiLimits(requests_per_minute=1), 0.5)  # half a request is left of the old rate
    assert refused(limiter.admit("a", 0.5)).endswith("(30)")
    limiter.change(ApiLimits(concurrent=1), 1)
    limiter.change(ApiLimits(requests_per_minute=1), 1)  # nothing is left of none
    assert refused(limiter.admit("a", 1)) == ""
    limiter.change(None, 1)
    assert [refused(limiter.admit("a", 1)) for _ in range(9)] == [""] * 9
    assert limiter.counts == LimitCounts(14, 1, 1, 10, 10)


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


# Time before the answer


def test_a_delay_holds_up_nobody_else(
    cline_api: Simulator, http: httpx.Client, dial: Dial, h2_dial: Callable[..., Peer]
) -> None:
    cline_api.enqueue(*[Reply.ok(delay=3600)] * 2, *[Reply.completion("Hi", delay=0.001)] * 2)
    sock = dial(on_the_wire(ask()))
    peer = h2_dial()
    peer.ask()
    busy(cline_api, 2)
    answer = http.post("chat/completions", json=ask(False))
    assert answer.json()["choices"][0]["message"]["content"] == "Hi"
    peer.until(h2.events.ResponseReceived, peer.ask())
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    assert cline_api.counts.served == 4


MAKERS: list[Callable[..., Reply]] = [
    Reply.ok,
    Reply.stream,
    Reply.completion,
    Reply.json_error_in_200,
    partial(Reply.error, 500),
    Reply.html,
    Reply.raw,
]


@pytest.mark.parametrize("make", MAKERS)
def test_what_has_a_body_can_take_its_time(make: Callable[..., Reply]) -> None:
    assert make(delay=0.5).delay == 0.5
    for delay in (-1, math.inf, math.nan):
        message = f"delay must be a number of seconds >= 0 (got {delay})"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make(delay=delay)
