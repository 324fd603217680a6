# SPDX-License-Identifier: Apache-2.0
"""What a stream costs: memory that is bounded, work that grows with its length and no faster.

Nothing here is timed. Memory is what `tracemalloc` saw; work is counted in calls and in the bytes
that they were given. `CLINE_TEST_FULL=1` takes streams of the full length.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import FrameType
from typing import Any, Final, cast

import anyio
import pytest

from cline_transport import CallRecord, Settings, StreamSettings
from cline_transport.inspection import StreamReader
from cline_transport.sse import EventSplitter, Run

from .rig import CHAT, FAMILIES, FakeTime

FULL: Final = os.environ.get("CLINE_TEST_FULL") == "1"
KIB: Final = 1024
MIB: Final = 1024 * KIB
SPARE: Final = 2 * MIB
"""What a stream may take beyond what it takes without us."""

URL: Final = "http://api.test/api/v1/chat/completions"

Source = Callable[[], Iterator[bytes]]


def chunk(content: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, **more}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


ROLE: Final = chunk("")
STOP: Final = chunk("", finish_reason="stop") + b"data: [DONE]\n\n"
COMMENT: Final = b": OPENROUTER PROCESSING\n\n"
FAILED: Final = (
    b'data: {"choices": [{"finish_reason": "error", '
    b'"error": {"code": "rate_limit", "message": "Slow down"}}]}\n\n'
)


@dataclass
class Bench:
    """Streams that are made as they are read, with and without us, in one family and colour."""

    family: str
    colour: str
    time: FakeTime = field(default_factory=FakeTime)
    requests: int = 0

    def read(
        self,
        *sources: Source,
        ours: bool = True,
        on_open: Callable[[], object] = lambda: None,
        on_chunk: Callable[[bytes], object] = len,
        **stream: Any,
    ) -> Any:
        """Ask once and read the answer, of which nothing is kept; each attempt has its source."""
        library, transports = import_module(self.family), import_module(self._module(ours=ours))
        self.requests = 0

        def handle(request: Any) -> Any:
            source = sources[self.requests]
            self.requests += 1
            body = source() if self.colour == "sync" else _asynchronous(source())
            return library.Response(
                200, headers={"content-type": "text/event-stream"}, content=body
            )

        transport: Any = library.MockTransport(handle)
        if ours:
            settings = Settings(stream=StreamSettings(**stream))
            kind = "ClineTransport" if self.colour == "sync" else "AsyncClineTransport"
            transport = getattr(transports, kind)(transport, settings=settings)
            transport._loop.clock = self.time.clock
            sync = self.colour == "sync"
            transport._loop.sleep = self.time.sleep if sync else self.time.sleep_async
        asked: dict[str, Any] = {"json": {**CHAT, "stream": True}}
        if self.colour == "sync":
            with (
                library.Client(transport=transport) as client,
                client.stream("POST", URL, **asked) as response,
            ):
                on_open()
                for data in response.iter_raw():
                    on_chunk(data)
            return response

        async def go() -> Any:
            async with (
                library.AsyncClient(transport=transport) as client,
                client.stream("POST", URL, **asked) as response,
            ):
                on_open()
                async for data in response.aiter_raw():
                    on_chunk(data)
            return response

        return anyio.run(go, backend=self.colour)

    def _module(self, *, ours: bool) -> str:
        return f"cline_transport.{self.family}" if ours else self.family


async def _asynchronous(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    for data in source:
        yield data


def record_of(response: Any) -> CallRecord:
    record: CallRecord = response.extensions["cline_transport"]
    return record


@pytest.fixture(params=FAMILIES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param, "sync")


@pytest.fixture(params=[(f, c) for f in FAMILIES for c in ("sync", "asyncio")], ids="-".join)
def any_bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(*request.param)


# --- memory ---

LENGTH: Final = 1024 * MIB if FULL else 64 * MIB
WRITE: Final = 64 * KIB
EVENT: Final = chunk("x" * 200)


def many_events(length: int) -> Iterator[bytes]:
    """Chunks of whole events, each made anew."""
    yield ROLE
    for _ in range(length // WRITE):
        yield EVENT * (WRITE // len(EVENT))
    yield STOP


def one_event(length: int) -> Iterator[bytes]:
    """One event of that length, and no blank line before its end."""
    yield b'data: {"choices": [{"index": 0, "delta": {"content": "'
    for _ in range(length // WRITE):
        yield b"x" * WRITE
    yield b'"}}]}\n\n' + STOP


def peak(read: Callable[[], object]) -> int:
    """The most that was allocated at one time."""
    gc.collect()
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peaks(bench: Bench, source: Callable[[int], Iterator[bytes]], **stream: Any) -> tuple[int, int]:
    """With us, and without."""
    for ours in (True, False):
        bench.read(lambda: source(WRITE), ours=ours, **stream)  # what is imported once, is now
    with_us = peak(lambda: bench.read(lambda: source(LENGTH), **stream))
    without = peak(lambda: bench.read(lambda: source(LENGTH), ours=False))
    return with_us, without


@pytest.mark.parametrize("on_error", ["normalize", "raise", "observe"])
def test_a_long_stream_of_events_takes_no_more_memory_than_without_us(
    on_error: Any, any_bench: Bench
) -> None:
    with_us, without = peaks(any_bench, many_events, on_error=on_error)
    assert with_us <= without + SPARE


@pytest.mark.parametrize("max_event_bytes", [64 * KIB, 8 * MIB])
@pytest.mark.parametrize("retry", ["before_content", "never"])
def test_an_event_without_an_end_takes_no_more_memory_than_one_that_may_be_held(
    retry: Any, max_event_bytes: int, any_bench: Bench
) -> None:
    with_us, without = peaks(any_bench, one_event, max_event_bytes=max_event_bytes, retry=retry)
    # What is held, and the copy in which it is handed on when it turns out to be too large.
    assert with_us <= without + 2 * max_event_bytes + SPARE


@pytest.mark.parametrize("source", [many_events, one_event])
def test_a_stream_that_is_longer_than_what_is_held_arrives_whole(
    source: Callable[[int], Iterator[bytes]], any_bench: Bench
) -> None:
    sent, arrived = hashlib.sha256(), hashlib.sha256()
    for data in source(10 * MIB):
        sent.update(data)
    response = any_bench.read(lambda: source(10 * MIB), on_chunk=arrived.update)
    assert arrived.digest() == sent.digest()
    record = record_of(response)
    assert record.completed
    assert record.error is None


# --- work ---


@dataclass
class Work:
    """What was done: calls, and the bytes that they were given, called on, kept or gave back."""

    calls: int = 0
    handled: int = 0
    kept: dict[int, object] = field(default_factory=dict[int, object])

    def count(self, frame: FrameType, event: str, arg: Any) -> None:
        """For `sys.setprofile`."""
        if event in ("call", "c_call"):
            self.calls += 1
        if "cline_transport" not in frame.f_code.co_filename:
            return
        if event == "call":
            code, given = frame.f_code, frame.f_locals
            self.handled += sum(_size(given[name]) for name in code.co_varnames[: code.co_argcount])
        elif event == "return":
            self.handled += _size(arg)
            owner = frame.f_locals.get("self")
            held = getattr(owner, "_held", None)
            if self.kept.get(id(owner)) is not held:  # made anew, not added to
                self.kept[id(owner)] = held
                self.handled += _size(held)
        elif event == "c_call":
            called_on = getattr(arg, "__self__", None)
            self.handled += 0 if isinstance(called_on, list) else _size(called_on)


def _size(value: object) -> int:
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(_size(one) for one in cast("list[object]", value))
    return 0


def work_of(read: Callable[[], object]) -> Work:
    work = Work()
    gc.collect()
    gc.disable()  # finalizers are calls too
    before = sys.getprofile()
    sys.setprofile(work.count)
    try:
        read()
    finally:
        sys.setprofile(before)
        gc.enable()
    return work


def assert_linear(bench: Bench, source: Callable[[int], Iterator[bytes]], count: int) -> None:
    """Eight times as many chunks take as much work each, give or take a twentieth."""
    few = count // 8
    bench.read(lambda: source(100))  # what is imported once, is now
    less = work_of(lambda: bench.read(lambda: source(few)))
    more = work_of(lambda: bench.read(lambda: source(few * 8)))
    assert less.calls > few
    assert more.calls / less.calls == pytest.approx(8, rel=0.05)
    assert less.handled > few
    assert more.handled / less.handled == pytest.approx(8, rel=0.05)


COUNT: Final = 1_000_000 if FULL else 48_000


@pytest.mark.parametrize(
    ("family", "newline"),
    # The library makes no difference to what is cut: each has a line end of its own.
    list(zip((FAMILIES * 3)[:3], (b"\n", b"\r\n", b"\r"), strict=True)),
    ids=["LF", "CRLF", "CR"],
)
def test_tiny_chunks_cost_work_in_proportion_to_their_number(family: str, newline: bytes) -> None:
    word = chunk("a").replace(b"\n", newline)
    pieces = [word[:20], word[20:-1], word[-1:]]

    def tiny(count: int) -> Iterator[bytes]:
        for number in range(count):
            yield pieces[number % 3]
        yield STOP

    assert_linear(Bench(family, "sync"), tiny, COUNT)


@pytest.mark.parametrize("family", FAMILIES)
def test_comments_that_are_held_cost_work_in_proportion_to_their_number(family: str) -> None:
    def comments(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b":\n\n"
        yield STOP

    assert_linear(Bench(family, "sync"), comments, 64 * KIB)


ONE_EVENT: Final = 8 * MIB - KIB if FULL else 128 * KIB


def bytewise(count: int) -> Iterator[bytes]:
    event = chunk("x" * count)
    for at in range(len(event)):
        yield event[at : at + 1]
    yield STOP


def bytewise_after_content(count: int) -> Iterator[bytes]:
    yield EVENT
    yield from bytewise(count)


@pytest.mark.parametrize(
    ("family", "source"),
    [(FAMILIES[0], bytewise), (FAMILIES[-1], bytewise_after_content)],
    ids=["before-content", "after-content"],
)
def test_an_event_that_comes_byte_by_byte_costs_work_in_proportion_to_its_length(
    family: str, source: Callable[[int], Iterator[bytes]]
) -> None:
    assert_linear(Bench(family, "sync"), source, ONE_EVENT)


def _again(splitter: Any, chunk: bytes, last: int) -> list[Run]:
    splitter._held = splitter._held + chunk  # a new object each time
    return []


def _searched(splitter: Any, chunk: bytes, last: int) -> list[Run]:
    splitter._held += chunk
    splitter._held.find(b"\n\n")  # all of it each time
    return []


def _never_truncated(_: StreamReader) -> bool:
    return False


@pytest.mark.parametrize("slow", [_again, _searched])
def test_work_that_grows_with_the_square_would_be_seen(
    slow: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(self: Any, chunk: bytes, last: int) -> list[Run]:
        return cast("list[Run]", slow(self, chunk, last))

    # Compiled as if it stood in the package, whose frames are the ones that are looked at.
    code = slow.__code__.replace(co_filename=EventSplitter._feed.__code__.co_filename)
    monkeypatch.setattr(slow, "__code__", code)
    monkeypatch.setattr(EventSplitter, "_feed", slowly)
    # No event comes out of it; that is not to be one more attempt.
    monkeypatch.setattr(StreamReader, "_truncated", _never_truncated)
    with pytest.raises(AssertionError):
        assert_linear(bench, bytewise, 4 * KIB)


# --- what is held ---

HELD_BYTES: Final = 256 * KIB
HELD_SECONDS: Final = 30


@dataclass
class Waiting:
    """A stream of comments that fails at its end; it knows how much of it was asked for."""

    comments: int
    time: FakeTime
    seconds: float = 0.0
    """How long each of them takes."""
    drawn: int = 0
    failed: bool = False

    def __call__(self) -> Iterator[bytes]:
        for _ in range(self.comments):
            self.time.now += self.seconds
            self.drawn += 1
            yield COMMENT
        self.failed = True
        yield FAILED


def good() -> Iterator[bytes]:
    yield ROLE
    yield EVENT
    yield STOP


def assert_released(bench: Bench, waiting: Waiting, *, drawn: int) -> None:
    """Delivered when so many comments had come; what failed then is an error in the stream."""
    seen: list[tuple[int, bool]] = []
    body = bytearray()
    response = bench.read(
        waiting,
        good,
        on_open=lambda: seen.append((waiting.drawn, waiting.failed)),
        on_chunk=body.extend,
    )

    assert response.status_code == 200
    assert seen == [(drawn, False)]
    assert bench.requests == 1
    assert bench.time.waits == []
    assert bytes(body[: len(COMMENT) * waiting.comments]) == COMMENT * waiting.comments
    last = json.loads(bytes(body[len(COMMENT) * waiting.comments :]).removeprefix(b"data: "))
    assert last["error"] == {"code": "rate_limit", "message": "Slow down"}
    record = record_of(response)
    assert record.error is not None
    assert (record.error.code, record.error.phase) == ("rate_limit", "mid_stream")
    assert (record.error.status_code, record.error.attempts, record.completed) == (200, 1, False)


def assert_retried(bench: Bench, waiting: Waiting) -> None:
    body = bytearray()
    response = bench.read(waiting, good, on_chunk=body.extend)

    assert response.status_code == 200
    assert waiting.failed
    assert bench.requests == 2
    assert bench.time.waits == [1.0]
    assert bytes(body) == b"".join(good())
    assert record_of(response).error is None


def test_comments_beyond_what_is_held_are_delivered_and_a_later_error_is_not_retried(
    any_bench: Bench,
) -> None:
    over = HELD_BYTES // len(COMMENT) + 1
    waiting = Waiting(over + 10, any_bench.time)
    assert_released(any_bench, waiting, drawn=over)


def test_comments_within_what_is_held_are_never_seen_when_an_error_follows(
    any_bench: Bench,
) -> None:
    assert_retried(any_bench, Waiting(HELD_BYTES // len(COMMENT), any_bench.time))


def test_comments_for_longer_than_they_are_held_are_delivered_and_a_later_error_is_not_retried(
    any_bench: Bench,
) -> None:
    # The one that comes at 31 s is the first that comes after 30 s.
    waiting = Waiting(100, any_bench.time, seconds=1)
    assert_released(any_bench, waiting, drawn=HELD_SECONDS + 1)


def test_comments_for_as_long_as_they_are_held_are_never_seen_when_an_error_follows(
    any_bench: Bench,
) -> None:
    assert_retried(any_bench, Waiting(HELD_SECONDS, any_bench.time, seconds=1))


def test_the_time_that_is_held_is_counted_anew_for_each_attempt(any_bench: Bench) -> None:
    waits = [Waiting(20, any_bench.time, seconds=1) for _ in range(3)]
    response = any_bench.read(*waits, good)

    assert response.status_code == 200
    assert any_bench.requests == 4
    assert any_bench.time.waits == [1.0, 2.0, 4.0]
    assert record_of(response).completed


def test_buffered_neither_bound_ends_what_is_held(any_bench: Bench) -> None:
    over = HELD_BYTES // len(COMMENT) + 1
    waiting = Waiting(over, any_bench.time, seconds=1)
    body = bytearray()
    response = any_bench.read(waiting, good, on_chunk=body.extend, retry="buffered")

    assert any_bench.requests == 2
    assert bytes(body) == b"".join(good())
    assert record_of(response).completed
