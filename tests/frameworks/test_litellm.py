# SPDX-License-Identifier: Apache-2.0
"""Under LiteLLM."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from anyio.from_thread import start_blocking_portal

from cline_transport import attach
from cline_transport.openai import http_client
from cline_transport.simulator import Reply, Simulator

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network for prices
library: Any = pytest.importorskip("litellm", reason="python -m tests.frameworks")
http_handler: Any = pytest.importorskip("litellm.llms.custom_httpx.http_handler")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter, hurried  # noqa: E402 -- after the skip

# Its own, of modules that it imports at the first call.
pytestmark = pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning")


class LiteLlm(Adapter):
    name = "litellm"
    swallows = False
    says_stream_false = False

    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None:
        setattr(library, "client_session" if is_sync else "aclient_session", http)
        self._asked = {
            "model": f"openai/{MODEL}",
            "api_base": api.base_url,
            "api_key": api.api_key,
            "messages": [{"role": "user", "content": PROMPT}],
        }

    def call(self) -> str:
        text: str = library.completion(**self._asked).choices[0].message.content
        return text

    async def call_async(self) -> str:
        text: str = (await library.acompletion(**self._asked)).choices[0].message.content
        return text

    def stream(self) -> Iterator[str]:
        for chunk in library.completion(**self._asked, stream=True):
            yield chunk.choices[0].delta.content or ""

    async def stream_async(self) -> AsyncIterator[str]:
        async for chunk in await library.acompletion(**self._asked, stream=True):
            yield chunk.choices[0].delta.content or ""

    def close(self) -> None:
        library.client_session = library.aclient_session = None
        library.in_memory_llm_clients_cache.flush_cache()


ADAPTER = LiteLlm


class TestUnderLiteLlm(Specification):
    """All of it."""


@pytest.fixture(autouse=True)
def loop_to_close() -> Iterator[None]:
    """LiteLLM asks for the thread's event loop, and would leave one open that it made."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(autouse=True)
def sessions() -> Iterator[None]:
    """What one test sets no other has."""
    yield
    library.client_session = library.aclient_session = None
    library.in_memory_llm_clients_cache.flush_cache()


def ask(api: Simulator, **options: Any) -> Any:
    return library.completion(
        **{
            "model": f"openai/{MODEL}",
            "api_base": api.base_url,
            "api_key": api.api_key,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_retries": 0,
            **options,
        }
    )


def test_a_session_that_is_set_after_the_first_call_is_ignored(cline_api: Simulator) -> None:
    last = {"connection": "close"}  # of its own client, which nobody closes
    good = Reply.completion("one two three", headers=last)
    cline_api.enqueue(good, Reply.error(503, headers=last), good)
    ask(cline_api)
    with http_client() as http:
        library.client_session = hurried(http)
        with pytest.raises(library.ServiceUnavailableError):
            ask(cline_api)
        assert len(cline_api.requests) == 2

        # The way round: let it forget the clients that it has made.
        library.in_memory_llm_clients_cache.flush_cache()
        cline_api.reset()
        cline_api.enqueue(Reply.error(503), good)
        assert ask(cline_api).choices[0].message.content == "one two three"
        assert len(cline_api.requests) == 2


@pytest.mark.parametrize("transport", ["with the transport", "without"])
def test_openrouter_takes_no_word_as_the_code_of_an_error_in_a_stream(
    transport: str, cline_api: Simulator
) -> None:
    """`int()` of the code, whoever put the error at the event's top level."""
    ours = transport != "without"
    shape: Any = "cline" if ours else "openrouter"
    cline_api.enqueue(Reply.stream("one two three", error="rate_limit", error_shape=shape))
    with httpx.Client() as http:
        chunks = ask(
            cline_api,
            model=f"openrouter/{MODEL}",
            client=http_handler.HTTPHandler(client=hurried(attach(http)) if ours else http),
            stream=True,
        )
        with pytest.raises(ValueError, match=r"int\(\) with base 10: 'rate_limit'") as caught:
            list(chunks)
    assert not isinstance(caught.value, openai.APIError)


def test_its_own_asynchronous_client_is_on_aiohttp() -> None:
    client = library.OpenAIChatCompletion().get_async_http_client()
    assert type(client._transport).__name__ == "LiteLLMAiohttpTransport"
    with start_blocking_portal() as portal:
        portal.call(client.aclose)
