# SPDX-License-Identifier: Apache-2.0
"""What is never told: keys, prompts, and the values of a query.

An error's text comes from a server or a library, and may repeat what the request held. It is
cleaned when its `ErrorInfo` is made, so that span, log and report need no care of their own.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator
from typing import Final, cast
from urllib.parse import unquote_plus

from cline_transport._checks import HIDDEN
from cline_transport._protocols import RequestHead
from cline_transport.wire import load_json

__all__ = ["HEADER_PATTERNS", "hide_query", "looks_secret", "redact", "without_secrets"]

HEADER_PATTERNS: Final = (
    "authorization",
    "cookie",
    "(^|-)auth(-|$)",
    "(api|auth|access|subscription|account|virtual)-?key",
    "(^|-)token$",
    "^(location|referer)$",  # URLs, with their queries
    "secret",
    "password",
)
"""Headers whose captured values are redacted, as OpenTelemetry's `…_SANITIZE_FIELDS` has them."""

_SECRET_HEADERS: Final = re.compile("|".join(HEADER_PATTERNS))
# A key by its look, for one that is not the request's own. A digit tells it from a word.
_KEY: Final = re.compile(
    r"\b[prs]k-[A-Za-z0-9_-]{16,}|\b[Bb]earer\s+(?=\S*\d)[A-Za-z0-9._~+/=-]{8,}"
)
_USERINFO: Final = re.compile(r"\w://[^/@\s]+@")
# Letters and digits mixed, and long: a token, a hash, a UUID.
_RANDOM: Final = re.compile(r"(?<![\w+/=-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+/=-]{20,}")
# Shorter ones are words, schemes and version numbers.
_LEAST_SECRET: Final = 7
_LEAST_CONTENT: Final = 8
_LEAST_WORD: Final = 16
_LONG_QUERY: Final = 4096
# What of a request's JSON is somebody's text, not the API's own vocabulary.
_CONTENT: Final = frozenset(
    {"arguments", "content", "data", "input", "instructions", "prompt", "reasoning", "text", "url"}
)


def hide_query(query: bytes) -> bytes:
    """A query string with its names and without its values; without both where it is long.

    Examples:
        >>> hide_query(b"api-version=1&key=abc")
        b'api-version=REDACTED&key=REDACTED'
    """
    if len(query) > _LONG_QUERY:  # longer still, it could be more than a URL may be
        return b"REDACTED"
    parts = (part.partition(b"=") for part in query.split(b"&"))
    # What has no `=` may be a value without a name.
    return b"&".join(
        name + b"=REDACTED" if equals else b"REDACTED" if name else b"" for name, equals, _ in parts
    )


def looks_secret(text: str) -> bool:
    """Whether a text could be, or hold, a secret: a key, a password in a URL, a random string.

    Examples:
        >>> looks_secret("https://me:pass@host"), looks_secret("before_content")
        (True, False)
    """
    return bool(_KEY.search(text) or _USERINFO.search(text) or _RANDOM.search(text))


def redact(text: str, head: RequestHead) -> str:
    """A text without what it repeats of a request: its keys, its query's values, its prompt.

    Examples:
        >>> head = RequestHead("GET", "https", "h", None, "/", {"authorization": "Bearer abcdefg1"})
        >>> redact("The key abcdefg1 is unknown", head)
        'The key [redacted] is unknown'
    """
    if len(text) < _LEAST_SECRET:
        return text
    for secret in _secrets(head):
        text = text.replace(secret, HIDDEN)
    return _KEY.sub(HIDDEN, text)


def without_secrets(exc: Exception, head: RequestHead) -> Exception:
    """An exception as it may be recorded: itself, or one of the same name without its secrets.

    Instrumentations record an exception's message and its stack as they are.
    """
    text = "".join(traceback.format_exception(exc))
    if redact(text, head) == text:
        return exc
    kind = type(exc)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    stand_in: Exception = type(kind.__name__, (Exception,), names)(redact(str(exc), head))
    return stand_in


def _secrets(head: RequestHead) -> Iterator[str]:
    for name, value in head.headers.items():
        if _SECRET_HEADERS.search(name.lower()):
            for secret in re.split(r"[\s;,]+", value):
                # A cookie's name is none; a key may end in `=`.
                yield from (
                    s for s in (secret, secret.partition("=")[2]) if len(s) >= _LEAST_SECRET
                )
    for part in head.query.decode("latin-1").split("&"):
        value = part.partition("=")[2]
        for secret in {value, unquote_plus(value)}:
            if len(secret) >= _LEAST_SECRET:
                yield secret
    if head.body:
        # The longest first: a short one may be part of it.
        yield from sorted(set(_content(load_json(head.body))), key=len, reverse=True)


def _content(payload: object) -> Iterator[str]:
    """The texts in a request's JSON, as they are and as JSON writes them."""
    stack: list[tuple[object, bool]] = [(payload, False)]
    while stack:
        value, told = stack.pop()
        if isinstance(value, dict):
            fields = cast("dict[str, object]", value)
            stack.extend((inner, name in _CONTENT) for name, inner in fields.items())
        elif isinstance(value, list):
            stack.extend((inner, told) for inner in cast("list[object]", value))
        elif told and isinstance(value, str) and _is_content(value.strip()):
            yield value
            yield value.strip()
            yield json.dumps(value)[1:-1]


def _is_content(text: str) -> bool:
    """Whether a text says something: a single word of ten letters may be the API's own."""
    return len(text) >= (_LEAST_CONTENT if " " in text else _LEAST_WORD)
