# SPDX-License-Identifier: Apache-2.0
"""Replies: what the simulator does with one request."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Literal, cast, get_args

from cline_transport.simulator._answer import Answer, AnswerOptions, ErrorShape
from cline_transport.simulator._documented import message_for
from cline_transport.simulator._encoding import Encoding, encoder_for

if TYPE_CHECKING:
    import sys

    from cline_transport.simulator._gate import Gate

    if sys.version_info >= (3, 11):
        from typing import Unpack
    else:
        from typing_extensions import Unpack

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Then = Literal["end", "close", "reset", "stall"]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
HTML = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the simulator does with one request. Make one with the class methods.

    Options that all replies above the connection share:

    - `headers`: a mapping or pairs, sent beside the reply's own; a `content-type` or
      `content-length` among them takes the place of the reply's own. Default none.
    - `request_id`: the `x-request-id`. Default `...`: a unique `req_<hex>`, since the
      documentation asks for it in support requests; `None`: no such header.
    - `encoding`: the body is sent in this content encoding, whatever the request accepts:
      `"gzip"`, `"deflate"` (the zlib format), `"br"` or `"zstd"`; default none. In a stream each
      event is flushed, so that the client can decode it at once, and the encoding's last bytes
      come only if `then` is `"end"` (or `cut_at` counts them). `br` needs the extra `brotli`,
      `zstd` the extra `zstd` before Python 3.14; without it the reply cannot be made
      (`ImportError`).
    - `delay`: seconds before anything is written, as a model takes its time; default 0. The
      server meanwhile answers others.

    Options of the replies that may have a stream or any bytes (`ok`, `stream`, `raw`):

    - `then`: what comes after the body. `"end"` (default) ends it as HTTP should, `"close"` closes
      the connection instead, `"reset"` resets it (HTTP/2: the stream alone), `"stall"` sends
      nothing more and holds the connection open.
    - `gate`: holds each write back until there is a permit for it. Default none.
    - `cut_at`: the body breaks off after so many bytes, counted as they are written (after the
      encoding, before HTTP's framing), and then comes what `then` says. With `"end"` a content
      length is that of the rest, otherwise that of the whole. Default: not cut; a body that is
      not longer is sent whole.
    - `drip`: `(n, seconds)`: the body is written in pieces of n bytes with so many seconds
      between one and the next. Default none.

    A value out of range is a `ValueError` that names it.

    Example:
        ```python
        api.enqueue(Reply.error(429, retry_after=1), Reply.ok("Hello"))
        ```
    """

    status: int | None = 200
    """`None`: no response at all, only `then`."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | tuple[bytes, ...] | Answer = b""
    """A tuple is sent as one chunk, and one write, per element."""
    then: Then = "end"
    gate: Gate | None = None
    request_id: str | EllipsisType | None = ...
    encoding: Encoding | None = None
    cut_at: int | None = None
    drip: tuple[int, float] | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in range(200, 600):
            raise ValueError(f"status must be 200 to 599 (got {self.status})")
        if self.then not in get_args(Then):
            allowed = ", ".join(get_args(Then))
            raise ValueError(f"then must be one of {allowed} (got {self.then!r})")
        if self.cut_at is not None and self.cut_at < 0:
            raise ValueError(f"cut_at must be >= 0 (got {self.cut_at})")
        if self.drip is not None:
            size, seconds = self.drip
            if size < 1 or not 0 <= seconds < math.inf:
                raise ValueError(
                    f"drip must be a number of bytes >= 1 and of seconds >= 0 (got {self.drip})"
                )
            if isinstance(self.body, Answer) and self.body.split is not None:
                raise ValueError("split and drip exclude each other (got both)")
        if not 0 <= self.delay < math.inf:
            raise ValueError(f"delay must be a number of seconds >= 0 (got {self.delay})")
        if self.encoding is not None:
            if self.encoding not in get_args(Encoding):
                allowed = ", ".join(get_args(Encoding))
                raise ValueError(f"encoding must be one of {allowed} (got {self.encoding!r})")
            encoder_for(self.encoding)  # a package that is missing is told here, not in the server

    @classmethod
    def ok(
        cls,
        text: str = "Hello from the simulator.",
        *,
        then: Then = "end",
        gate: Gate | None = None,
        headers: Headers = (),
        request_id: str | EllipsisType | None = ...,
        encoding: Encoding | None = None,
        cut_at: int | None = None,
        drip: tuple[int, float] | None = None,
        delay: float = 0.0,
        **options: Unpack[AnswerOptions],
    ) -> Reply:
        """Answer as asked: JSON if the request has `"stream": false`, otherwise a stream.

        (On the Cline API `stream` is true when it is missing.) The options are those of
        `stream`; in JSON an `error` keeps its shape, the document is sent whole (or up to
        `cut_at`), `then` comes after it, and what only a stream can have does nothing.
        Example: `Reply.ok("Hello", cost=0.001)`.
        """
        return cls(
            headers=_pairs(headers),
            body=Answer(text=text, mode="as_asked", **options),
            then=then,
            gate=gate,
            request_id=request_id,
            encoding=encoding,
            cut_at=cut_at,
            drip=drip,
            delay=delay,
        )

    @classmethod
    def stream(
        cls,
        text: str = "Hello from the simulator.",
        *,
        then: Then = "end",
        gate: Gate | None = None,
        headers: Headers = (),
        request_id: str | EllipsisType | None = ...,
        encoding: Encoding | None = None,
        cut_at: int | None = None,
        drip: tuple[int, float] | None = None,
        delay: float = 0.0,
        **options: Unpack[AnswerOptions],
    ) -> Reply:
        """Answer with a stream, whatever was asked for.

        The options and their defaults: `AnswerOptions`
        (`chunks`, `finish_reason`, `done`, `usage`, `cost`, `reasoning`, `comments`,
        `role`, `newline`, `split`, `error`, `error_message`, `error_after`,
        `error_shape`, `cut_after`, `model`, `response_id`).

        `then` is what comes after the last event (with `cut_after`: after so many content
        chunks; with `cut_at`: after so many bytes): `"end"` ends the body, `"close"` closes the
        connection in the middle of it, `"reset"` resets it, `"stall"` sends nothing more and holds
        the connection open. `gate` holds each event back.

        Examples: `Reply.stream("one two three", cut_after=2, then="close")`,
        `Reply.stream("one two three", encoding="gzip", cut_at=100, then="close")`,
        `Reply.stream("one two three", drip=(16, 0.05))`: 16 bytes every 50 ms.
        """
        return cls(
            headers=_pairs(headers),
            body=Answer(text=text, mode="stream", **options),
            then=then,
            gate=gate,
            request_id=request_id,
            encoding=encoding,
            cut_at=cut_at,
            drip=drip,
            delay=delay,
        )

    @classmethod
    def completion(
        cls,
        text: str = "Hello from the simulator.",
        *,
        headers: Headers = (),
        request_id: str | EllipsisType | None = ...,
        encoding: Encoding | None = None,
        delay: float = 0.0,
        **options: Unpack[AnswerOptions],
    ) -> Reply:
        """Answer with one JSON document, whatever was asked for.

        Takes the options of `stream`; those that only a stream can have do nothing.
        Examples: `Reply.completion("Hello", finish_reason="length")`,
        `Reply.completion("Hello", delay=0.2)`: after 200 ms.
        """
        return cls(
            headers=_pairs(headers),
            body=Answer(text=text, mode="json", **options),
            request_id=request_id,
            encoding=encoding,
            delay=delay,
        )

    @classmethod
    def json_error_in_200(
        cls,
        code: str | int = "server_error",
        *,
        message: str | None = None,
        shape: ErrorShape = "cline",
        headers: Headers = (),
        request_id: str | EllipsisType | None = ...,
        delay: float = 0.0,
    ) -> Reply:
        """Answer 200 with a JSON document (no stream) that carries an error.

        `shape` as in `stream`; for a document that is nothing but `{"error": …}` take
        `Reply.error(200, code=…)`. Default `message`: the documented one.
        Example: `Reply.json_error_in_200("rate_limit", shape="openrouter")`.
        """
        answer = Answer(mode="json", error=code, error_message=message, error_shape=shape)
        return cls(headers=_pairs(headers), body=answer, request_id=request_id, delay=delay)

    @classmethod
    def error(
        cls,
        status: int,
        *,
        code: int | str | None = None,
        message: str | None = None,
        metadata: Mapping[str, object] | None = None,
        retry_after: float | str | None = None,
        retry_after_ms: float | None = None,
        headers: Headers = (),
        request_id: str | EllipsisType | None = ...,
        encoding: Encoding | None = None,
        delay: float = 0.0,
    ) -> Reply:
        """Answer with an HTTP error in the documented format.

        Defaults: `code` is the status, `message` the documented cause, `metadata` empty.
        `retry_after` is a number of seconds, or a string that is sent as it is (an HTTP date);
        `retry_after_ms` a number of milliseconds.
        Example: `Reply.error(429, retry_after=1)`.
        """
        error = {
            "code": status if code is None else code,
            "message": message_for(status) if message is None else message,
            "metadata": dict(metadata or {}),
        }
        waits: list[tuple[str, str]] = []
        if retry_after is not None:
            waits.append(("retry-after", _number(retry_after)))
        if retry_after_ms is not None:
            waits.append(("retry-after-ms", _number(retry_after_ms)))
        return cls(
            status=status,
            headers=typed(JSON, (*waits, *_pairs(headers))),
            body=json.dumps({"error": error}, ensure_ascii=False).encode(),
            request_id=request_id,
            encoding=encoding,
            delay=delay,
        )

    @classmethod
    def html(
        cls,
        status: int = 502,
        *,
        html: str = HTML,
        headers: Headers = (),
        request_id: str | EllipsisType | None = ...,
        encoding: Encoding | None = None,
        delay: float = 0.0,
    ) -> Reply:
        """Answer with a page, as a proxy before the API does. Example: `Reply.html(502)`."""
        return cls(
            status=status,
            headers=typed("text/html; charset=utf-8", _pairs(headers)),
            body=html.encode(),
            request_id=request_id,
            encoding=encoding,
            delay=delay,
        )

    @classmethod
    def raw(
        cls,
        status: int = 200,
        *,
        headers: Headers = (),
        body: bytes | Sequence[bytes] = b"",
        then: Then = "end",
        gate: Gate | None = None,
        request_id: str | EllipsisType | None = ...,
        encoding: Encoding | None = None,
        cut_at: int | None = None,
        drip: tuple[int, float] | None = None,
        delay: float = 0.0,
    ) -> Reply:
        """Answer with exactly these headers and bytes.

        `bytes` are sent with a content length (unless `headers` have one), a sequence in
        chunked transfer encoding, one chunk and one write per element. An empty sequence is an
        empty chunked body. `then` and `gate` as in `stream`. An encoding that `encoding` does not
        know, or bytes that are encoded already, have their `content-encoding` in `headers`.

        Example: `Reply.raw(200, headers={"content-length": "9"}, body=b"{}", then="close")`.
        """
        return cls(
            status=status,
            headers=_pairs(headers),
            body=body if isinstance(body, bytes) else tuple(body),
            then=then,
            gate=gate,
            request_id=request_id,
            encoding=encoding,
            cut_at=cut_at,
            drip=drip,
            delay=delay,
        )

    @classmethod
    def close(cls) -> Reply:
        """Read the request, then close the connection without a response.

        Over HTTP/2 the other streams of the connection end with it.
        """
        return cls(status=None, then="close", request_id=None)

    @classmethod
    def reset(cls) -> Reply:
        """Read the request, then reset the connection (TCP RST) without a response.

        Over HTTP/2 the stream alone is reset (`RST_STREAM` with `INTERNAL_ERROR`).
        """
        return cls(status=None, then="reset", request_id=None)

    @classmethod
    def stall(cls) -> Reply:
        """Read the request and never answer, until the client goes or the simulator stops."""
        return cls(status=None, then="stall", request_id=None)


def json_object(body: bytes) -> dict[str, object] | None:
    """`body` if it is a JSON object, else `None`."""
    try:
        document: object = json.loads(body)
    except ValueError:
        return None
    return cast("dict[str, object]", document) if isinstance(document, dict) else None


def typed(content_type: str, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """`headers` with this content type, unless they have one."""
    return headers if has(headers, "content-type") else (("content-type", content_type), *headers)


def has(headers: tuple[tuple[str, str], ...], name: str) -> bool:
    """Whether `name`, in lower case, is among `headers`."""
    return any(key.lower() == name for key, _ in headers)


def _pairs(headers: Headers) -> tuple[tuple[str, str], ...]:
    if isinstance(headers, Mapping):
        return tuple(cast("Mapping[str, str]", headers).items())
    return tuple(headers)


def _number(value: float | str) -> str:
    """`1.0` as `1`: a whole number of seconds is what RFC 9110 allows in `Retry-After`."""
    return value if isinstance(value, str) else f"{value:.15g}"
