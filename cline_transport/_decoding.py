"""Looking into an encoded body: the client library's own decoder, fed piece by piece."""

from __future__ import annotations

from typing import Any, Final, Protocol

__all__ = ["Decoder"]

KNOWN: Final = frozenset({"gzip", "deflate", "br", "zstd"})
_SLICE: Final = 1024
"""Bytes that are decoded at a time, so that a compression bomb is met with early."""


class _Family(Protocol):
    def decoder(self, encoding: str) -> Any: ...


class Decoder:
    """A content decoder of either family: one gives bytes, the other an iterator of them."""

    __slots__ = ("_decoder",)

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    @classmethod
    def of(cls, family: _Family, encoding: str) -> Decoder | None:
        """The decoder for an encoding; `None` for none, an unknown or an uninstalled one."""
        names = {name.strip().lower() for name in encoding.split(",")} - {"", "identity"}
        if not names or not names <= KNOWN:
            return None
        decoder = family.decoder(encoding)
        return None if type(decoder).__name__ == "IdentityDecoder" else cls(decoder)

    def decode(self, data: bytes) -> bytes:
        """Decode what came; what is not complete yet is kept.

        Raises:
            DecodingError: The family's: the bytes are not what the encoding says.
        """
        decoded: Any = self._decoder.decode(data)
        return decoded if isinstance(decoded, bytes) else b"".join(decoded)

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
            for start in range(0, len(raw), _SLICE):
                out += self.decode(raw[start : start + _SLICE])
                if len(out) > limit:
                    return bytes(out[:limit]), False
            out += self.flush()
        except Exception:  # noqa: BLE001 -- each family has an exception of its own for it
            return bytes(out), False
        return bytes(out), True
