# SPDX-License-Identifier: Apache-2.0
"""The same over HTTP/2, where a closed stream leaves its connection to the others."""

from __future__ import annotations

from typing import Any

import pytest

from cline_transport.simulator import Gate, Reply, Simulator

from .events import contents
from .rig import CHAT, Client, Rig, unread

STREAM: Any = {**CHAT, "stream": True}


@pytest.fixture
def client(rig: Rig) -> Client:
    return rig.client(rig.transport(rig.inner(http1=False, http2=True), traced=True))


def test_a_call_is_retried_and_its_stream_delivered(
    rig: Rig, client: Client, api: Simulator, url: str
) -> None:
    api.enqueue(
        Reply.error(429, retry_after=2),
        Reply.stream("x", error="server_error", error_after=0),
        Reply.stream("one two", encoding="gzip"),
    )
    answer = client.post(url, json=STREAM)
    assert answer.response.http_version == "HTTP/2"
    assert contents(answer.body) == ("one two", [])
    assert rig.time.waits == [2.0, 2.0]
    assert answer.record.completed
    assert len(rig.finished()[1]) == 3
    assert {request.http_version for request in api.requests} == {"HTTP/2"}


def test_an_error_after_content_is_seen(client: Client, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stream("one two", error="rate_limit"))
    text, [error] = contents(client.post(url, json=STREAM).body)
    assert (text, error["error"]["code"]) == ("one two", "rate_limit")


def test_a_stream_that_is_reset_before_content_is_retried(
    client: Client, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.stream("one", cut_after=0, then="reset"), Reply.stream("one"))
    assert contents(client.post(url, json=STREAM).body)[0] == "one"
    assert len(api.requests) == 2


@unread
def test_a_stream_that_is_left_costs_no_connection(
    client: Client, api: Simulator, url: str
) -> None:
    for _ in range(5):
        api.enqueue(Reply.stream("a b c d", gate=Gate(3)))
        response = client.open("POST", url, json=STREAM)
        chunks = client.chunks(response)
        next(chunks)
        client.close(response)
        chunks.close()
    assert api.connections_accepted == 1
