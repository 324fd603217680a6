# SPDX-License-Identifier: Apache-2.0
"""What a request's JSON body asks for, found without parsing a long prompt."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cline_transport.wire import as_mapping, clean, load_json

__all__ = ["RequestFacts", "make_explicit", "read_request"]

_BACKSLASH: Final = 0x5C


class RequestFacts(NamedTuple):
    """What a request body says; `None` where it does not."""

    model: str | None = None
    stream: bool | None = None


# A key inside a JSON string has its quotes escaped, so these match keys (or values) only.
_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_STREAM: Final = re.compile(rb'"stream"\s*:\s*(true|false)')


def read_request(body: bytes) -> RequestFacts:
    """Read `model` and `stream` from a JSON request body, without parsing a long prompt for it.

    Examples:
        >>> read_request(b'{"model": "anthropic/claude-sonnet-4.6", "stream": true}')
        RequestFacts(model='anthropic/claude-sonnet-4.6', stream=True)
    """
    find = body.find
    at_model, at_stream = find(b'"model"'), find(b'"stream"')
    model: object = None
    stream: object = None
    if find(b'"model"', at_model + 1) < 0 and find(b'"stream"', at_stream + 1) < 0:
        if at_model >= 0 and (found := _MODEL.match(body, at_model)):
            model = _text(found[1])
        if at_stream >= 0 and (found := _STREAM.match(body, at_stream)):
            stream = found[1] == b"true"
    else:
        # Nested objects use the same keys: only a parser tells which are the request's own.
        top = as_mapping(load_json(body)) or {}
        model, stream = top.get("model"), top.get("stream")
    return RequestFacts(
        clean(model)[:256] if isinstance(model, str) else None,
        stream if isinstance(stream, bool) else None,
    )


def _text(literal: bytes) -> object:
    """A JSON string; most need no parser."""
    if _BACKSLASH in literal:
        return load_json(literal)
    return literal[1:-1].decode("utf-8", "replace")


def make_explicit(body: bytes) -> bytes | None:
    """The body with `"stream": false` in it; `None` where it says something of streaming.

    The API streams by default, the SDK expects JSON where it did not ask for a stream. Nothing else
    of the body changes; what is not a JSON object is left alone.

    Examples:
        >>> make_explicit(b'{"model": "a/b"}')
        b'{"stream":false,"model": "a/b"}'
    """
    top = as_mapping(load_json(body))
    if top is None or "stream" in top or 0 in body:  # UTF-16 is JSON too, and has NUL bytes
        return None
    start = body.index(b"{") + 1
    return body[:start] + b'"stream":false' + (b"," if top else b"") + body[start:]
