# SPDX-License-Identifier: Apache-2.0
"""`http_client()`, `async_http_client()` and `attach()`: the SDK's own client, ours beneath it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from cline_transport import attach
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Reply, Simulator

from .proxy import Proxy, running_proxy
from .support import (
    LIBRARY,
    OURS,
    Colour,
    Connect,
    Mode,
    Sdk,
    our_transports,
    pools,
    sdk_leaves_generators,
)

pytestmark = sdk_leaves_generators

LIMITS = ("_max_connections", "_max_keepalive_connections", "_keepalive_expiry")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with running_proxy() as server:
        yield server


@pytest.fixture(params=["http_client", "attach"])
def proxied(
    request: pytest.FixtureRequest,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    connect: Connect,
) -> Connect:
    """Makes a client in an environment that names the proxy."""

    def make(**environment: str) -> Sdk:
        for name, value in {"HTTP_PROXY": proxy.url, **environment}.items():
            monkeypatch.setenv(name, value)
        return connect(attached=request.param == "attach")

    return make


def made(colour: Colour, **options: Any) -> Any:
    return (http_client if colour.is_sync else async_http_client)(**options)


def close(colour: Colour, http: Any) -> None:
    if colour.is_sync:
        http.close()
    else:
        colour.run(http.aclose)


def test_it_is_the_default_client_of_the_installed_sdk(colour: Colour) -> None:
    kind: Any = openai.DefaultHttpxClient if colour.is_sync else openai.DefaultAsyncHttpxClient
    default, http = kind(), made(colour)

    assert type(http) is type(default)
    assert http.timeout == default.timeout
    assert http.follow_redirects is default.follow_redirects is True
    (pool,) = pools(http)
    for limit in LIMITS:
        assert getattr(pool, limit) == getattr(default._transport._pool, limit)
    close(colour, default)
    close(colour, http)


def test_what_it_is_given_is_passed_on(colour: Colour) -> None:
    http = made(
        colour,
        timeout=7,
        headers={"x-team": "blue"},
        limits=LIBRARY.Limits(max_connections=3),
        follow_redirects=False,
    )

    assert http.timeout == LIBRARY.Timeout(7)
    assert http.headers["x-team"] == "blue"
    assert http.follow_redirects is False
    assert pools(http)[0]._max_connections == 3
    close(colour, http)


def test_a_header_that_it_is_given_is_sent(
    mode: Mode, colour: Colour, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(http=made(colour, headers={"x-team": "blue"}))

    assert sdk.ask(mode).text
    assert cline_api.requests[0].headers["x-team"] == "blue"


def test_the_timeout_of_the_client_is_that_of_the_sdk(
    colour: Colour, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(http=made(colour, timeout=7), timeout=openai.NOT_GIVEN)

    assert sdk.client.timeout == LIBRARY.Timeout(7)


def test_the_proxy_of_the_environment_is_used_and_a_502_through_it_is_retried(
    mode: Mode, proxied: Connect, proxy: Proxy, cline_api: Simulator
) -> None:
    sdk = proxied()
    cline_api.enqueue(Reply.error(502), Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert proxy.targets == [f"{cline_api.base_url}/chat/completions"] * 2
    assert len(sdk.waits) == 1
    assert len(sdk.traces.calls) == 1
    assert len(sdk.traces.attempts) == 2


@pytest.mark.parametrize("exception", ["127.0.0.1", "*"])
def test_no_proxy_is_respected(
    exception: str, mode: Mode, proxied: Connect, proxy: Proxy, cline_api: Simulator
) -> None:
    sdk = proxied(NO_PROXY=exception)
    cline_api.enqueue(Reply.error(502), Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert proxy.targets == []
    assert len(sdk.waits) == 1


def test_a_proxy_that_it_is_given_is_used(
    mode: Mode, colour: Colour, connect: Connect, proxy: Proxy, cline_api: Simulator
) -> None:
    sdk = connect(http=made(colour, proxy=proxy.url))
    cline_api.enqueue(Reply.error(503), Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert len(proxy.targets) == 2


def test_a_client_of_the_sdk_that_exists_already_can_be_attached_to(
    mode: Mode, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(attached=True)
    cline_api.enqueue(Reply.error(429), Reply.ok("one two three"))

    assert sdk.ask(mode).text == "one two three"
    assert len(sdk.waits) == 1
    assert len(sdk.traces.calls) == 1


def test_to_attach_again_changes_nothing(
    mode: Mode, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(attached=True)
    before = our_transports(sdk.http)

    assert attach(sdk.client) is sdk.client
    assert attach(sdk.http) is sdk.http

    assert our_transports(sdk.http) == before
    assert not isinstance(before[0]._transport, (OURS.ClineTransport, OURS.AsyncClineTransport))
    cline_api.enqueue(*[Reply.error(502)] * 20)
    sdk.ask(mode)
    assert len(cline_api.requests) == 4


def test_a_copy_of_the_client_shares_the_transport(
    mode: Mode, connect: Connect, cline_api: Simulator
) -> None:
    sdk = connect(attached=True)
    copy = sdk.copy(timeout=9, max_retries=5)
    assert attach(copy.client) is copy.client
    assert our_transports(copy.http) == our_transports(sdk.http)
    cline_api.enqueue(*[Reply.error(502)] * 20)

    assert type(copy.ask(mode).raised) is openai.InternalServerError
    assert len(cline_api.requests) == 4
    assert len(copy.waits) == 3


def test_what_is_no_client_is_refused_with_what_would_be_one() -> None:
    with pytest.raises(TypeError, match=r"attach\(\) takes an httpx or httpx2 client, or .*str"):
        attach("https://api.cline.bot")


@pytest.mark.parametrize("colour", ["sync"], indirect=True)
def test_the_sdk_takes_a_client_of_httpx_whatever_it_is_built_on(
    connect: Connect, cline_api: Simulator
) -> None:
    """The types of openai 3 say httpx2; at run time either does."""
    sdk = connect(http=attach(httpx.Client()))
    cline_api.enqueue(Reply.stream("one two", error="rate_limit"), Reply.completion("three"))

    answer = sdk.ask("stream")

    assert answer.text_so_far == "one two"
    assert answer.api_error.code == "rate_limit"
    assert sdk.ask("json").text == "three"
    assert type(sdk.http) is httpx.Client
