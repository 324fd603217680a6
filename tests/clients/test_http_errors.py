# SPDX-License-Identifier: Apache-2.0
"""The table "HTTP error codes" of the error page, row by row, as the SDK's user meets it."""

from __future__ import annotations

from typing import NamedTuple

import openai
import pytest

from cline_transport import ErrorInfo, RetryPolicy, Settings, error_info
from cline_transport.simulator import Reply, Simulator

from .support import MODEL, Answer, Connect, Mode, Sdk, assert_waits, sdk_leaves_generators

pytestmark = sdk_leaves_generators

NOW = 1_784_000_000.0
NOW_PLUS_5 = "Tue, 14 Jul 2026 03:33:25 GMT"
MESSAGE = "message-marker-77aa"


class Row(NamedTuple):
    status: int
    raises: type[openai.APIStatusError]
    waits: tuple[float, ...]
    advice: str

    @property
    def attempts(self) -> int:
        return len(self.waits) + 1


TABLE = [
    Row(400, openai.BadRequestError, (), "Check your request body and required parameters"),
    Row(
        401, openai.AuthenticationError, (), "Verify the Authorization header contains a valid key"
    ),
    Row(402, openai.APIStatusError, (), "Add credits at app.cline.bot"),
    Row(403, openai.PermissionDeniedError, (), "Check key permissions"),
    Row(
        404,
        openai.NotFoundError,
        (),
        "Verify the URL and model ID format (provider/model-name)",
    ),
    Row(429, openai.RateLimitError, (1, 2, 4), "Wait and retry with exponential backoff"),
    Row(500, openai.InternalServerError, (1,), "Retry after a short delay"),
    Row(502, openai.InternalServerError, (1, 2, 4), "Retry after a short delay"),
    Row(503, openai.InternalServerError, (1, 2, 4), "Retry after a short delay"),
]
rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row.status))
transient_rows = pytest.mark.parametrize(
    "row", [row for row in TABLE if row.waits], ids=lambda row: str(row.status)
)


def explained(answer: Answer) -> ErrorInfo:
    info = error_info(answer.raised)
    assert info is not None
    return info


@rows
def test_an_error_that_stays_is_raised_as_the_sdk_names_it(
    row: Row, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(row.status, message=MESSAGE)] * 9)

    error = sdk.ask(mode).status_error

    assert type(error) is row.raises
    assert str(error.code) == str(row.status)
    assert error.status_code == row.status
    assert MESSAGE in error.message
    assert error.request_id == cline_api.requests[-1].request_id


@rows
def test_an_error_that_stays_takes_the_documented_attempts_and_waits(
    row: Row, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(row.status)] * 9)

    sdk.ask(mode)

    assert len(cline_api.requests) == row.attempts
    assert_waits(sdk.waits, row.waits)
    assert sdk.sdk_waits == []
    assert {one.headers["x-stainless-retry-count"] for one in cline_api.requests} == {"0"}
    assert len({one.body for one in cline_api.requests}) == 1


@rows
def test_an_error_that_stays_is_explained_for_a_support_request(
    row: Row, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(row.status, message=MESSAGE, metadata={"trace": "t1"})] * 9)

    info = explained(sdk.ask(mode))

    request_id = cline_api.requests[-1].request_id
    assert info == ErrorInfo(
        code=row.status,
        message=MESSAGE,
        metadata={"trace": "t1"},
        status_code=row.status,
        phase="immediate",
        request_id=request_id,
        model=MODEL,
        attempts=row.attempts,
        retryable=row.attempts > 1,
    )
    assert info.advice == row.advice
    assert info.report().splitlines()[:4] == [
        f"1. Error code and message: {row.status}: {MESSAGE}",
        f"2. Model ID: {MODEL}",
        f"3. Request ID (x-request-id): {request_id}",
        f"4. Immediate or mid-stream: immediate (HTTP error {row.status})",
    ]


@transient_rows
def test_an_error_that_passes_is_not_seen(
    row: Row, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.error(row.status), Reply.ok("one two three"))

    answer = sdk.ask(mode)

    assert answer.text == "one two three"
    assert len(cline_api.requests) == 2
    assert_waits(sdk.waits, (1,))


@transient_rows
def test_an_error_is_raised_when_it_has_outlived_its_retries_and_not_before(
    row: Row, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(row.status)] * len(row.waits), Reply.ok("at last"))

    assert sdk.ask(mode).text == "at last"
    assert_waits(sdk.waits, row.waits)


def test_a_retry_after_that_is_too_long_is_not_waited_for(
    mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.error(429, retry_after=3600), Reply.ok())

    error = sdk.ask(mode).status_error

    assert type(error) is openai.RateLimitError
    assert error.response.headers["retry-after"] == "3600"
    assert len(cline_api.requests) == 1
    assert sdk.waits == []
    assert sdk.sdk_waits == []


@pytest.mark.parametrize(
    ("reply", "least"),
    [
        (Reply.error(429, retry_after=7), 7),
        (Reply.error(429, retry_after=NOW_PLUS_5), 5),
        (Reply.error(429, retry_after_ms=2500), 2.5),
        (Reply.error(429, retry_after_ms=2500, retry_after=30), 2.5),
        (Reply.error(503, retry_after=60), 60),
        (Reply.error(429, retry_after=0), 1),
        (Reply.error(429, retry_after="soon"), 1),
        (Reply.error(402, retry_after=3), 3),
    ],
    ids=["seconds", "date", "ms", "ms-first", "longest", "too-short", "nonsense", "402"],
)
def test_a_retry_after_is_waited_for(
    reply: Reply, least: float, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    sdk.at(NOW)
    cline_api.enqueue(reply, Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert_waits(sdk.waits, (least,))


def test_the_server_may_ask_for_a_retry(mode: Mode, sdk: Sdk, cline_api: Simulator) -> None:
    please = Reply.error(400, headers={"x-should-retry": "true"})
    cline_api.enqueue(please, Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert_waits(sdk.waits, (1,))


def test_the_server_may_ask_for_a_retry_for_ever_and_is_not_obeyed_for_ever(
    mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(400, headers={"x-should-retry": "true"})] * 20)

    assert type(sdk.ask(mode).raised) is openai.BadRequestError
    assert len(cline_api.requests) == 4
    assert sdk.sdk_waits == []


@transient_rows
def test_the_server_may_forbid_a_retry(
    row: Row, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.error(row.status, headers={"x-should-retry": "false"}), Reply.ok())

    assert type(sdk.ask(mode).raised) is row.raises
    assert len(cline_api.requests) == 1
    assert sdk.waits == []


def test_the_page_of_a_proxy_becomes_a_documented_error(
    mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    page = "<html><head><title>502 Bad Gateway</title></head><body>nginx/1.27</body></html>"
    cline_api.enqueue(*[Reply.html(502, html=page)] * 9)

    answer = sdk.ask(mode)

    error = answer.status_error
    assert type(error) is openai.InternalServerError
    assert str(error.code) == "502"  # a number with openai 1 and 2, text with openai 3
    assert error.body == {
        "code": 502,
        "message": "502 Bad Gateway",
        "metadata": {"raw": page, "content_type": "text/html; charset=utf-8"},
    }
    info = explained(answer)
    assert (info.code, info.message, info.metadata["raw"]) == (502, "502 Bad Gateway", page)
    assert info.attempts == len(cline_api.requests) == 4


def test_a_call_that_limits_hold_past_its_deadline_is_a_rate_limit_error_and_not_made_again(
    connect: Connect, cline_api: Simulator, mode: Mode
) -> None:
    sdk = connect(settings=Settings(retry=RetryPolicy(deadline=5, rules={})))
    cline_api.enqueue(Reply.error(429, retry_after=30))
    sdk.ask(mode)
    answer = sdk.ask(mode)
    assert isinstance(answer.raised, openai.RateLimitError)
    assert explained(answer).code == "limit_timeout"
    assert len(cline_api.requests) == 1
