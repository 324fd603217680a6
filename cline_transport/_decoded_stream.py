# SPDX-License-Identifier: Apache-2.0
"""An event stream with its reader, whatever encoding it came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cline_transport._decoding import Decoder
from cline_transport.inspection import StreamReader

__all__ = ["DecodedStream", "always"]


class DecodedStream:
    """Lets a reader see a stream as it passes, decoded.

    Args:
        reader: What looks at the events.
        decoder: That of the stream's encoding; `None`: it has none.
        observes: Encoded bytes are delivered as they came; else decoded, as events may be changed.
        since: The time at which its headers came.

    Attributes:
        since: The same.
        held: Bytes that are held back.
        reader: What looks at the events.
        rewrites: Whether it is delivered decoded, though it came encoded.
        lost: Whether the bytes could not be decoded: what follows is not looked at.
    """

    __slots__ = ("_decoder", "_held", "_observes", "held", "lost", "reader", "rewrites", "since")

    def __init__(
        self, reader: StreamReader, decoder: Decoder | None, *, observes: bool, since: float
    ) -> None:
        self.since = since
        self.held = 0
        self._held: list[bytes] = []
        self.reader = reader
        self.rewrites = decoder is not None and not observes
        self.lost = False
        self._decoder = decoder
        self._observes = observes

    @classmethod
    def of(
        cls, family: Any, encoding: str, reader: StreamReader, *, observes: bool, since: float
    ) -> DecodedStream | None:
        """A stream in this `content-encoding`; `None` for one that cannot be decoded here.

        Args:
            family: What knows the client library's decoders.
            encoding: The header's value.
            reader: What looks at the events.
            observes: Whether the bytes are to be delivered as they came.
            since: The time at which its headers came.
        """
        if encoding.strip().lower() in ("", "identity"):
            return cls(reader, None, observes=observes, since=since)
        decoder = Decoder.of(family, encoding)
        if decoder is None:
            return None
        return cls(reader, decoder, observes=observes, since=since)

    @property
    def passes(self) -> Callable[[bytes], bool]:
        """Asked of each chunk: whether `feed` would return it as it is, and learn nothing."""
        return self.reader.passes if self._decoder is None else _never

    def hold(self, out: bytes) -> None:
        """Keep what may be delivered, for later."""
        self._held.append(out)
        self.held += len(out)

    def take_held(self) -> bytes:
        """What was kept, to be delivered first."""
        held = b"".join(self._held)
        self._held.clear()
        return held

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk as it came; return what may be delivered of it.

        Raises:
            DecodingError: The family's; not where the stream is only observed.
        """
        if self._decoder is None:
            return self.reader.feed(chunk)
        if not self._observes:
            return self.reader.feed(self._decoder.decode(chunk))
        if not self.lost:
            try:
                self.reader.feed(self._decoder.decode(chunk))
            except Exception:  # noqa: BLE001 -- what cannot be decoded is the client's to find out
                self.lost = True
        return chunk

    def finish(self) -> bytes:
        """The reader's last word; with an encoding, after what the decoder still has.

        Raises:
            DecodingError: The family's: the encoding has no end, though the answer has.
        """
        if self._decoder is None or self._observes:
            return b"" if self.lost else self.reader.finish()
        try:
            out = self.reader.feed(self._decoder.flush())
        except Exception:
            # An encoding without its end: of an answer that is not whole, this is how it shows.
            out = self.reader.finish()
            if self.reader.failure is None and not self.reader.complete:
                raise
            return out
        return out + self.reader.finish()


def always(_: bytes) -> bool:
    """Every chunk passes: nobody looks at the body."""
    return True


def _never(_: bytes) -> bool:
    return False
