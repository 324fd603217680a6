# SPDX-License-Identifier: Apache-2.0
"""Streams that come compressed: looked into, and delivered decoded."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from cline_transport.simulator import Gate, Reply, Simulator

from .events import DONE, EVENTS, ROLE, STOP, WORD, client, error, events
from .rig import CHAT, Rig


def flushed(encoding: str, parts: list[bytes]) -> list[bytes]:
    if encoding == "identity":
        return parts
    encoder = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    out = [encoder.compress(part) + encoder.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*out[:-1], out[-1] + encoder.flush()]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZIP"])
def test_an_encoded_stream_is_looked_into_and_delivered_decoded(
    rig: Rig, api: Simulator, url: str, encoding: str
) -> None:
    good = flushed(encoding.lower(), [ROLE, WORD, STOP, DONE])
    bad = flushed(encoding.lower(), [ROLE, error("server_error"), DONE])
    api.enqueue(events(*bad, content_encoding=encoding), events(*good, content_encoding=encoding))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body == ROLE + WORD + STOP + DONE
    assert answer.headers.get("content-encoding", "identity") == "identity"
    assert answer.record.retries == 1
    assert answer.record.completed


def test_its_events_do_not_wait_for_the_next(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate(2)
    parts = flushed("gzip", [ROLE, WORD, WORD, STOP])
    api.enqueue(events(*parts, gate=gate, content_encoding="gzip"))
    subject = client(rig)
    response = subject.open("POST", url, json=CHAT)
    seen = b""
    for chunk in subject.chunks(response):
        seen += chunk
        gate.release()  # only now does the server write the next event
    assert seen == ROLE + WORD + WORD + STOP
    subject.close(response)


def test_observe_leaves_the_encoded_bytes(rig: Rig, api: Simulator, url: str) -> None:
    sent = b"".join(flushed("gzip", [ROLE, WORD, error("server_error")]))
    api.enqueue(events(sent, content_encoding="gzip"))
    answer = client(rig, on_error="observe").post(url, json=CHAT)
    assert answer.body == sent
    assert gzip.decompress(answer.body).startswith(ROLE)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.record.error is not None


def test_what_is_not_what_its_encoding_says_is_the_clients_error(
    rig: Rig, api: Simulator, url: str
) -> None:
    broken = events(b"\x1f\x8bnot really", content_encoding="gzip")
    api.enqueue(broken, broken)
    answer = client(rig).post(url, json=CHAT)
    assert isinstance(answer.exception, rig.exception("DecodingError"))
    assert len(api.requests) == 1
    api.enqueue(replace(broken, drip=(5, 0.0)))
    for _ in range(2):  # in one piece, and in several
        answer = client(rig, on_error="observe").post(url, json=CHAT)
        assert answer.body == b"\x1f\x8bnot really"
        assert answer.exception is None


def test_an_encoding_that_is_not_known_is_said_on_the_span(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(events(b"\x00\x01", content_encoding="x-secret"))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body == b"\x00\x01"
    [call], _ = rig.finished()
    assert dict(call.attributes or {})["cline.stream.inspected"] is False


@pytest.mark.parametrize("second", ["gzip", "br", "identity"])
def test_encodings_in_several_lines_are_one_list(
    rig: Rig, api: Simulator, url: str, second: str
) -> None:
    """One upon the other is not looked into; and one of them alone must not be taken off."""
    brotli: Any = import_module("brotli")  # it has no types
    upon = {"gzip": gzip.compress, "br": brotli.compress, "identity": bytes}[second]
    body: bytes = upon(gzip.compress(ROLE + WORD + STOP + DONE))
    lines = [("content-encoding", "gzip"), ("content-encoding", second)]
    api.enqueue(Reply.raw(200, headers=[*EVENTS, *lines], body=[body]))
    subject = client(rig)
    read = subject.run(lambda: subject.raw.post(url, json=CHAT))
    assert read.content == ROLE + WORD + STOP + DONE
    assert len(api.requests) == 1


@pytest.mark.parametrize("before", range(6))
def test_a_frame_of_zstd_may_end_anywhere(rig: Rig, api: Simulator, url: str, before: int) -> None:
    """It is decoded piece by piece; httpx looks for another frame within a piece only."""
    import zstandard  # noqa: PLC0415 -- a package for tests of this only

    words = [b": " + b"ab"[: 1 + n % 2] * n + b"\n\n" for n in range(before, 120)]
    parts = [ROLE, *words, WORD, STOP, DONE]
    body = b"".join(map(zstandard.ZstdCompressor().compress, parts))
    api.enqueue(events(body, content_encoding="zstd"))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body == b"".join(parts)
    assert len(api.requests) == 1


def test_an_encoding_without_its_end_is_no_failure_of_a_whole_answer(
    rig: Rig, api: Simulator, url: str
) -> None:
    sent = b"".join(zstd_parts(ROLE + WORD + STOP + DONE))
    api.enqueue(events(sent, content_encoding="zstd"))
    answer = client(rig).post(url, json=CHAT)
    assert answer.body == ROLE + WORD + STOP + DONE
    assert answer.record.completed


def test_of_any_other_stream_it_is_the_clients_error(rig: Rig, api: Simulator) -> None:
    sent = b"".join(zstd_parts(b"data: tick\n\n"))
    api.enqueue(events(sent, content_encoding="zstd"))
    answer = client(rig).post(f"{api.base_url}/events", json={})
    assert answer.body == b"data: tick\n\n"
    assert isinstance(answer.exception, rig.exception("DecodingError"))


def zstd_parts(data: bytes) -> list[bytes]:
    """A frame whose blocks are whole, and which has no end."""
    import zstandard  # noqa: PLC0415 -- a package for tests of this only

    encoder = zstandard.ZstdCompressor().compressobj()
    return [encoder.compress(data), encoder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
