# SPDX-License-Identifier: Apache-2.0
"""Bytes in, complete server-sent events out, bounded in memory (WHATWG HTML, section 9.2).

Nothing is decoded and no byte is changed: what goes in comes out, cut at event boundaries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["Event", "EventSplitter", "Run", "parse_event", "split_events", "write_event"]

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# A line end that ends a line, then one that ends an empty line; a CRLF is one, never two.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LF: Final = 10
_CR: Final = 13
_BOM: Final = b"\xef\xbb\xbf"


class Run(NamedTuple):
    """Bytes that may be looked at, or must be passed on, together.

    `data` is a whole number of events, unless `opaque`: then it is a part of an event that is
    larger than the bound, to be passed on unread.
    """

    data: bytes
    opaque: bool = False


class EventSplitter:
    r"""Cut a stream into runs of whole events, as soon as each event is complete.

    Args:
        max_event_bytes: An event above this many bytes passes through in opaque pieces.

    Examples:
        >>> splitter = EventSplitter(max_event_bytes=1024)
        >>> splitter.feed(b"data: 1\n\ndata: 2\n"), splitter.feed(b"\n")
        ([Run(data=b'data: 1\n\n', opaque=False)], [Run(data=b'data: 2\n\n', opaque=False)])
    """

    __slots__ = ("_held", "_last", "_max", "_opaque")

    def __init__(self, *, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._held = bytearray()
        self._last = 0  # the last byte fed: a boundary, or a CRLF, may lie across two chunks
        self._opaque = False

    @property
    def idle(self) -> bool:
        """Whether the last chunk ended with an event, so that the next begins with one."""
        return self._last == _LF and not self._held and not self._opaque

    def feed(self, chunk: bytes) -> list[Run]:
        """Take a chunk; return the runs that it completes (often one: the chunk itself)."""
        if not chunk:
            return []
        held, last = self._held, self._last
        self._last = chunk[-1]
        if not held and not self._opaque and chunk.endswith(b"\n\n"):
            return [Run(chunk)]  # the usual case: one write, one or more events
        if last == _CR and chunk[0] == _LF and not held and not self._opaque:
            # The second half of a CRLF whose CR has ended the event before: it goes at once too.
            rest = chunk[1:]
            return [Run(b"\n"), *self._feed(rest, _LF)] if rest else [Run(b"\n")]
        return self._feed(chunk, last)

    def _feed(self, chunk: bytes, last: int) -> list[Run]:
        runs: list[Run] = []
        cut = _last_boundary(chunk, last)
        if cut and self._opaque:
            # The event that was too large ends at the first boundary.
            first = _first_boundary(chunk, last)
            runs.append(Run(chunk[:first], opaque=True))
            self._opaque = False
            chunk, cut = chunk[first:], cut - first
        if cut:
            self._held += memoryview(chunk)[:cut]
            runs.append(Run(bytes(self._held)))
            self._held.clear()
            chunk = chunk[cut:]
        if self._opaque:
            runs.append(Run(chunk, opaque=True))
        elif chunk:
            self._held += chunk
            if len(self._held) > self._max:
                runs.append(Run(bytes(self._held), opaque=True))
                self._held.clear()
                self._opaque = True
        return runs

    def flush(self) -> bytes:
        """End of stream: the bytes of an event without its blank line, or none."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


def _last_boundary(chunk: bytes, last: int) -> int:
    """Where the last blank line in `chunk` ends, 0 for none; `last` is the byte before it."""
    cut = max(chunk.rfind(b"\n\n"), chunk.rfind(b"\n\r"), chunk.rfind(b"\r\r"))
    if cut >= 0:
        cut += 2
    elif (last == _LF and chunk[0] in b"\r\n") or (last == _CR and chunk[0] == _CR):
        cut = 1
    else:
        return 0
    return cut + (chunk[cut - 1] == _CR and chunk[cut : cut + 1] == b"\n")


def _first_boundary(chunk: bytes, last: int) -> int:
    if (last == _LF and chunk[0] in b"\r\n") or (last == _CR and chunk[0] == _CR):
        return 1 + (chunk[:2] == b"\r\n")
    found = _BLANK_LINE.search(chunk)
    return found.end() if found else len(chunk)


def _is_usual(run: bytes) -> bool:
    """Whether it is one event of one line, as nearly all are."""
    return run.find(b"\n") == len(run) - 2 and run.endswith(b"\n\n") and _CR not in run


def split_events(run: bytes) -> Iterator[bytes]:
    """Cut a run into its events, each with its blank line; the parts joined are the run.

    One at a time: an object for each of many tiny events would take many times their bytes.
    """
    if _is_usual(run):
        yield run
        return
    start = 0
    for found in _BLANK_LINE.finditer(run):
        yield run[start : found.end()]
        start = found.end()
    if start < len(run):
        yield run[start:]


class Event(NamedTuple):
    """The fields of an event that matter here. `data` is `None` where it has no data line."""

    name: str
    data: bytes | None


def parse_event(raw: bytes) -> Event:
    r"""Read an event's `event` and `data` fields; comments and other fields are passed over.

    Examples:
        >>> parse_event(b"event: error\r\ndata:1\r\ndata: 2\r\n\r\n")
        Event(name='error', data=b'1\n2')
    """
    if _is_usual(raw) and raw.startswith(b"data: "):
        return Event("", raw[6:-2])
    name = ""
    data: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    return Event(name, b"\n".join(data) if data else None)


def write_event(raw: bytes, data: bytes) -> bytes:
    """The event `raw` with its data replaced, its other lines and its line ends kept.

    An event without its blank line gains one. `data` holds no line end.
    """
    found = _LINE_END.search(raw)
    end = found.group() if found else b"\n"
    lines = [
        line
        for line in _LINE_END.split(raw)
        if line and line.removeprefix(_BOM).partition(b":")[0] != b"data"
    ]
    return end.join([*lines, b"data: " + data, b"", b""])
