# SPDX-License-Identifier: Apache-2.0
"""Connections that cannot be made, or break before a response."""

from __future__ import annotations

from contextlib import ExitStack

import openai
import pytest

from cline_transport import error_info
from cline_transport.simulator import Reply, Simulator

from .support import MODEL, Mode, Sdk, assert_waits, sdk_leaves_generators

pytestmark = sdk_leaves_generators

DOCUMENTED = (1, 2, 4)
"""The waits of one call; then the SDK, which retries a connection itself, tries twice."""

broken = pytest.mark.parametrize("reply", [Reply.close(), Reply.reset()], ids=["closed", "reset"])


@broken
def test_a_connection_that_breaks_before_a_response_is_not_seen(
    reply: Reply, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(reply, reply, reply, Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert len(cline_api.requests) == 4
    assert_waits(sdk.waits, DOCUMENTED)
    assert sdk.sdk_waits == []


def test_a_refused_connection_is_not_seen(mode: Mode, sdk: Sdk, cline_api: Simulator) -> None:
    with ExitStack() as outage:
        outage.enter_context(cline_api.refusing())
        sdk.waits.during = outage.close
        answer = sdk.ask(mode)

    assert answer.text == "Hello from the simulator."
    assert len(cline_api.requests) == 1
    assert_waits(sdk.waits, (1,))
    assert sdk.sdk_waits == []


@broken
def test_connections_that_always_break_take_four_attempts_and_one_for_each_retry_of_the_sdk(
    reply: Reply, mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[reply] * 20)

    answer = sdk.ask(mode)

    assert type(answer.raised) is openai.APIConnectionError
    counts = [one.headers["x-stainless-retry-count"] for one in cline_api.requests]
    assert counts == ["0", "0", "0", "0", "1", "2"]
    assert_waits(sdk.waits, DOCUMENTED)
    assert len(sdk.sdk_waits) == 2
    info = error_info(answer.raised)
    assert info is not None
    assert (info.code, info.phase, info.status_code) == ("connection_closed", "connection", None)
    assert (info.model, info.attempts, info.request_id) == (MODEL, 1, None)
    assert info.retryable


def test_a_connection_that_is_always_refused_takes_as_many(
    mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    with cline_api.refusing():
        answer = sdk.ask(mode)

    assert type(answer.raised) is openai.APIConnectionError
    assert len(sdk.traces.attempts) == 4 + 1 + 1
    assert_waits(sdk.waits, DOCUMENTED)
    assert len(sdk.sdk_waits) == 2
    info = error_info(answer.raised)
    assert info is not None
    assert (info.code, info.phase) == ("connect_error", "connection")
    assert info.advice == "Check the network, the proxy settings and the base URL"
    assert "4. Immediate or mid-stream: no response" in info.report()


def test_an_outage_that_the_transport_does_not_outlive_is_left_to_the_sdk(
    mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.close()] * 5, Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert len(cline_api.requests) == 6


def test_an_error_after_a_broken_connection_counts_all_attempts(
    mode: Mode, sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.reset(), *[Reply.error(503)] * 9)

    error = sdk.ask(mode).status_error

    info = error_info(error)
    assert info is not None
    assert (info.code, info.attempts) == (503, 4)
    assert error.request_id == info.request_id == cline_api.requests[-1].request_id
    assert_waits(sdk.waits, DOCUMENTED)


def test_a_stream_that_breaks_after_text_raises_what_the_wire_raised(
    sdk: Sdk, cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.stream("one two", cut_after=1, then="close"))

    answer = sdk.ask("stream")

    assert answer.text_so_far == "one"
    info = error_info(answer.raised)
    assert info is not None
    assert (info.code, info.phase) == ("connection_closed", "mid_stream")
    assert (info.model, info.attempts) == (MODEL, 1)
    assert info.request_id == cline_api.requests[0].request_id
    assert len(cline_api.requests) == 1
