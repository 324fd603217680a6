# SPDX-License-Identifier: Apache-2.0
"""Under pydantic-ai."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest

from cline_transport import attach
from cline_transport.openai import async_http_client
from cline_transport.simulator import Reply, Simulator

library: Any = pytest.importorskip("pydantic_ai", reason="python -m tests.frameworks")
models: Any = pytest.importorskip("pydantic_ai.models.openai")
providers: Any = pytest.importorskip("pydantic_ai.providers.openai")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter, Asker, Way, hurried  # noqa: E402 -- after the skip


class PydanticAi(Adapter):
    name = "pydantic_ai"
    async_client_only = True

    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None:
        provider = providers.OpenAIProvider(
            base_url=api.base_url, api_key=api.api_key, http_client=http
        )
        self._agent = library.Agent(models.OpenAIChatModel(MODEL, provider=provider))

    def call(self) -> str:
        text: str = self._agent.run_sync(PROMPT).output
        return text

    async def call_async(self) -> str:
        text: str = (await self._agent.run(PROMPT)).output
        return text

    def stream(self) -> Iterator[str]:
        yield from self._agent.run_stream_sync(PROMPT).stream_text(delta=True, debounce_by=None)

    async def stream_async(self) -> AsyncIterator[str]:
        async with self._agent.run_stream(PROMPT) as answer:
            async for text in answer.stream_text(delta=True, debounce_by=None):
                yield text


ADAPTER = PydanticAi


class TestUnderPydanticAi(Specification):
    """All of it."""


LAST = {"connection": "close"}
"""No connection is left, which would belong to a loop that is closed."""
GOOD = Reply.completion("one two three", headers=LAST)


def ask_on_a_loop_of_its_own(provider: Any) -> None:
    """As a script does that calls `asyncio.run()` twice."""
    agent = library.Agent(models.OpenAIChatModel(MODEL, provider=provider))
    assert asyncio.run(agent.run(PROMPT)).output == "one two three"


def test_what_is_attached_to_its_own_client_is_lost_on_a_second_loop(cline_api: Simulator) -> None:
    cline_api.enqueue(GOOD, Reply.error(529, headers=LAST), GOOD)
    provider = providers.OpenAIProvider(base_url=cline_api.base_url, api_key=cline_api.api_key)
    hurried(attach(provider.client)._client)
    first = provider.client._client
    ask_on_a_loop_of_its_own(provider)
    assert type(first._transport).__name__ == "AsyncClineTransport"
    assert provider.client._client is first

    provider.client.max_retries = 0
    with pytest.raises(library.ModelHTTPError):
        ask_on_a_loop_of_its_own(provider)
    assert provider.client._client is not first
    assert type(provider.client._client._transport).__name__ == "AsyncHTTPTransport"


def test_a_client_that_it_is_given_stays(cline_api: Simulator) -> None:
    cline_api.enqueue(GOOD, Reply.error(529, headers=LAST), GOOD)
    http = hurried(async_http_client())
    provider = providers.OpenAIProvider(
        base_url=cline_api.base_url, api_key=cline_api.api_key, http_client=http
    )
    ask_on_a_loop_of_its_own(provider)
    ask_on_a_loop_of_its_own(provider)
    assert provider.client._client is http
    assert len(cline_api.requests) == 3
    asyncio.run(http.aclose())


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the connection that is left
@pytest.mark.parametrize("make", [async_http_client, openai.DefaultAsyncHttpxClient])
def test_but_its_connections_belong_to_the_loop_that_opened_them(
    make: Callable[[], Any], cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.completion("one two three")] * 2)
    provider = providers.OpenAIProvider(
        base_url=cline_api.base_url, api_key=cline_api.api_key, http_client=make()
    )
    ask_on_a_loop_of_its_own(provider)
    provider.client.max_retries = 0
    with pytest.raises(Exception, match=r"Event loop is closed|Connection error"):
        ask_on_a_loop_of_its_own(provider)
    del provider
    gc.collect()


class Debounced(PydanticAi):
    async def stream_async(self) -> AsyncIterator[str]:
        async with self._agent.run_stream(PROMPT) as answer:
            async for text in answer.stream_text(delta=True, debounce_by=PATIENCE):
                yield text


PATIENCE = 30.0
"""Seconds; in place of its default of 0.1, so that nothing depends on how fast this is."""


def test_pieces_that_it_still_groups_are_lost_when_a_stream_fails(cline_api: Simulator) -> None:
    ask = Asker(Debounced, Way("async", "stream"), cline_api)
    got = ask(Reply.stream("one two three", error="rate_limit", error_after=2))
    assert got.parts == []
    assert isinstance(got.raised, library.exceptions.ModelAPIError)
