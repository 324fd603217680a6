# SPDX-License-Identifier: Apache-2.0
"""What holds for any bytes at all: one check for each place that reads what somebody else wrote."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

from cline_transport import Settings, SettingsError, error_info
from cline_transport._protocols import RequestHead
from cline_transport._redaction import redact
from cline_transport.inspection import OnError, StreamReader
from cline_transport.record import CallRecord
from cline_transport.retry import read_server_advice
from cline_transport.sse import EventSplitter, split_events
from cline_transport.wire import as_mapping, clip, load_json, normalize_error_body, read_chunk_error

__all__ = ["SEEDS", "TARGETS"]

SEEDS: Final = Path(__file__).parent / "seeds"
SECRET: Final = "sk-SECRETKEY0123456789"
MAX_EVENT: Final = 512


def check_events(data: bytes) -> None:
    """The first byte chooses the cuts. What goes in comes out, however it is cut."""
    chance, stream = random.Random(data[:1]), data[1:]  # noqa: S311 -- chance, not secrecy
    chunks = _cut(stream, chance)
    splitter = EventSplitter(max_event_bytes=MAX_EVENT)
    runs = [run for chunk in chunks for run in splitter.feed(chunk)]
    assert b"".join(run.data for run in runs) + splitter.flush() == stream
    for run in runs:
        assert b"".join(split_events(run.data)) == run.data

    # After content, JSON is parsed where a finish reason is spelt as servers spell it.
    usual = stream.count(b'"finish_reason":"') + stream.count(b'"finish_reason": "')
    as_spelt = usual == stream.count(b"finish_reason") and b"\\u" not in stream
    for on_error in ("observe", "normalize", "raise"):
        at_once, failed = _read([stream], on_error)
        if as_spelt:
            assert _read(chunks, on_error) == (at_once, failed)
        if on_error == "observe" or not failed:
            assert at_once in (stream, stream + b"\n\n")


def _cut(stream: bytes, chance: random.Random) -> list[bytes]:
    chunks: list[bytes] = []
    at = 0
    while at < len(stream):
        size = chance.choice((1, 1, 2, 3, 7, 50, 1000))
        chunks.append(stream[at : at + size])
        at += size
    return chunks


def _read(chunks: list[bytes], on_error: OnError) -> tuple[bytes, bool]:
    # An event above the bound passes unread only where it comes in pieces: not in question here.
    reader = StreamReader(CallRecord(), on_error=on_error, max_event_bytes=2**30)
    out = b""
    for chunk in chunks:
        out += reader.feed(chunk)
        if on_error == "raise" and reader.failure is not None:
            return out, True
    return out + reader.finish(), reader.failure is not None


def check_errors(data: bytes) -> None:
    """Any body ends as the documented format or passes; nothing raises."""
    for content_type in ("application/json", "text/html"):
        for complete in (True, False):
            found = normalize_error_body(500, content_type, data, complete=complete)
            assert found.error.message
            if found.rewritten is not None:
                error = json.loads(found.rewritten)["error"]
                assert isinstance(error["message"], str)
                assert "code" in error
                assert "metadata" in error
            line = clip(found.error.message)
            assert len(line) <= 1024
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)
    payload: Any = load_json(data)
    error = read_chunk_error(payload)
    if as_mapping(payload) is not None:
        info = error_info(payload)
        assert (info is None) == (error is None)
        if info is not None:
            report = info.report()
            assert len(report.splitlines()) == 6
            assert len(report) < 4096


def check_advice(data: bytes) -> None:
    """A header, and after a NUL byte a body's metadata: a wait >= 0, or none."""
    header, _, body = data.partition(b"\0")
    value = header.decode("latin-1")
    inside = as_mapping(load_json(body)) or {}
    for headers in ({"retry-after": value}, {"retry-after-ms": value}, {"x-should-retry": value}):
        advice = read_server_advice(headers, 1.7e9, inside)
        assert advice.retry_after is None or advice.retry_after >= 0
        assert advice.should_retry in {None, True, False}


def check_settings(data: bytes) -> None:
    """A file of any bytes: settings, or a `SettingsError` without the secret that is in them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.toml"
        path.write_bytes(data.replace(b"SECRET", SECRET.encode()))
        environment = {
            name: value for name, value in os.environ.items() if "CLINE_TRANSPORT" not in name
        }
        with mock.patch.dict(
            os.environ, {**environment, "CLINE_TRANSPORT_CONFIG": str(path)}, clear=True
        ):
            try:
                Settings()
            except SettingsError as exc:
                assert SECRET not in str(exc)  # noqa: PT017 -- it need not be raised


def check_redaction(data: bytes) -> None:
    """A text that repeats a request's key and prompt loses both; any other is a text still."""
    text = data.decode("utf-8", "replace")
    prompt = f"Tell me of {SECRET[3:]}"
    body = json.dumps({"messages": [{"role": "user", "content": prompt}, {"content": text}]})
    headers = {"authorization": f"Bearer {SECRET}", "x-other": text}
    query = text.encode("ascii", "ignore")[:200]
    head = RequestHead("POST", "https", "host", None, "/", headers, body.encode(), query)
    told = redact(f"{text} {SECRET} {prompt}", head)
    assert SECRET not in told
    assert prompt not in told
    assert SECRET not in redact(text, head)
    with suppress(UnicodeEncodeError):  # what came out can be written if what went in could
        text.encode()
        told.encode()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "events": check_events,
    "errors": check_errors,
    "advice": check_advice,
    "settings": check_settings,
    "redaction": check_redaction,
}
