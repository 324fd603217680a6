# SPDX-License-Identifier: Apache-2.0
"""How a stream can fail, in which forms its bytes can arrive, and what comes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, NamedTuple

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from cline_transport import error_info
from cline_transport.simulator import Reply, Simulator
from cline_transport.simulator._response import respond

from .support import MODEL, Answer, Sdk

TEXT: Final = "one two three"
SAID: Final = "one two"
"""What of the text comes before a failure that follows content."""

MESSAGE: Final = "message-marker-8c1e"


# --- the bytes ---


class Form(NamedTuple):
    """How the bytes of a stream arrive."""

    encoding: Any
    newline: Any
    split: str

    def __repr__(self) -> str:
        return f"{self.encoding or 'identity'}-{self.newline!r}-{self.split}"


ENCODINGS: Final = (None, "gzip", "deflate", "br", "zstd")
NEWLINES: Final = ("\n", "\r\n", "\r")
SPLITS: Final = ("events", "bytes", "random")

ALL: Final = tuple(Form(*each) for each in product(ENCODINGS, NEWLINES, SPLITS))
PAIRS: Final = tuple(
    # Each encoding with each line end, each with each split, each line end with each split.
    Form(encoding, newline, SPLITS[(e + n) % 3])
    for e, encoding in enumerate(ENCODINGS)
    for n, newline in enumerate(NEWLINES)
)


def in_form(form: Form, *, then: Any = "end", ended: bool = True, **options: Any) -> Reply:
    """A stream in that form; `ended` is whether the encoding ends as HTTP does."""
    plain = Reply.stream(
        TEXT,
        usage=False,
        encoding=form.encoding,
        newline=form.newline,
        then=then if ended else "close",
        **options,
    )
    response = respond(plain, json.dumps({"model": MODEL}).encode())
    pieces = [piece for piece in response.pieces if piece]
    if form.split != "events":
        pieces = list(_split(b"".join(pieces), at_random=form.split == "random"))
    headers = {"content-type": "text/event-stream"}
    if form.encoding is not None:
        headers["content-encoding"] = form.encoding
    return Reply.raw(200, headers=headers, body=pieces, then=then)


def _split(body: bytes, *, at_random: bool) -> Iterable[bytes]:
    source = random.Random(len(body))  # noqa: S311 -- not a secret: the same cuts in every run
    at = 0
    while at < len(body):
        size = source.choice((1, 2, 3, 7, 40, 150)) if at_random else 1
        yield body[at : at + size]
        at += size


# --- the failures ---


@dataclass(frozen=True)
class Failure:
    """One way in which a stream fails."""

    name: str
    code: str
    """The code that it has for the caller."""
    status: int | None
    """That of the HTTP error that it becomes before content; `None`: the wire's exception."""
    reply: Callable[..., Reply] = in_form
    before: dict[str, Any] = field(default_factory=dict[str, Any])
    """The options of a stream that fails so before content."""
    after: dict[str, Any] | None = None
    """The same after content; `None`: it cannot."""
    forms: tuple[Form, ...] = ALL

    @property
    def on_the_wire(self) -> bool:
        return self.status is None

    @property
    def forever(self) -> tuple[Form, ...]:
        return tuple(form for form in self.forms if form in PAIRS)


def error_chunk(code: str, status: int, shape: str) -> Failure:
    known = "server_error" if shape == "bare" else code
    error = {"error": code, "error_shape": shape, "error_message": MESSAGE}
    return Failure(
        f"{code}-{shape}",
        known,
        status,
        before={**error, "error_after": 0, "comments": 1},
        after={**error, "error_after": 2},
    )


def silent(form: Form, **options: Any) -> Reply:
    """Not a byte, whatever the encoding."""
    return in_form(Form(None, form.newline, form.split), role=False, cut_after=0, **options)


TRUNCATED: Final = "stream_truncated"
TRANSIENT: Final = (
    *[error_chunk("rate_limit", 429, shape) for shape in ("cline", "openrouter")],
    *[error_chunk("server_error", 502, shape) for shape in ("cline", "openrouter")],
    error_chunk("rate_limit", 502, "bare"),
    Failure("truncated", TRUNCATED, 502, before={"cut_after": 0}, after={"cut_after": 2}),
    Failure(
        "truncated-inside-the-encoding",
        TRUNCATED,
        502,
        before={"cut_after": 0, "ended": False},
        after={"cut_after": 2, "ended": False},
        forms=tuple(form for form in ALL if form.encoding is not None),
    ),
    Failure(
        "lost",
        "connection_closed",
        None,
        before={"cut_after": 0, "then": "close"},
        after={"cut_after": 2, "then": "close"},
    ),
    Failure("nothing", TRUNCATED, 502, before={"cut_after": 0, "role": False}),
    Failure("not-a-byte", TRUNCATED, 502, reply=silent, forms=ALL[:1]),
    Failure("comments", TRUNCATED, 502, before={"cut_after": 0, "role": False, "comments": 3}),
)
PERMANENT: Final = tuple(
    error_chunk(code, 400, shape)
    for code in ("context_length_exceeded", "content_filter")
    for shape in ("cline", "openrouter")
)
AFTER: Final = tuple(failure for failure in TRANSIENT + PERMANENT if failure.after is not None)


def each(failures: Sequence[Failure]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("failure", failures, ids=lambda failure: failure.name)


# --- what came of it ---


@dataclass(frozen=True)
class Outcome:
    """What can be seen of a call, from the caller's side, the server's, and the traces."""

    text: str
    roles: int
    """Chunks with a role."""
    error: str | None
    """The exact class of the SDK's exception."""
    cause: str | None
    """The class of what the SDK made it of, where it came from the wire."""
    status: int | None
    code: str | None
    """What `error_info` says."""
    request_id: bool
    """Whether the exception has the last attempt's."""
    attempts: int
    waits: list[int]
    """In whole seconds; `ask` checks the jitter on them."""
    sdk_waits: int
    calls: list[tuple[object, object, object]]
    """The call spans: error type and code, number of the attempt whose request ID it has."""
    http: list[tuple[object, object]]
    """The HTTP spans: error type, and number of the attempt whose request ID it has."""


def column(spans: Sequence[ReadableSpan], name: str) -> list[object]:
    return [(span.attributes or {}).get(name) for span in spans]


def ask(sdk: Sdk, api: Simulator, *replies: Reply) -> Outcome:
    """Ask once; whatever was before is forgotten, except by the client."""
    api.reset()
    api.enqueue(*replies)
    sdk.waits.clear()
    sdk.sdk_waits.clear()
    sdk.traces.exporter.clear()

    answer = sdk.ask("stream")

    assert all(1 <= one / int(one) <= 1.25 for one in sdk.waits), sdk.waits
    ids = [one.request_id for one in api.requests]
    numbers: dict[object, int] = {one: number for number, one in enumerate(ids, 1)}
    calls, http = sdk.traces.calls, sdk.traces.attempts
    said_ids = [numbers.get(one) for one in column(calls, "cline.request_id")]
    sent_ids = [numbers.get(one) for one in column(http, "cline.request_id")]
    types, codes = column(calls, "error.type"), column(calls, "cline.error.code")
    return Outcome(
        text=answer.text_so_far,
        roles=sum(
            choice["delta"].get("role") is not None
            for chunk in answer.chunks
            for choice in chunk["choices"]
        ),
        attempts=len(ids),
        waits=[int(one) for one in sdk.waits],
        sdk_waits=len(sdk.sdk_waits),
        calls=list(zip(types, codes, said_ids, strict=True)),
        http=list(zip(column(http, "error.type"), sent_ids, strict=True)),
        **_raised(answer, ids[-1]),
    )


def _raised(answer: Answer, request_id: str | None) -> dict[str, Any]:
    error = answer.error
    if error is None:
        return dict.fromkeys(("error", "cause", "status", "code"), None) | {"request_id": False}
    info = error_info(error)
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
        assert info is not None
        assert error.code == info.code
    if isinstance(error, openai.APIStatusError):
        assert info is not None
        assert error.request_id == info.request_id
    return {
        "error": type(error).__name__,
        "cause": None if error.__cause__ is None else type(error.__cause__).__name__,
        "status": getattr(error, "status_code", None),
        "code": None if info is None else info.code,
        "request_id": info is not None and info.request_id == request_id,
    }


CLASSES: Final = {400: "BadRequestError", 429: "RateLimitError", 502: "InternalServerError"}


def well(failed: Sequence[str] = ()) -> Outcome:
    """A whole answer, after attempts that failed with these codes."""
    last = len(failed) + 1
    return Outcome(
        text=TEXT,
        roles=1,
        error=None,
        cause=None,
        status=None,
        code=None,
        request_id=False,
        attempts=last,
        waits=[1, 2, 4][: len(failed)],
        sdk_waits=0,
        calls=[(None, None, last)],
        http=[*zip(failed, range(1, last), strict=True), (None, last)],
    )


def badly(failure: Failure, attempts: int) -> Outcome:
    """The HTTP error that this failure is before content, after so many attempts."""
    code, status = failure.code, failure.status
    if status is not None:
        calls: list[tuple[object, object, object]] = [(code, code, attempts)]
        error, cause, again = CLASSES[status], None, 0
    else:
        # The SDK retries a lost connection itself, twice, and gets one attempt for each.
        error, cause, again = "APIConnectionError", "RemoteProtocolError", 2
        calls = [(code, code, attempts + retry) for retry in range(3)]
    total = attempts + again
    return Outcome(
        text="",
        roles=0,
        error=error,
        cause=cause,
        status=status,
        code=code,
        request_id=True,
        attempts=total,
        waits=[1, 2, 4][: attempts - 1],
        sdk_waits=again,
        calls=calls,
        http=[(code, number) for number in range(1, total + 1)],
    )


def check(forms: Sequence[Form], outcome: Callable[[Form], Outcome], expected: Outcome) -> None:
    """The same in every form; what differs is told by its form."""
    found = {repr(form): outcome(form) for form in forms}
    assert found
    wrong = {form: one for form, one in found.items() if one != expected}
    assert wrong == {}, f"not in {len(wrong)} of {len(found)} forms: {expected}"
