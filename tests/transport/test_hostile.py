# SPDX-License-Identifier: Apache-2.0
"""A server that means harm: what it can take, cause and have told is bounded; errors are clear."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import tracemalloc
import unicodedata
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import repeat
from typing import Any, Final

import pytest
import zstandard

from cline_transport import ErrorSettings, RetryPolicy, Settings, StreamSettings, error_info

from .hostile import HostileServer, Script, running
from .rig import CHAT, COLOURS, FAMILIES, Answer, Rig, unread
from .telling import log_lines_exported

KIB: Final = 1024
MIB: Final = 1024 * KIB
GB: Final = 10**9
KEY: Final = "sk-SECRETKEY0123456789"
brotli: Any = import_module("brotli")  # it has no types
BUFFERS: Final = 12 * MIB
"""What the sockets of both ends may take on their own."""

Serve = Callable[[Script], HostileServer]

# What is read is the loops' matter, what is made of it the core's, how it is decoded the library's.
one_rig = pytest.mark.parametrize("rig", [("httpx", "sync")], indirect=True, ids="-".join)
each_family = pytest.mark.parametrize(
    "rig", [(family, "sync") for family in FAMILIES], indirect=True, ids="-".join
)
asynchronous = pytest.mark.parametrize(
    "rig", [(f, c) for f in FAMILIES for c in COLOURS if c != "sync"], indirect=True, ids="-".join
)


@pytest.fixture
def serve(rig: Rig) -> Iterator[Serve]:
    """A server with a script; the rig's clients are closed before it is."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(running(script))


def head(status: int, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Said" % status, *lines, b"connection: close", b"", b""])


def whole(status: int, body: bytes, *lines: bytes) -> Script:
    return lambda: [head(status, b"content-length: %d" % len(body), *lines), body]


def endless(status: int, piece: bytes, *lines: bytes) -> Script:
    def script() -> Iterator[bytes]:
        yield head(status, b"transfer-encoding: chunked", *lines)
        yield from repeat(b"%x\r\n%s\r\n" % (len(piece), piece))

    return script


JSON: Final = b"content-type: application/json"
TEXT: Final = b"content-type: text/plain"
EVENTS: Final = b"content-type: text/event-stream"


def ask(rig: Rig, server: HostileServer, **settings: Any) -> Answer:
    client = rig.client(rig.transport(settings=Settings(**settings), traced=True))
    with log_lines_exported(rig):
        answer = client.post(server.url, json=CHAT, headers={"authorization": f"Bearer {KEY}"})
    check_told(rig)
    return answer


def check_told(rig: Rig) -> None:
    """What was exported is short, on one line, and without the key."""
    spans = rig.spans.get_finished_spans()
    attributes: list[Any] = [span.attributes for span in spans]
    attributes += [event.attributes for span in spans for event in span.events]
    told: list[Any] = [span.status.description for span in spans] + [s.name for s in spans]
    for record in rig.logs.get_finished_logs():
        attributes.append(record.log_record.attributes)
        told.append(record.log_record.body)
    for found in attributes:
        given: dict[str, Any] = dict(found or {})
        for name, value in given.items():
            if not name.startswith(("code.", "exception.stacktrace")):
                told += value if isinstance(value, tuple) else [value]
    for value in told:
        if isinstance(value, str):
            assert len(value) <= 1024 + 200, value[:100]  # a line says more than the message
            assert not any(unicodedata.category(char) == "Cc" for char in value), value[:100]
            assert "SECRETKEY" not in value
        elif isinstance(value, int):
            assert abs(value) < 2**63


def check_documented(answer: Answer, status: int) -> Any:
    assert answer.exception is None
    assert answer.status == status
    error = answer.json()["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    info = error_info(answer.response)
    assert info is not None
    assert len(info.report().splitlines()) == 6
    return error


@contextmanager
def peak_below(limit: int) -> Generator[None, None, None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# --- heads ---


@unread
@pytest.mark.parametrize("what", ["many", "long", "endless"])
def test_a_bomb_of_headers_is_a_protocol_error_and_is_not_retried(
    rig: Rig, serve: Serve, what: str
) -> None:
    def script() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        if what == "many":
            yield b"".join(b"x-%d: y\r\n" % number for number in range(50_000))
        elif what == "long":
            yield b"x-long: " + b"y" * 2 * MIB + b"\r\n"
        else:
            yield from repeat(b"x-more: and more\r\n" * 100)
        yield b"content-length: 0\r\n\r\n"

    server = serve(script)
    ask(rig, serve(whole(400, b"first")))  # what is imported once, is now
    with peak_below(16 * MIB):
        answer = ask(rig, server)
    assert isinstance(answer.exception, rig.exception("RemoteProtocolError"))
    info = error_info(answer.exception)
    assert info is not None
    assert (info.code, info.attempts) == ("protocol_error", 1)
    assert len(server.taken) == 1
    assert server.taken[0] < BUFFERS


@one_rig
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b"req\r\n folded: x", "req folded: x"),
        (b"req\x1b[31m\x07red", "req [31m red"),
        (b"req\x9b2J\x85next", None),
        (b"x" * 90_000, "x" * 255 + "…"),
        (b"req " + KEY.encode(), "req [redacted]"),
    ],
    ids=["folded", "escapes", "C1", "long", "key"],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_request_id_is_told_on_one_line(
    rig: Rig, serve: Serve, status: int, given: bytes, told: str | None
) -> None:
    body = b'{"error": {"code": 400, "message": "m"}}' if status == 400 else b"{}"
    server = serve(whole(status, body, JSON, b"x-request-id: " + given))
    answer = ask(rig, server)
    assert answer.status == status
    if told is not None:
        assert answer.record.request_id == told
    if status == 400:
        check_documented(answer, 400)


LIES: Final[dict[str, Script]] = {
    "more than was said": lambda: [head(400, b"content-length: 3", TEXT), b"abcdefgh"],
    "less than was said": lambda: [head(400, b"content-length: 300", TEXT), b"abc"],
    "two lengths": lambda: [head(400, b"content-length: 3", b"content-length: 4", TEXT), b"abcd"],
    "a negative length": lambda: [head(400, b"content-length: -3", TEXT), b"abc"],
    "a length of 5000 digits": lambda: [head(400, b"content-length: " + b"9" * 5000), b"abc"],
    "a negative chunk": lambda: [head(400, b"transfer-encoding: chunked"), b"-5\r\nabcde\r\n"],
    "a chunk that is no number": lambda: [head(400, b"transfer-encoding: chunked"), b"zz\r\nab"],
    "a chunk of 10 GB": lambda: [
        head(400, b"transfer-encoding: chunked"),
        b"%x\r\n" % (10 * GB),
        b"x" * 100,
    ],
    "a chunk size without an end": lambda: [
        head(400, b"transfer-encoding: chunked"),
        b"1" * 200_000,
    ],
    "no HTTP": lambda: [b"SSH-2.0-\x1b[2Jclosed\x00\r\n\r\n"],
    "a status of 9999": lambda: [b"HTTP/1.1 9999 \x1b[2J\r\ncontent-length: 0\r\n\r\n"],
    "nothing": list[bytes],
}


@each_family
@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_http_is_an_error_of_the_wire_or_of_its_status(
    rig: Rig, serve: Serve, lie: str
) -> None:
    server = serve(LIES[lie])
    answer = ask(rig, server)
    if answer.exception is None:
        check_documented(answer, 400)
    else:
        assert isinstance(answer.exception, rig.exception("TransportError"))
        assert error_info(answer.exception) is not None
    assert 1 <= len(server.taken) <= 4
    assert all(wait <= 4 for wait in rig.time.waits)


# --- bodies of errors ---


@unread
@pytest.mark.parametrize("how", ["declared", "dripped", "at once"])
def test_of_an_error_without_an_end_a_mebibyte_is_read(rig: Rig, serve: Serve, how: str) -> None:
    def declared() -> Iterator[bytes]:
        yield head(400, b"content-length: %d" % (10 * GB), TEXT)
        yield from repeat(b"x" * 64 * KIB, 10 * GB // (64 * KIB))

    scripts: dict[str, Script] = {
        "declared": declared,
        "dripped": endless(400, b"x" * 1000, TEXT),
        "at once": endless(400, b"x" * MIB, TEXT),
    }
    server = serve(scripts[how])
    with peak_below(16 * MIB):
        answer = ask(rig, server)
    error = check_documented(answer, 400)
    assert error["code"] == 400
    assert len(answer.body) < 10 * KIB
    assert len(server.taken) == 1
    assert server.taken[0] < BUFFERS


@unread
def test_nor_is_more_read_of_it_when_it_is_retried(rig: Rig, serve: Serve) -> None:
    server = serve(endless(503, b"x" * 64 * KIB, JSON))
    with peak_below(16 * MIB):
        answer = ask(rig, server, errors=ErrorSettings(max_body_bytes=64 * KIB))
    check_documented(answer, 503)
    assert rig.time.waits == [1, 2, 4]
    assert len(server.taken) == 4
    assert sum(server.taken) < 4 * BUFFERS


def compressed_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


ENCODE: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=5),
    "zstd": compressed_zstd,
}


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """64 MiB of one letter, or of comments for a stream, in a few KiB at most."""
    made = {name: encode(b"a" * 64 * MIB) for name, encode in ENCODE.items()}
    made |= {f"{name}, {name}": encode(made[name]) for name, encode in ENCODE.items()}
    made |= {f"{name} events": encode(b":\n\n" * (21 * MIB)) for name, encode in ENCODE.items()}
    return made


@each_family
@pytest.mark.parametrize("encoding", [*ENCODE, *(f"{name}, {name}" for name in ENCODE)])
def test_a_compression_bomb_in_an_error_is_not_unpacked(
    rig: Rig, serve: Serve, bombs: dict[str, bytes], encoding: str
) -> None:
    bomb = bombs[encoding]
    assert len(bomb) < 70 * KIB
    server = serve(whole(400, bomb, TEXT, b"content-encoding: " + encoding.encode()))
    ask(rig, serve(whole(400, b"first")))  # what is imported once, is now
    with peak_below(40 * MIB):
        answer = ask(rig, server)
    check_documented(answer, 400)
    assert "content-encoding" not in answer.headers


@each_family
@pytest.mark.parametrize("retry", ["before_content", "never"])
@pytest.mark.parametrize("kind", [*ENCODE, *(f"{name} events" for name in ENCODE)])
def test_a_compression_bomb_in_a_stream_ends_it(
    rig: Rig, serve: Serve, bombs: dict[str, bytes], kind: str, retry: Any
) -> None:
    encoding = kind.partition(" ")[0].encode()
    server = serve(whole(200, bombs[kind], EVENTS, b"content-encoding: " + encoding))
    ask(rig, serve(whole(400, b"first")))
    rig.spans.clear()
    with peak_below(64 * MIB):
        answer = ask(rig, server, stream=StreamSettings(retry=retry))
    assert len(answer.body) <= 32 * MIB
    if len(bombs[kind]) < 60 * KIB:  # it comes in one piece
        assert isinstance(answer.exception, rig.exception("DecodingError"))
        assert "when decoded" in str(answer.exception)


@unread
@asynchronous
@pytest.mark.parametrize("status", [200, 400])
def test_nor_is_one_unpacked_in_other_colours(
    rig: Rig, serve: Serve, bombs: dict[str, bytes], status: int
) -> None:
    server = serve(whole(status, bombs["br"], EVENTS, b"content-encoding: br"))
    with peak_below(64 * MIB):
        answer = ask(rig, server)
    if status == 400:
        check_documented(answer, 400)
    else:
        assert isinstance(answer.exception, rig.exception("DecodingError"))


@each_family
def test_encodings_upon_encodings_in_a_stream_are_not_looked_into(
    rig: Rig, serve: Serve, bombs: dict[str, bytes]
) -> None:
    bomb = bombs["gzip, gzip"]
    server = serve(whole(200, bomb, EVENTS, b"content-encoding: gzip, gzip"))
    answer = ask(rig, server)
    assert answer.body == bomb
    assert answer.headers["content-encoding"] == "gzip, gzip"


DEPTHS: Final = (500, 900, 980, 985, 990, 995, 1000, 5000, 100_000)


def deep(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


BODIES: Final[dict[str, bytes]] = {
    **{f"{depth} deep": b'{"detail": %s}' % deep(depth) for depth in DEPTHS},
    **{
        f"metadata {depth} deep": b'{"error": {"detail": "x", "metadata": %s}}' % deep(depth)
        for depth in DEPTHS
    },
    "a code of 4300 digits": b'{"error": {"message": "m", "code": %s}}' % (b"9" * 4300),
    "a code of 5000 digits": b'{"error": {"message": "m", "code": %s}}' % (b"9" * 5000),
    "a code without bounds": b'{"error": {"message": "m", "code": 1e308}}',
    "a code that is infinite": b'{"error": {"message": "m", "code": 1e999}}',
    "a code in lines": b'{"error": {"message": "m", "code": "a\\nb\\u001b[2J\\u202e%s"}}'
    % (b"x" * 9999),
    "a message in lines": b'{"error": {"message": "m\\n\\nERROR root:\\u001b[2J\\u0000\\u009b"}}',
    "a message of a mebibyte": b'{"error": {"message": "%s %s"}}'
    % (KEY.encode(), b"x" * (MIB - 99)),
    "the same key twice": b'{"error": {"message": "a"}, "error": {"message": "b", "code": 1}}',
    "no UTF-8": b'{"error": {"message": "\xff\xfe\x80"}}',
    "lone surrogates": b'{"error": {"message": "\\ud800", "code": "\\udfff"}, "\\ud800": 1}',
    "NUL bytes": b'\x00\x00{"error": {"message": "\\u0000"}}\x00',
    "UTF-16": '{"error": {"message": "m", "code": "c"}}'.encode("utf-16"),
    "UTF-32": '{"error": {"message": "m", "code": "c"}}'.encode("utf-32"),
    "a number alone": b"9" * 5000,
    "markup": b"<h1" * 2000 + b"<script>" * 2000 + b"<title>",
    "headings": b"<h1>" * 20_000 + b"</h1 " * 20_000,
    "a long word": b"a" * MIB,
}


@one_rig
@pytest.mark.parametrize("body", BODIES)
def test_whatever_an_error_holds_it_ends_as_the_documented_format(
    rig: Rig, serve: Serve, body: str
) -> None:
    answer = ask(rig, serve(whole(400, BODIES[body], JSON)))
    assert answer.exception is None
    assert answer.status == 400
    if b"detail" not in BODIES[body] or len(answer.body) < 10 * KIB:
        check_documented(answer, 400)
    assert answer.record.error is not None
    assert len(str(answer.record.error.code)) <= 64


# --- streams ---


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


CHUNKS: Final[dict[str, bytes]] = {
    **{
        f"metadata {depth} deep": b'{"choices": [{"finish_reason": "error", "error": {"code": '
        b'"rate_limit", "message": "m", "metadata": %s}}]}' % deep(depth)
        for depth in DEPTHS
    },
    "a code of 4300 digits": b'{"choices": [], "error": {"code": %s}}' % (b"9" * 4300),
    "lines": b'{"choices": [], "id": "a\\nb", "model": "c\\u001b[2J", "error": {"code": "x\\ny"}}',
    "lone surrogates": b'{"choices": [], "error": {"message": "\\ud800", "code": "\\udc00"}}',
    "no UTF-8": b'{"choices": [], "error": {"message": "\xff"}}',
    "usage without bounds": b'{"choices": [{"finish_reason": "stop"}], "id": "%s", "usage": '
    b'{"prompt_tokens": %s, "completion_tokens": -1, "cost": NaN}}' % (b"i" * 9999, b"9" * 99),
}


@one_rig
@pytest.mark.parametrize("on_error", ["normalize", "raise", "observe"])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_whatever_a_chunk_holds_the_stream_ends_as_it_should(
    rig: Rig, serve: Serve, chunk: str, on_error: Any
) -> None:
    body = event(CHUNKS[chunk]) + b"data: [DONE]\n\n"
    server = serve(whole(200, body, EVENTS))
    answer = ask(rig, server, stream=StreamSettings(on_error=on_error))
    if answer.exception is not None:
        assert on_error == "raise"
        assert isinstance(answer.exception, rig.exception("TransportError"))
    assert 1 <= len(server.taken) <= 4


@unread
def test_comments_without_an_end_are_held_up_to_their_bound_in_bytes(
    rig: Rig, serve: Serve
) -> None:
    server = serve(endless(200, b": wait\n\n" * 100, EVENTS))
    client = rig.client()
    with peak_below(16 * MIB):
        response = client.open("POST", server.url, json=CHAT)
        first = next(client.chunks(response))
        client.close(response)
    assert 256 * KIB < len(first) < 256 * KIB + 128 * KIB
    assert server.taken[0] < BUFFERS
    assert response.extensions["cline_transport"].time_to_first_chunk is None


@unread
def test_and_in_seconds(rig: Rig, serve: Serve) -> None:
    def script() -> Iterator[bytes]:
        yield head(200, b"transfer-encoding: chunked", EVENTS)
        while True:
            yield b"8\r\n: wait\n\n\r\n"
            rig.time.now += 1

    client = rig.client()
    response = client.open("POST", serve(script).url, json=CHAT)
    since = rig.time.now
    client.close(response)
    assert since > 1_030
    assert rig.time.waits == []


# --- advice ---

SOON: Final = ["0", "0.000001", "-1", "nan", "inf", "-inf", "1e400", "0x10", "", "soon", "\u0661"]
NEVER: Final = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 99999 23:59:59 GMT",
    "9" * 5000,
    "9" * 5000 + ".5",
    "61",
]
PAST: Final = ["Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "0, 0 0 0 0"]


@one_rig
@pytest.mark.parametrize("advice", [*SOON, *PAST, *NEVER], ids=lambda advice: advice[:32])
def test_a_429_without_an_end_is_asked_four_times_at_most(
    rig: Rig, serve: Serve, advice: str
) -> None:
    line = b"retry-after: " + advice.encode()
    server = serve(whole(429, b'{"error": {"message": "slow"}}', JSON, line))
    answer = ask(rig, server)
    check_documented(answer, 429)
    if rig.time.waits:
        assert rig.time.waits == [1, 2, 4]
        assert len(server.taken) == 4
    else:
        assert advice in NEVER
        assert len(server.taken) == 1


@one_rig
@pytest.mark.parametrize(
    "metadata",
    [
        b'{"retry_after_seconds": 1e999}',
        b'{"retry_after_seconds": NaN}',
        b'{"retry_after_seconds": -5}',
        b'{"retry_after_seconds": %s}' % (b"9" * 4000),
        b'{"retry_after_seconds": true, "headers": []}',
        b'{"headers": {"Retry-After": "%s", "retry-after-ms": 7}}' % (b"1 " * 50_000),
        b'{"headers": {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"}}',
    ],
)
def test_nor_does_advice_in_the_body_change_that(rig: Rig, serve: Serve, metadata: bytes) -> None:
    body = b'{"error": {"message": "slow", "code": 429, "metadata": %s}}' % metadata
    server = serve(whole(429, body, JSON))
    answer = ask(rig, server, retry=RetryPolicy(deadline=100))
    assert answer.status == 429
    assert rig.time.waits in ([1, 2, 4], [])
    assert len(server.taken) == len(rig.time.waits) + 1


@one_rig
def test_nothing_a_server_says_reaches_the_log_in_lines(
    rig: Rig, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    said = "m\nWARNING root: forged\r\x1b[2J\x00"
    body = json.dumps({"error": {"message": said, "code": said, "metadata": {"a": KEY}}}).encode()
    with caplog.at_level(logging.DEBUG, "cline_transport"):
        ask(rig, serve(whole(503, body, JSON, b"x-request-id: a\x1bb")))
    lines = [record.getMessage() for record in caplog.records if record.name == "cline_transport"]
    assert len(lines) == 4
    for line in lines:
        assert line.isprintable()
        assert KEY not in line
