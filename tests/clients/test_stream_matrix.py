# SPDX-License-Identifier: Apache-2.0
"""Every way in which a stream can fail, in every form in which its bytes can arrive.

One pytest item is one failure in one place and one colour; within it a single client meets that
failure in each encoding, with each line end and each way in which the bytes can be split.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, NamedTuple

import openai
import pytest
from openai import _streaming
from openai.types.chat import ChatCompletion
from opentelemetry.sdk.trace import ReadableSpan

from cline_transport import RetryPolicy, Settings, StreamSettings, error_info
from cline_transport.simulator import Gate, Reply, Simulator
from cline_transport.simulator._response import respond

from .conftest import Connect
from .support import MODEL, Answer, Sdk, messages, sdk_leaves_generators

pytestmark = sdk_leaves_generators

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


@pytest.fixture
def patient(connect: Connect) -> Sdk:
    """A client that retries however many calls have failed before."""
    return connect(settings=Settings(retry=RetryPolicy(throttle=False)))


# --- before content ---


@each(TRANSIENT)
def test_a_transient_failure_before_content_is_retried_unseen_in_every_form(
    failure: Failure, patient: Sdk, cline_api: Simulator
) -> None:
    def once(form: Form) -> Outcome:
        return ask(patient, cline_api, failure.reply(form, **failure.before), in_form(form))

    check(failure.forms, once, well([failure.code]))


@each(TRANSIENT)
def test_a_transient_failure_before_content_that_stays_is_the_error_it_is_after_four_attempts(
    failure: Failure, patient: Sdk, cline_api: Simulator
) -> None:
    def forever(form: Form) -> Outcome:
        return ask(patient, cline_api, *[failure.reply(form, **failure.before)] * 20)

    check(failure.forever, forever, badly(failure, attempts=4))


@each(PERMANENT)
def test_a_permanent_failure_before_content_is_the_error_it_is_at_once(
    failure: Failure, patient: Sdk, cline_api: Simulator
) -> None:
    def once(form: Form) -> Outcome:
        return ask(patient, cline_api, failure.reply(form, **failure.before), in_form(form))

    check(failure.forms, once, badly(failure, attempts=1))


# --- after content ---


def after_content(failure: Failure) -> Outcome:
    error, cause = "APIError", None
    if failure.on_the_wire:
        error = "RemoteProtocolError"
        if hasattr(_streaming, "request_exceptions"):  # such an SDK maps what a body raises
            error, cause = "APIConnectionError", error
        else:
            cause = "RemoteProtocolError"  # httpx's, of httpcore's
    return Outcome(
        text=SAID,
        roles=1,
        error=error,
        cause=cause,
        status=None,
        code=failure.code,
        request_id=True,
        attempts=1,
        waits=[],
        sdk_waits=0,
        calls=[(failure.code, failure.code, 1)],
        http=[(None, 1)],  # it ended when the stream was delivered
    )


@each(AFTER)
def test_a_failure_after_content_is_raised_and_the_text_was_delivered_once(
    failure: Failure, patient: Sdk, cline_api: Simulator
) -> None:
    def once(form: Form) -> Outcome:
        fails = failure.reply(form, **failure.after or {})
        return ask(patient, cline_api, fails, in_form(form))

    check(failure.forms, once, after_content(failure))


# --- what is not a failure ---


def test_a_whole_stream_arrives_in_every_form(patient: Sdk, cline_api: Simulator) -> None:
    check(ALL, lambda form: ask(patient, cline_api, in_form(form)), well())


def test_a_stream_with_its_finish_reason_is_complete_without_done(
    patient: Sdk, cline_api: Simulator
) -> None:
    check(ALL, lambda form: ask(patient, cline_api, in_form(form, done=False)), well())
    assert column(patient.traces.calls, "cline.stream.completed") == [True]


def test_an_empty_finish_reason_is_none_and_done_ends_a_stream_without_one(
    patient: Sdk, cline_api: Simulator
) -> None:
    check(ALL, lambda form: ask(patient, cline_api, in_form(form, finish_reason="")), well())


def test_an_empty_finish_reason_without_done_is_a_truncated_stream(
    patient: Sdk, cline_api: Simulator
) -> None:
    silence: dict[str, Any] = {"chunks": (), "finish_reason": "", "done": False}

    found = ask(patient, cline_api, in_form(ALL[0], **silence), in_form(ALL[0]))
    assert found == well([TRUNCATED])

    found = ask(patient, cline_api, in_form(ALL[0], finish_reason="", done=False))
    assert (found.text, found.error, found.code) == (TEXT, "APIError", TRUNCATED)
    assert found.attempts == 1


# --- the settings ---


def configured(connect: Connect, **stream: Any) -> Sdk:
    retry = RetryPolicy(throttle=False)
    return connect(settings=Settings(retry=retry, stream=StreamSettings(**stream)))


@each([one for one in TRANSIENT + PERMANENT if one in AFTER and not one.on_the_wire])
def test_without_retries_of_streams_an_error_before_content_comes_in_the_stream(
    failure: Failure, connect: Connect, cline_api: Simulator
) -> None:
    sdk = configured(connect, retry="never")

    def once(form: Form) -> Outcome:
        return ask(sdk, cline_api, failure.reply(form, **failure.before), in_form(form))

    expected = Outcome(
        text="",
        roles=1,
        error="APIError",
        cause=None,
        status=None,
        code=failure.code,
        request_id=True,
        attempts=1,
        waits=[],
        sdk_waits=0,
        calls=[(failure.code, failure.code, 1)],
        http=[(None, 1)],
    )
    check(failure.forever, once, expected)


@each([one for one in TRANSIENT if one.after is not None])
def test_buffered_a_transient_failure_after_content_is_retried_unseen(
    failure: Failure, connect: Connect, cline_api: Simulator
) -> None:
    sdk = configured(connect, retry="buffered")

    def once(form: Form) -> Outcome:
        fails = failure.reply(form, **failure.after or {})
        return ask(sdk, cline_api, fails, in_form(form))

    check(failure.forever, once, well([failure.code]))


@each([one for one in AFTER if one not in TRANSIENT])
def test_buffered_a_permanent_failure_after_content_is_the_error_it_is_at_once(
    failure: Failure, connect: Connect, cline_api: Simulator
) -> None:
    sdk = configured(connect, retry="buffered")

    def once(form: Form) -> Outcome:
        fails = failure.reply(form, **failure.after or {})
        return ask(sdk, cline_api, fails, in_form(form))

    check(failure.forever, once, badly(failure, attempts=1))


@pytest.mark.parametrize("on_error", ["normalize", "observe"])
def test_observed_nothing_is_held_and_otherwise_the_role_is(
    on_error: Any, connect: Connect, cline_api: Simulator
) -> None:
    sdk = configured(connect, on_error=on_error)
    held = on_error == "normalize"
    # The role's chunk, and the first word's where it is awaited: the others wait for the caller.
    gate = Gate(2 if held else 1)
    cline_api.enqueue(Reply.stream(TEXT, gate=gate))

    def on_chunk() -> bool:
        gate.release()
        return True

    assert sdk.ask("stream", on_chunk=on_chunk).text == TEXT


def raw_body(sdk: Sdk) -> bytes:
    """The bytes that the SDK gets, encoded as they are."""
    client: Any = sdk.client
    create = client.chat.completions.with_streaming_response.create
    asked: dict[str, Any] = {"model": MODEL, "messages": messages("hello"), "stream": True}
    if sdk.colour.is_sync:
        with create(**asked) as response:
            return b"".join(response.http_response.iter_raw())

    async def read() -> bytes:
        async with create(**asked) as response:
            return b"".join([chunk async for chunk in response.http_response.aiter_raw()])

    return sdk.colour.run(read)


@each([one for one in (*TRANSIENT, *PERMANENT) if not one.on_the_wire])
def test_observed_the_bytes_are_those_that_were_sent(
    failure: Failure, connect: Connect, cline_api: Simulator
) -> None:
    sdk = configured(connect, on_error="observe")
    got: dict[str, bytes] = {}
    sent: dict[str, bytes] = {}
    for form, options in product(failure.forever, (failure.before, failure.after)):
        if options is None:
            continue
        reply = failure.reply(form, **options)
        assert isinstance(reply.body, tuple)
        name = f"{form!r} {options}"
        sent[name] = b"".join(reply.body)
        sdk.traces.exporter.clear()
        cline_api.enqueue(reply)
        got[name] = raw_body(sdk)
        assert column(sdk.traces.calls, "cline.error.code") == [failure.code], name

    assert got == sent
    assert sdk.waits == sdk.sdk_waits == []


# --- not a stream at all ---


def test_a_call_that_says_nothing_of_streaming_gets_a_completion(
    patient: Sdk, cline_api: Simulator
) -> None:
    client: Any = patient.client
    create = client.chat.completions.create
    asked: dict[str, Any] = {"model": MODEL, "messages": messages("hello")}
    cline_api.enqueue(Reply.ok(TEXT))  # a stream, unless the request says otherwise

    if patient.colour.is_sync:
        completion = create(**asked)
    else:
        completion = patient.colour.run(lambda: create(**asked))

    assert type(completion) is ChatCompletion
    assert completion.choices[0].message.content == TEXT
    (request,) = cline_api.requests
    assert request.json() == {"stream": False, **asked}
    assert request.headers["content-length"] == str(len(request.body))
