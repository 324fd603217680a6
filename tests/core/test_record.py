# SPDX-License-Identifier: Apache-2.0
"""What a record says of an answer that nobody has looked at yet."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from functools import partial
from typing import Any

import httpx
import pytest

from cline_transport import CallRecord, call_record
from cline_transport.errors import EXTENSION, REQUEST_RECORD
from cline_transport.inspection import may_hold_error, read_answer
from cline_transport.record import Usage, forget_answer, read_later
from cline_transport.wire import load_json, read_json_error

BODY = b'{"id": "gen-1", "model": "a/b", "choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}'  # noqa: E501
ANSWER = CallRecord(
    response_id="gen-1", response_model="a/b", finish_reason="stop", usage=Usage(input_tokens=3)
)


@pytest.fixture
def unread() -> CallRecord:
    record = CallRecord()
    read_later(record, partial(read_answer, BODY))
    return record


def from_dict(record: CallRecord) -> CallRecord:
    fields: dict[str, Any] = dataclasses.asdict(record)
    fields["usage"] = Usage(**fields["usage"])
    return CallRecord(**fields)


def pickled(record: CallRecord) -> CallRecord:
    read: CallRecord = pickle.loads(pickle.dumps(record))  # noqa: S301 - our own bytes
    return read


def itself(record: CallRecord) -> CallRecord:
    return record


@pytest.mark.parametrize(
    "look", [itself, copy.copy, copy.deepcopy, dataclasses.replace, from_dict, pickled]
)
def test_an_answer_is_read_when_somebody_asks(look: Any, unread: CallRecord) -> None:
    assert look(unread) == ANSWER


def test_and_once(unread: CallRecord) -> None:
    assert unread.usage is unread.usage
    assert repr(unread) == repr(ANSWER)


def test_an_attempt_after_it_forgets_it(unread: CallRecord) -> None:
    forget_answer(unread)
    assert unread == CallRecord()


def test_one_that_cannot_be_read_says_nothing() -> None:
    def fail(record: CallRecord) -> None:
        record.response_id = "half"
        raise ValueError("no answer")

    record = CallRecord()
    read_later(record, fail)
    assert record == CallRecord()


def test_two_threads_may_ask_at_once() -> None:
    record = CallRecord()
    told: list[str | None] = []

    def ask() -> None:
        told.append(record.response_id)

    def read(answer: CallRecord) -> None:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=ask)  # it comes while this one reads
            other.start()
            other.join()
        read_answer(BODY, answer)

    read_later(record, read)
    ask()
    assert told == ["gen-1", "gen-1"]
    assert record == ANSWER


def test_who_comes_when_another_has_just_read_it_gets_the_same(unread: CallRecord) -> None:
    usage = unread.usage
    assert vars(CallRecord)["__getattr__"](unread, "usage") is usage


def test_what_was_set_before_stays(unread: CallRecord) -> None:
    unread.finish_reason = "mine"
    unread.time_to_first_chunk = 1.5
    assert unread.response_id == "gen-1"
    assert (unread.finish_reason, unread.time_to_first_chunk) == ("mine", 1.5)


def test_a_name_that_is_none_is_an_error(unread: CallRecord) -> None:
    with pytest.raises(AttributeError, match="'CallRecord' object has no attribute 'reply_id'"):
        unread.reply_id  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"code": 503, "message": "m"}}',
        b'{"\\u0065rror": {"message": "m"}}',
        b'{"choices": [{"finish_reason": "error"}]}',
        b'{"choices": [{"finish_reason": "err\\u006fr"}]}',
        '{"error": {"message": "m"}}'.encode("utf-16"),
        '{"error": {"message": "m"}}'.encode("utf-16-le"),
        '{"error": {"message": "m"}}'.encode("utf-32"),
        '{"error": {"message": "m"}}'.encode("utf-8-sig"),
        b' {"error": {"message": "m"}}\n',
    ],
)
def test_whatever_way_an_error_is_written_the_body_is_read_for_it(body: bytes) -> None:
    assert read_json_error(load_json(body)) is not None
    assert may_hold_error(body)


# --- where the record of a call is found ---

REQUEST = httpx.Request("POST", "https://api.cline.bot/api/v1/chat/completions")


def test_it_is_found_in_a_response_and_in_what_has_one() -> None:
    record = CallRecord()
    response = httpx.Response(429, request=REQUEST, extensions={EXTENSION: record})
    assert call_record(response) is record
    assert call_record(httpx.HTTPStatusError("m", request=REQUEST, response=response)) is record

    class Stream:  # as the SDK's
        def __init__(self) -> None:
            self.response = response

    class Raw:  # as the SDK's, whose `request` fails where there is none
        http_response = response

    assert call_record(Stream()) is record
    assert call_record(Raw()) is record


def test_it_is_found_in_the_request_of_a_call_that_got_no_response() -> None:
    record = CallRecord()
    request = httpx.Request("POST", REQUEST.url, extensions={REQUEST_RECORD: record})
    failure = httpx.ConnectError("refused", request=request)
    outer = RuntimeError("a framework's")
    outer.__cause__ = failure
    assert call_record(failure) is record
    assert call_record(outer) is record


@pytest.mark.parametrize(
    "source", [None, {}, httpx.Response(200), httpx.ReadTimeout("slow"), ValueError("m")], ids=repr
)
def test_there_is_none_where_no_transport_of_ours_made_the_call(source: object) -> None:
    assert call_record(source) is None
