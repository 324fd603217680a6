# SPDX-License-Identifier: Apache-2.0
"""One `ErrorInfo` for whatever failed."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cline_transport import CallRecord, ErrorInfo, call_record, error_info
from cline_transport.errors import EXTENSION, REQUEST_RECORD, connection_code
from cline_transport.httpx import StreamError
from cline_transport.wire import TRANSIENT

REQUEST = httpx.Request("POST", "http://127.0.0.1/chat/completions")


def response(status: int, body: object = None, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers, request=REQUEST)


def test_a_response_is_explained_by_its_body() -> None:
    info = error_info(
        httpx.Response(
            429,
            json={"error": {"code": 429, "message": "Slow down", "metadata": {"a": 1}}},
            headers={"x-request-id": "req_1"},
        )
    )
    assert info == ErrorInfo(
        code=429,
        message="Slow down",
        metadata={"a": 1},
        status_code=429,
        phase="immediate",
        request_id="req_1",
        retryable=True,
    )


def test_a_response_that_was_not_read_is_explained_by_its_status() -> None:
    unread = httpx.Response(503, stream=httpx.ByteStream(b"later"))
    info = error_info(unread)
    assert info is not None
    assert (info.code, info.message) == (503, "Service temporarily down")


def test_a_2xx_body_with_an_error_is_a_failure() -> None:
    body = {"choices": [{"finish_reason": "error", "error": {"code": "server_error"}}]}
    info = error_info(response(200, body))
    assert info is not None
    assert (info.code, info.status_code, info.retryable) == ("server_error", 200, True)
    bare = error_info(response(200, {"choices": [{"finish_reason": "error"}]}))
    assert bare is not None
    assert bare.code == "server_error"  # as the transport says of the same bytes


@pytest.mark.parametrize(
    "good",
    [
        response(200, {"choices": [{"finish_reason": "stop"}]}),
        httpx.Response(204),
        httpx.Response(200, stream=httpx.ByteStream(b"unread")),
        {"choices": [{"delta": {"content": "hi"}}]},
        ValueError("not ours"),
        "text",
        None,
        7,
    ],
)
def test_what_is_no_error_is_none(good: object) -> None:
    assert error_info(good) is None


def test_a_chunk_is_a_failure_in_mid_stream() -> None:
    info = error_info(
        {"model": "m", "choices": [{"finish_reason": "error", "error": {"code": "content_filter"}}]}
    )
    assert info is not None
    assert (info.code, info.phase, info.model, info.retryable) == (
        "content_filter",
        "mid_stream",
        "m",
        False,
    )


def test_a_chunk_may_be_a_model_of_the_sdk() -> None:
    from openai.types.chat import ChatCompletionChunk  # noqa: PLC0415 -- one test's subject

    chunk = ChatCompletionChunk.construct(
        **json.loads('{"choices":[{"finish_reason":"error","error":{"code":"rate_limit"}}]}')
    )
    info = error_info(chunk)
    assert info is not None
    assert info.code == "rate_limit"


def test_an_error_info_explains_itself() -> None:
    info = ErrorInfo(code=1, message="m")
    assert error_info(info) is info


def test_the_record_of_the_call_says_more_than_the_response() -> None:
    known = ErrorInfo(code=502, message="m", attempts=4)
    answer = response(502, {"error": {"message": "other"}})
    answer.extensions[EXTENSION] = CallRecord(error=known)
    assert error_info(answer) is known


def test_an_exception_is_explained_by_its_response_then_its_request_then_its_cause() -> None:
    status = httpx.HTTPStatusError("m", request=REQUEST, response=response(402, {"error": "broke"}))
    found = error_info(status)
    assert found is not None
    assert (found.code, found.message) == (402, "broke")

    known = ErrorInfo(code="rate_limit", message="m", phase="mid_stream")
    request = httpx.Request("POST", "http://127.0.0.1", extensions={})
    request.extensions[REQUEST_RECORD] = CallRecord(error=known)
    assert error_info(httpx.ReadError("m", request=request)) is known

    outer = RuntimeError("outer")
    outer.__cause__ = httpx.ReadTimeout("slow", request=REQUEST)
    caused = error_info(outer)
    assert caused is not None
    assert (caused.code, caused.message, caused.phase) == ("read_timeout", "slow", "connection")


def recorded(error: ErrorInfo) -> httpx.Response:
    answer = response(200)
    answer.extensions[EXTENSION] = CallRecord(error=error)
    return answer


KNOWN = ErrorInfo(code="rate_limit", message="m", phase="mid_stream", request_id="req_1")


class FrameworksError(Exception):
    """As LiteLLM's and pydantic-ai's: what it carries is of the framework's own making."""

    def __init__(self, status: int) -> None:
        self.status_code = status
        self.response = response(status)
        self.body = {"code": "other", "message": "other"}


@pytest.mark.parametrize("raised", ["from it", "while it was handled"])
def test_what_the_transport_recorded_says_more_than_a_frameworks_own_response(raised: str) -> None:
    outer, inner = FrameworksError(500), httpx.HTTPStatusError(
        "m", request=REQUEST, response=recorded(KNOWN)
    )  # fmt: skip
    if raised == "from it":
        outer.__cause__ = inner
    else:
        outer.__context__ = inner
    assert error_info(outer) is KNOWN


def test_an_exception_raised_from_none_hides_what_it_was_raised_in() -> None:
    outer = RuntimeError("m")
    outer.__context__ = httpx.ReadTimeout("slow", request=REQUEST)
    assert error_info(outer) is not None
    outer.__suppress_context__ = True
    assert error_info(outer) is None


def test_a_call_of_its_own_is_not_explained_by_the_one_that_failed_before_it() -> None:
    def while_handling(raised: Exception) -> Exception:
        raised.__context__ = httpx.HTTPStatusError("m", request=REQUEST, response=recorded(KNOWN))
        return raised

    own = while_handling(httpx.ReadTimeout("slow", request=REQUEST))
    info = error_info(own)
    assert info is not None
    assert info.code == "read_timeout"
    assert call_record(own) is None
    assert error_info(while_handling(httpx.UnsupportedProtocol("foo://"))) is not KNOWN
    assert error_info(while_handling(RuntimeError("a framework's"))) is KNOWN


class GroupError(Exception):  # as ExceptionGroup, which Python 3.10 has not
    def __init__(self, *members: object) -> None:
        self.exceptions = members


def test_a_group_of_one_is_explained_by_its_member() -> None:
    member = httpx.HTTPStatusError("m", request=REQUEST, response=recorded(KNOWN))
    assert error_info(GroupError(member)) is KNOWN
    assert error_info(GroupError(GroupError(member))) is KNOWN
    assert error_info(GroupError(member, ValueError("m"))) is None
    assert error_info(GroupError("no exception")) is None


def test_a_long_chain_is_walked_once() -> None:
    first: BaseException = RuntimeError("m")
    last = first
    for _ in range(20_000):
        last.__cause__ = RuntimeError("m")
        last = last.__cause__
    last.__cause__ = first  # and ends where it began
    assert error_info(first) is None
    while (following := first.__cause__) is not None:  # or its end would recurse
        first.__cause__ = None
        first = following


class Hostile:
    headers = ("no", "mapping")
    status_code = 500

    @property
    def content(self) -> bytes:
        raise RuntimeError("no")


def test_a_response_of_any_shape_is_survived() -> None:
    info = error_info(Hostile())
    assert info is not None
    assert (info.code, info.request_id) == (500, None)

    class Failing:
        @property
        def status_code(self) -> int:
            raise RuntimeError("no")

    assert error_info(Failing()) is None


def test_a_cause_is_followed_rather_than_what_was_being_handled() -> None:
    outer = RuntimeError("m")
    outer.__context__ = httpx.HTTPStatusError("m", request=REQUEST, response=recorded(KNOWN))
    outer.__cause__ = httpx.ReadTimeout("slow", request=REQUEST)
    info = error_info(outer)
    assert info is not None
    assert info.code == "read_timeout"


def test_a_response_says_more_than_a_body_without_one() -> None:
    outer: Any = RuntimeError("m")
    outer.body = {"code": 401, "message": "Invalid"}
    answer = response(401, {"error": {"code": 401, "message": "m"}}, **{"x-request-id": "req_1"})
    outer.__cause__ = httpx.HTTPStatusError("m", request=REQUEST, response=answer)
    info = error_info(outer)
    assert info is not None
    assert (info.phase, info.status_code, info.request_id) == ("immediate", 401, "req_1")


def test_a_body_beside_a_status_is_that_of_an_http_error() -> None:
    exc: Any = RuntimeError("m")
    exc.status_code, exc.body = 429, {"code": "slow", "message": "Wait"}
    info = error_info(exc)
    assert info == ErrorInfo(
        code="slow", message="Wait", status_code=429, phase="immediate", retryable=True
    )


def test_an_exception_with_a_good_response_is_none() -> None:
    assert error_info(httpx.HTTPStatusError("m", request=REQUEST, response=response(302))) is None
    assert error_info(httpx.TooManyRedirects("m", request=REQUEST)) is None
    lonely: Any = RuntimeError("m")
    lonely.response = response(200, {})
    assert error_info(lonely) is None
    lonely.__cause__ = ValueError("m")
    assert error_info(lonely) is None


def test_an_exception_without_request_or_response_properties_that_raise() -> None:
    found = error_info(httpx.ConnectError(""))  # its `request` raises RuntimeError
    assert found is not None
    assert (found.code, found.message) == ("connect_error", "ConnectError")


def test_the_sdks_exception_from_a_stream_is_explained_by_its_body() -> None:
    exc: Any = RuntimeError("m")
    exc.body = {"code": "rate_limit", "message": "slow"}
    info = error_info(exc)
    assert info is not None
    assert (info.code, info.phase) == ("rate_limit", "mid_stream")


def test_our_own_exception_carries_its_info() -> None:
    exc: Any = RuntimeError("m")
    exc.info = ErrorInfo(code=1, message="m")
    assert error_info(exc) is exc.info


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (httpx.ConnectError("m"), "connect_error"),
        (httpx.ConnectTimeout("m"), "connect_timeout"),
        (httpx.ReadTimeout("m"), "read_timeout"),
        (httpx.WriteTimeout("m"), "write_timeout"),
        (httpx.PoolTimeout("m"), "pool_timeout"),
        (httpx.ReadError("m"), "connection_closed"),
        (httpx.WriteError("m"), "connection_closed"),
        (httpx.CloseError("m"), "connection_closed"),
        (httpx.RemoteProtocolError("Server disconnected"), "connection_closed"),
        (httpx.RemoteProtocolError("illegal header line"), "protocol_error"),
        (httpx.ProxyError("407 Proxy Authentication Required"), "proxy_refused"),
        (httpx.ProxyError("m"), "proxy_error"),
        (httpx.LocalProtocolError("m"), "LocalProtocolError"),
        (httpx.UnsupportedProtocol("m"), "UnsupportedProtocol"),
        (ConnectionError("m"), "ConnectionError"),
        (type("ConnectError", (Exception,), {})("m"), "ConnectError"),
    ],
)
def test_an_exception_of_the_wire_has_a_code(exc: Exception, code: str) -> None:
    assert connection_code(exc) == code


def test_an_exception_without_a_message_is_named() -> None:
    info = error_info(httpx.ReadTimeout("", request=REQUEST))
    assert info is not None
    assert info.message == "ReadTimeout"


def test_the_report_has_the_four_points_of_the_documentation() -> None:
    info = ErrorInfo(
        code="rate_limit",
        message="slow\ndown",
        phase="mid_stream",
        request_id="req_1",
        model="m",
        attempts=2,
    )
    assert info.report() == (
        "1. Error code and message: rate_limit: slow down\n"
        "2. Model ID: m\n"
        "3. Request ID (x-request-id): req_1\n"
        '4. Immediate or mid-stream: mid-stream (finish_reason: "error")\n'
        "Attempts: 2\n"
        "What to do: Wait and retry with exponential backoff"
    )


@pytest.mark.parametrize(
    ("info", "line"),
    [
        (ErrorInfo(code=502, message="m", status_code=502), "immediate (HTTP error 502)"),
        (
            ErrorInfo(code="connection_closed", message="m", phase="mid_stream"),
            "mid-stream (the connection was lost)",
        ),
        (
            ErrorInfo(code="connect_error", message="m", phase="connection"),
            "no response (the connection failed)",
        ),
    ],
)
def test_it_says_how_the_error_came(info: ErrorInfo, line: str) -> None:
    assert line in info.report()
    assert "not known" in info.report()
    assert "not present" in info.report()


@pytest.mark.parametrize(
    ("info", "advice"),
    [
        (ErrorInfo(code=401, message="m"), "Verify the Authorization header contains a valid key"),
        (
            ErrorInfo(code="odd", message="m", status_code=429),
            "Wait and retry with exponential backoff",
        ),
        (ErrorInfo(code="odd", message="m", retryable=True), "Retry the full request"),
        (ErrorInfo(code="odd", message="m", status_code=418), "Report it with the details below"),
    ],
)
def test_the_advice_is_the_documentations(info: ErrorInfo, advice: str) -> None:
    assert info.advice == advice


def test_every_transient_failure_has_an_advice_of_its_own() -> None:
    for code in TRANSIENT:
        info = ErrorInfo(code=code, message="m", retryable=True)
        assert info.advice != "Report it with the details below"


def test_an_exception_that_is_its_own_cause_is_followed_once() -> None:
    exc = RuntimeError("m")
    exc.__cause__ = exc
    assert error_info(exc) is None


def test_a_model_that_cannot_be_dumped_is_no_error() -> None:
    class Broken:
        def model_dump(self) -> object:
            raise ValueError("m")

    assert error_info(Broken()) is None
    assert error_info(Broken) is None


def test_an_error_info_can_be_pickled_copied_and_turned_into_a_dict() -> None:
    info = ErrorInfo(code=1, message="m")
    assert pickle.loads(pickle.dumps(info)) == info  # noqa: S301 -- our own bytes
    assert copy.deepcopy(info) == info
    assert dataclasses.asdict(info)["metadata"] == {}
    raised = StreamError(info)
    assert pickle.loads(pickle.dumps(raised)).info == info  # noqa: S301 -- our own bytes


def test_odd_objects_are_looked_at_without_harm() -> None:
    assert error_info(SimpleNamespace(status_code=503)) is not None
    assert error_info(SimpleNamespace(status_code="503")) is None
