# SPDX-License-Identifier: Apache-2.0
"""Bodies that are encoded, cut after some bytes, dripped, or late."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
import zlib
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import backports.zstd
import h2.events
import httpx
import httpx2
import pytest
import zstandard

from cline_transport.simulator import Gate, Reply
from cline_transport.simulator._encoding import ZSTD_MODULES, encoder_for

from .support import PATIENCE, ask, busy, on_the_wire, read_all, read_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    import openai

    from cline_transport.simulator import Simulator
    from cline_transport.simulator._encoding import Encoding

    from .peer import Peer

    Dial = Callable[[bytes], socket.socket]

brotli: Any = import_module("brotli")  # it has no types
ENCODINGS: tuple[Encoding, ...] = ("gzip", "deflate", "br", "zstd")
TEXT = "Grüße, 世界 🌍 again"


class Decoder:
    """Decodes what has come so far, and says whether it was the end."""

    def __init__(self, encoding: str) -> None:
        self._decoder: Any
        self.decode: Callable[[bytes], bytes]
        if encoding == "br":
            self._decoder = brotli.Decompressor()
            self.decode = self._decoder.process
        elif encoding == "zstd":
            self._decoder = backports.zstd.ZstdDecompressor()
            self.decode = self._decoder.decompress
        else:
            bits = zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS
            self._decoder = zlib.decompressobj(bits)
            self.decode = self._decoder.decompress

    @property
    def ended(self) -> bool:
        if hasattr(self._decoder, "is_finished"):
            return bool(self._decoder.is_finished())
        return bool(self._decoder.eof)


def read_chunk(sock: socket.socket) -> bytes:
    """The next chunk of a body in chunked transfer encoding; empty: the last one."""
    size = int(read_until(sock, b"\r\n"), 16)
    data = bytearray()
    while len(data) < size + 2:
        data += sock.recv(size + 2 - len(data))
    return bytes(data[:-2])


def read_chunks(sock: socket.socket) -> list[bytes]:
    """All chunks that come before the server closes or ends the body."""
    chunks: list[bytes] = []
    read_until(sock, b"\r\n\r\n")
    while chunk := read_chunk(sock):
        chunks.append(chunk)
    return chunks


def raw_body(http: httpx.Client, body: dict[str, object]) -> tuple[httpx.Response, bytes]:
    """The body as it is on the wire, as far as it comes."""
    received = bytearray()
    with http.stream("POST", "chat/completions", json=body) as response:
        try:
            for piece in response.iter_raw():
                received += piece
        except httpx.TransportError:
            pass
    return response, bytes(received)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_event_can_be_decoded_when_it_comes(
    cline_api: Simulator, dial: Dial, encoding: Encoding
) -> None:
    gate = Gate()
    cline_api.enqueue(Reply.stream("one two", encoding=encoding, gate=gate))
    sock = dial(on_the_wire(ask()))
    head = read_until(sock, b"\r\n\r\n")
    assert f"content-encoding: {encoding}".encode() in head.lower()
    decoder = Decoder(encoding)
    for expected in (b'"role"', b'"one"', b'" two"', b'"stop"', b"data: [DONE]"):
        assert not decoder.ended
        gate.release()
        event = decoder.decode(read_chunk(sock))
        assert expected in event
        assert event.endswith(b"\n\n")
    assert decoder.ended
    assert read_chunk(sock) == b""


@pytest.mark.parametrize("family", [httpx, httpx2])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_client_reads_every_kind_of_body(
    cline_api: Simulator, encoding: Encoding, family: Any
) -> None:
    cline_api.enqueue(
        Reply.ok(TEXT, encoding=encoding),
        Reply.ok(TEXT, encoding=encoding),
        Reply.completion(TEXT, encoding=encoding),
        Reply.raw(body=TEXT.encode(), encoding=encoding),
        Reply.raw(body=[TEXT.encode(), b"", b"."], encoding=encoding),
        Reply.raw(body=[], encoding=encoding),
        Reply.error(429, message=TEXT, encoding=encoding),
        Reply.html(html=TEXT, encoding=encoding),
        Reply.stream(TEXT, encoding=encoding, split=1),
        Reply.stream(TEXT, encoding=encoding, cut_after=1),
    )
    with family.Client(base_url=cline_api.base_url, timeout=PATIENCE, trust_env=False) as client:
        answers = [client.post("chat/completions", json=ask(n == 0)) for n in range(10)]
    stream, document, completion, whole, chunked, empty, error, page, split, cut = answers
    assert {answer.headers["content-encoding"] for answer in answers} == {encoding}
    assert stream.text.endswith("data: [DONE]\n\n")
    assert stream.headers["transfer-encoding"] == "chunked"
    for answer in (document, completion):
        assert answer.json()["choices"][0]["message"]["content"] == TEXT
        assert answer.headers["content-length"] == str(answer.num_bytes_downloaded)
    assert (whole.text, chunked.text, empty.text) == (TEXT, f"{TEXT}.", "")
    assert (error.status_code, error.json()["error"]["message"]) == (429, TEXT)
    assert (page.status_code, page.text) == (502, TEXT)
    assert split.text.count("data: ") == stream.text.count("data: ")
    assert cut.text.count("data: ") == 2
    assert {request.connection for request in cline_api.requests} == {1}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_sdk_reads_an_encoded_stream(
    cline_api: Simulator, sdk: openai.OpenAI, encoding: Encoding
) -> None:
    cline_api.enqueue(Reply.stream(TEXT, encoding=encoding))
    with sdk.chat.completions.create(model="x", messages=[], stream=True) as stream:
        assert "".join(c.choices[0].delta.content or "" for c in stream) == TEXT


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("then", ["end", "close"])
def test_the_trailer_comes_only_with_an_end(
    cline_api: Simulator, http: httpx.Client, encoding: Encoding, then: Literal["end", "close"]
) -> None:
    cline_api.enqueue(Reply.stream("one two", cut_after=1, encoding=encoding, then=then))
    _, body = raw_body(http, ask())
    decoder = Decoder(encoding)
    assert decoder.decode(body).count(b"data: ") == 2
    assert decoder.ended == (then == "end")


def test_pieces_are_cut_after_the_encoding(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.stream(TEXT, encoding="gzip", split=7))
    chunks = read_chunks(dial(on_the_wire(ask())))
    assert {len(chunk) for chunk in chunks[:-1]} == {7}
    assert gzip.decompress(b"".join(chunks)).endswith(b"data: [DONE]\n\n")


def test_a_wrong_encoding_can_be_told(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(
        Reply.ok(headers={"Content-Encoding": "x-unknown"}, encoding="gzip"),
        Reply.raw(headers={"content-encoding": "x-unknown"}, body=b"abc"),
    )
    responses = [http.post("chat/completions", json=ask(False)) for _ in range(2)]
    assert [r.headers.get_list("content-encoding") for r in responses] == [["x-unknown"]] * 2
    assert json.loads(gzip.decompress(responses[0].content))["object"] == "chat.completion"
    assert responses[1].content == b"abc"


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("module", ZSTD_MODULES)
def test_any_zstd_does(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    # The standard library's is the backport's original, with the same interface.
    found = import_module("backports.zstd" if module == "compression.zstd" else module)
    without(monkeypatch, *ZSTD_MODULES)
    monkeypatch.setitem(sys.modules, module, found)
    encoder = encoder_for("zstd")
    decoder = zstandard.ZstdDecompressor().decompressobj()
    assert decoder.decompress(encoder.piece(b"one")) == b"one"
    assert decoder.decompress(encoder.piece(b"two")) == b"two"
    assert (decoder.decompress(encoder.end()), decoder.eof) == (b"", True)


@pytest.mark.parametrize(
    ("encoding", "package", "extra", "modules"),
    [
        ("br", "brotli", "brotli", ("brotli", "brotlicffi")),
        ("zstd", "backports.zstd", "zstd", ZSTD_MODULES),
    ],
)
def test_a_package_that_is_missing_is_named_when_the_reply_is_made(
    monkeypatch: pytest.MonkeyPatch,
    encoding: Encoding,
    package: str,
    extra: str,
    modules: tuple[str, ...],
) -> None:
    without(monkeypatch, *modules)
    with pytest.raises(ImportError) as caught:
        Reply.ok(encoding=encoding)
    assert str(caught.value) == (
        f"the encoding {encoding} needs the package {package!r}: "
        f"pip install 'cline-transport[{extra}]'"
    )
    assert caught.value.name == package


def test_bytes_are_cut_where_told(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(
        *(Reply.raw(body=[b"abc", b"def"], cut_at=at) for at in (0, 2, 3, 4, 6, 99)),
    )
    bodies = [http.post("chat/completions", json=ask()).content for _ in range(6)]
    assert bodies == [b"", b"ab", b"abc", b"abcd", b"abcdef", b"abcdef"]
    assert {request.connection for request in cline_api.requests} == {1}


def test_a_cut_says_its_length_only_if_it_ends_cleanly(
    cline_api: Simulator, http: httpx.Client
) -> None:
    cline_api.enqueue(
        Reply.raw(body=b"abc", cut_at=2),
        Reply.raw(body=b"abc", cut_at=0),
        Reply.raw(body=b"abc", cut_at=2, then="close"),
        Reply.ok(cut_at=5),
        Reply.ok(cut_at=5, then="close"),
    )
    answers = [raw_body(http, ask(False)) for _ in range(5)]
    assert [body for _, body in answers] == [b"ab", b"", b"ab", b'{"id"', b'{"id"']
    lengths = [response.headers["content-length"] for response, _ in answers]
    assert lengths[:4] == ["2", "0", "3", "5"]
    assert int(lengths[4]) > 100


@pytest.mark.parametrize("then", ["end", "close"])
def test_a_stream_is_cut_in_the_middle_of_an_event(
    cline_api: Simulator, http: httpx.Client, then: Literal["end", "close"]
) -> None:
    cline_api.enqueue(Reply.stream(cut_at=300, then=then))
    _, body = raw_body(http, ask())
    assert (len(body), body.count(b"data: ")) == (300, 2)
    assert b"[DONE]" not in body


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_cut_counts_encoded_bytes_with_the_trailer(
    cline_api: Simulator, http: httpx.Client, encoding: Encoding
) -> None:
    reply = Reply.stream(response_id="gen-1", encoding=encoding, cut_at=99999, then="close")
    cline_api.enqueue(reply)
    _, whole = raw_body(http, ask())
    decoder = Decoder(encoding)
    assert decoder.decode(whole).endswith(b"data: [DONE]\n\n")
    assert decoder.ended
    cline_api.enqueue(
        Reply.raw(body=[b"abc"], encoding=encoding, cut_at=5, then="close"),
    )
    assert len(raw_body(http, ask())[1]) == 5


def test_a_cut_stream_can_stall(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.stream(cut_at=9, split=4, then="stall"))
    sock = dial(on_the_wire(ask()))
    read_until(sock, b"\r\n\r\n")
    assert [read_chunk(sock) for _ in range(3)] == [b"data", b': {"', b"i"]
    assert cline_api.connections_open == 1
    cline_api.stop()
    assert read_all(sock) == b""


def test_bytes_drip(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(
        Reply.raw(body=[b"abc", b"", b"defgh"], drip=(3, 0.0)),
        Reply.stream("Hi", drip=(100, 0.001), encoding="gzip"),
        Reply.raw(body=b"abcdefgh", drip=(3, 0), cut_at=7, headers={"connection": "close"}),
    )
    sock = dial(on_the_wire(ask()))
    assert read_chunks(sock) == [b"abc", b"def", b"gh"]
    sock.sendall(on_the_wire(ask()))
    chunks = read_chunks(sock)
    assert {len(chunk) for chunk in chunks[:-1]} == {100}
    assert b'"Hi"' in gzip.decompress(b"".join(chunks))
    sock.sendall(on_the_wire(ask()))
    assert read_all(sock).endswith(b"\r\n\r\nabcdefg")


def test_the_first_drop_does_not_wait_and_the_next_one_does(
    cline_api: Simulator, dial: Dial
) -> None:
    cline_api.enqueue(Reply.raw(body=[b"abcdefgh"], drip=(3, 1e6)))
    sock = dial(on_the_wire(ask()))
    read_until(sock, b"\r\n\r\n")
    assert read_chunk(sock) == b"abc"
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    cline_api.stop()


def test_each_drop_takes_a_permit(cline_api: Simulator, dial: Dial) -> None:
    gate = Gate(permits=1)
    cline_api.enqueue(Reply.raw(body=[b"abcd"], drip=(2, 0.0), gate=gate))
    sock = dial(on_the_wire(ask()))
    read_until(sock, b"\r\n\r\n")
    assert read_chunk(sock) == b"ab"
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    sock.settimeout(PATIENCE)
    gate.release()
    assert (read_chunk(sock), read_chunk(sock)) == (b"cd", b"")


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
