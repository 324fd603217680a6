"""Under pydantic-ai."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cline_transport import attach
from cline_transport.openai import async_http_client
from cline_transport.simulator import Reply, Simulator

library: Any = pytest.importorskip("pydantic_ai", reason="python -m tests.frameworks")
models: Any = pytest.importorskip("pydantic_ai.models.openai")
providers: Any = pytest.importorskip("pydantic_ai.providers.openai")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter, Asker, Way, hurried  # noqa: E402 -- after the skip

PRINTED = "one two three\n"


class PydanticAi(Adapter):
    async_client_only = True
    # What it sends has no `stream`: the API answers with one.
    says_stream_false = True

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
