# SPDX-License-Identifier: Apache-2.0
"""Bytes in, complete events out."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport.sse import (
    Event,
    EventSplitter,
    parse_event,
    split_events,
    write_event,
)

MAX = 1024 * 1024
NEWLINES = ["\n", "\r\n", "\r"]


def feed_all(chunks: list[bytes], *, max_event_bytes: int = MAX) -> list[bytes]:
    splitter = EventSplitter(max_event_bytes=max_event_bytes)
    out = [run.data for chunk in chunks for run in splitter.feed(chunk)]
    rest = splitter.flush()
    return [*out, rest] if rest else out


@pytest.mark.parametrize("newline", NEWLINES)
def test_an_event_leaves_with_its_last_byte(newline: str) -> None:
    splitter = EventSplitter(max_event_bytes=MAX)
    event = f"data: x{newline}{newline}".encode()
    for byte in event[:-1]:
        assert b"".join(r.data for r in splitter.feed(bytes([byte]))) in (b"", event[:-1])
    splitter.feed(event[-1:])
    assert splitter.flush() == b""


def test_a_chunk_of_whole_events_passes_as_the_same_object() -> None:
    chunk = b"data: 1\n\ndata: 2\n\n"
    [run] = EventSplitter(max_event_bytes=MAX).feed(chunk)
    assert run.data is chunk


def test_no_byte_gives_no_run() -> None:
    assert EventSplitter(max_event_bytes=MAX).feed(b"") == []


def test_the_second_half_of_a_crlf_goes_at_once() -> None:
    splitter = EventSplitter(max_event_bytes=MAX)
    assert [r.data for r in splitter.feed(b"data: 1\r\n\r")] == [b"data: 1\r\n\r"]
    assert [r.data for r in splitter.feed(b"\n")] == [b"\n"]
    assert [r.data for r in splitter.feed(b"data: 2\r\n\r")] == [b"data: 2\r\n\r"]
    assert [r.data for r in splitter.feed(b"\ndata: 3\r\n\r\n")] == [b"\n", b"data: 3\r\n\r\n"]


def test_an_event_above_the_bound_passes_in_opaque_pieces() -> None:
    splitter = EventSplitter(max_event_bytes=10)
    assert splitter.feed(b"data: 1\n\ndata: ") == [(b"data: 1\n\n", False)]
    assert splitter.feed(b"2222222") == [(b"data: 2222222", True)]
    assert splitter.feed(b"33") == [(b"33", True)]
    assert splitter.feed(b"3\n\ndata: 4\n\ndat") == [(b"3\n\n", True), (b"data: 4\n\n", False)]
    assert splitter.flush() == b"dat"


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"x\n", b"\r\ny"), (b"x\r", b"\ry"), (b"x\n", b"\ny"), (b"x\r\n", b"\ry")],
)
def test_the_boundary_that_ends_it_may_lie_across_two_chunks(before: bytes, after: bytes) -> None:
    splitter = EventSplitter(max_event_bytes=4)
    assert splitter.feed(b"data: " + before) == [(b"data: " + before, True)]
    assert splitter.feed(after) == [(after[:-1], True)]
    assert splitter.flush() == b"y"


line_ends = st.sampled_from(["\n", "\r\n", "\r"])
texts = st.text(st.characters(blacklist_characters="\r\n"), max_size=12)
lines = st.one_of(
    texts.map(lambda t: f"data:{t}"),
    texts.map(lambda t: f"data: {t}"),
    texts.map(lambda t: f":{t}"),
    st.sampled_from(["event: error", "event:message", "id: 7", "retry: 10", "data", "", "junk"]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    parts = [line + draw(line_ends) for line in draw(st.lists(lines, max_size=12))]
    tail = draw(st.sampled_from(["", "data: tail", "\n", "\r"]))
    return ("".join(parts) + tail).encode("utf-8", "surrogatepass")


@st.composite
def chunked(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    stream = draw(source)
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=12)) | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(cuts)]


@given(chunked(streams() | st.binary(max_size=80)), st.integers(1, 40))
def test_the_bytes_out_are_the_bytes_in(chunks: list[bytes], bound: int) -> None:
    assert b"".join(feed_all(chunks, max_event_bytes=bound)) == b"".join(chunks)


@given(chunked(streams()))
def test_what_is_held_is_never_a_whole_event(chunks: list[bytes]) -> None:
    splitter = EventSplitter(max_event_bytes=MAX)
    seen = b""
    left = b""
    for chunk in chunks:
        seen += chunk
        left += b"".join(run.data for run in splitter.feed(chunk))
        events = list(split_events(seen))
        complete = b"".join(events[:-1])
        last = events[-1] if events else b""
        if last.endswith((b"\n\n", b"\r\r", b"\n\r", b"\r\n\r\n")):
            complete += last
        assert len(left) >= len(complete)


def sdk_events(chunks: list[bytes]) -> list[tuple[str | None, str]]:
    from openai._streaming import SSEDecoder  # noqa: PLC0415 -- the reference, for this test

    decoder: Any = SSEDecoder()
    return [(sse.event, sse.data) for sse in decoder.iter_bytes(iter(chunks)) if sse.data]


@given(chunked(streams()))
def test_the_events_are_those_that_the_sdk_sees(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    try:
        expected = sdk_events([stream])
    except UnicodeDecodeError:
        return
    ours: list[tuple[str | None, str]] = []
    splitter = EventSplitter(max_event_bytes=MAX)
    for chunk in chunks:
        for run in splitter.feed(chunk):
            for raw in split_events(run.data):
                name, data = parse_event(raw)
                if data:
                    ours.append((name or None, data.decode()))
    assert ours == expected


def test_an_event_is_read_with_all_its_oddities() -> None:
    assert parse_event(b"\xef\xbb\xbfdata: a\r\n: comment\r\ndata:b\r\nid: 1\r\n\r\n") == Event(
        "", b"a\nb"
    )
    assert parse_event("data: \u2028x\n\n".encode()) == Event("", "\u2028x".encode())
    assert parse_event(b": OPENROUTER PROCESSING\n\n") == Event("", None)
    assert parse_event(b"event: \xff\n\n") == Event("\ufffd", None)


@pytest.mark.parametrize("newline", NEWLINES)
def test_rewriting_keeps_the_other_lines_and_the_line_ends(newline: str) -> None:
    raw = newline.join(["event: error", "data: a", "data: b", ": c", "", ""]).encode()
    expected = newline.join(["event: error", ": c", "data: {}", "", ""]).encode()
    assert write_event(raw, b"{}") == expected


def test_rewriting_ends_an_event_that_had_no_end() -> None:
    assert write_event(b"data: a", b"{}") == b"data: {}\n\n"


PIECES = [
    *["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\r\r", "data: x", "data:", "data", "data: é\u2028"],
    *["event: error", "event:", "id: 7", "retry: 10", ": comment", "junk: y", " ", "\0"],
]


def test_it_agrees_with_the_sdks_decoder_on_many_streams() -> None:
    """CLINE_TEST_STREAMS sets how many; a million take a few minutes."""
    chance = random.Random(20)  # noqa: S311 -- a seeded generator of test data
    for _ in range(int(os.environ.get("CLINE_TEST_STREAMS", "3000"))):
        stream = "".join(chance.choices(PIECES, k=chance.randrange(24))).encode()
        cuts = sorted(chance.choices(range(len(stream) + 1), k=chance.randrange(4)))
        chunks = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
        splitter = EventSplitter(max_event_bytes=MAX)
        runs = [run.data for chunk in chunks for run in splitter.feed(chunk)]
        assert b"".join(runs) + splitter.flush() == stream
        ours = [parse_event(raw) for run in runs for raw in split_events(run)]
        seen = [(e.name or None, e.data.decode()) for e in ours if e.data]
        assert seen == sdk_events([stream]), stream
