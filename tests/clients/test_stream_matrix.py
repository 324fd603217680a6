# SPDX-License-Identifier: Apache-2.0
"""Every way in which a stream can fail, in every form in which its bytes can arrive.

One pytest item is one failure in one place and one colour; within it a single client meets that
failure in each encoding, with each line end and each way in which the bytes can be split.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from openai import _streaming
from openai.types.chat import ChatCompletion

from cline_transport import RetryPolicy, Settings, StreamSettings
from cline_transport.simulator import Gate, Reply, Simulator

from .stream_cases import (
    AFTER,
    ALL,
    PERMANENT,
    SAID,
    TEXT,
    TRANSIENT,
    TRUNCATED,
    Failure,
    Form,
    Outcome,
    ask,
    badly,
    check,
    column,
    each,
    in_form,
    well,
)
from .support import MODEL, Connect, Sdk, messages, sdk_leaves_generators

pytestmark = sdk_leaves_generators


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
