# SPDX-License-Identifier: Apache-2.0
"""Content encodings that are flushed after each piece, so that it can be decoded at once."""

from __future__ import annotations

import zlib
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cline_transport._extras import absent

if TYPE_CHECKING:
    from collections.abc import Callable

Encoding = Literal["gzip", "deflate", "br", "zstd"]

# The standard library's (Python 3.14), its backport, and the older one with its own interface.
ZSTD_MODULES = ("compression.zstd", "backports.zstd", "zstandard")


class Encoder(NamedTuple):
    """The encoder of one body."""

    piece: Callable[[bytes], bytes]
    """Encode and flush: what was given so far can be decoded from what was returned so far."""
    end: Callable[[], bytes]
    """The last bytes of the encoded body: the trailer."""


def encoder_for(encoding: Encoding) -> Encoder:
    """A new encoder. Raises `ImportError`, naming the package, if the encoding needs one."""
    if encoding == "br":
        return _brotli()
    if encoding == "zstd":
        return _zstd()
    # RFC 9110's deflate is the zlib format.
    deflater = zlib.compressobj(wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))

    def piece(data: bytes) -> bytes:
        return deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)

    return Encoder(piece, deflater.flush)


def _brotli() -> Encoder:
    compressor = _first("br", "brotli", ("brotli", "brotlicffi")).Compressor()

    def piece(data: bytes) -> bytes:
        encoded: bytes = compressor.process(data) + compressor.flush()
        return encoded

    return Encoder(piece, compressor.finish)


def _zstd() -> Encoder:
    module = _first("zstd", "backports.zstd", ZSTD_MODULES)
    compressor = module.ZstdCompressor()
    if hasattr(module, "COMPRESSOBJ_FLUSH_BLOCK"):
        compressor = compressor.compressobj()

    def piece(data: bytes) -> bytes:
        encoded: bytes
        if hasattr(module, "COMPRESSOBJ_FLUSH_BLOCK"):
            encoded = compressor.compress(data) + compressor.flush(module.COMPRESSOBJ_FLUSH_BLOCK)
        else:
            encoded = compressor.compress(data, compressor.FLUSH_BLOCK)
        return encoded

    return Encoder(piece, compressor.flush)


def _first(encoding: str, package: str, modules: tuple[str, ...]) -> Any:
    """The first of `modules` that is installed."""
    for name in modules:
        with suppress(ImportError):
            return import_module(name)
    raise absent(package, f"the encoding {encoding}")
