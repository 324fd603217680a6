# SPDX-License-Identifier: Apache-2.0
"""Looking into an encoded body: the client library's own decoder, fed piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Protocol

__all__ = ["MAX_AT_ONCE", "Decoder"]

# Bytes that are decoded at a time: 1 KiB of gzip becomes 1 MiB at most, one of brotli gigabytes.
_SLICES: Final = {"gzip": 1024, "deflate": 1024, "zstd": 128, "br": 16}
MAX_AT_ONCE: Final = 8 * 1024 * 1024
"""Bytes that one read of an encoded stream may become: a compression bomb becomes more."""


class _Family(Protocol):
    @property
    def decoding_error(self) -> type[Exception]: ...

    def decoder(self, encoding: str) -> Any: ...


class Decoder:
    """A content decoder of either family: one gives bytes, the other an iterator of them."""

    __slots__ = ("_decoder", "_error", "_make", "_name")

    def __init__(self, name: str, make: Callable[[], Any], error: type[Exception]) -> None:
        self._name = name
        self._make = make
        self._decoder = make()
        self._error = error

    @classmethod
    def of(cls, family: _Family, encoding: str) -> Decoder | None:
        """The decoder for an encoding; `None` for none, an unknown or an uninstalled one.

        Also for several, one upon the other: each multiplies what the one before made.
        """
        names = [name.strip().lower() for name in encoding.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        if len(names) != 1 or names[0] not in _SLICES:
            return None
        [name] = names
        made = cls(name, partial(family.decoder, name), family.decoding_error)
        return None if type(made._decoder).__name__ == "IdentityDecoder" else made

    def decode(self, data: bytes) -> bytes:
        """Decode what came; what is not complete yet is kept.

        Raises:
            DecodingError: The family's: the bytes are not what the encoding says, or become more
                than `MAX_AT_ONCE`.
        """
        out = bytearray()
        for piece in self._pieces(data):
            out += piece
            if len(out) > MAX_AT_ONCE:
                raise self._error(f"{len(data)} bytes became more than {MAX_AT_ONCE} when decoded")
        return bytes(out)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        size = _SLICES[self._name]
        for start in range(0, len(data), size):
            if self._name == "zstd":
                self._begin_frame()
            decoded: Any = self._decoder.decode(data[start : start + size])
            if isinstance(decoded, bytes):
                yield decoded
            else:
                yield from decoded

    def _begin_frame(self) -> None:
        """Another frame of zstd may come after one; httpx sees only one in the same read."""
        if getattr(getattr(self._decoder, "decompressor", None), "eof", False):
            self._decoder = self._make()

    def flush(self) -> bytes:
        """The end: what is left.

        Raises:
            DecodingError: The family's: the encoding has no end.
        """
        decoded: Any = self._decoder.flush()
        return decoded if isinstance(decoded, bytes) else b"".join(decoded)

    def decode_all(self, raw: bytes, limit: int) -> tuple[bytes, bool]:
        """Decode a body up to `limit` bytes; return it, and whether that is all of it."""
        out = bytearray()
        try:
            for piece in self._pieces(raw):
                out += piece
                if len(out) > limit:
                    return bytes(out[:limit]), False
            out += self.flush()
        except Exception:  # noqa: BLE001 -- each family has an exception of its own for it
            return bytes(out), False
        return bytes(out), True
