# SPDX-License-Identifier: Apache-2.0
"""Under LlamaIndex, whose own retries come on top of the transport's unless they are turned off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cline_transport.simulator import Simulator

library: Any = pytest.importorskip(
    "llama_index.llms.openai_like", reason="python -m tests.frameworks"
)
llms: Any = pytest.importorskip("llama_index.core.llms")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter  # noqa: E402 -- after the skip


class LlamaIndex(Adapter):
    name = "llamaindex"
    # Three attempts by default, each of them the transport's four. A stream is read after the
    # function that its retries are around has returned.
    own_retries = {"call": 3, "stream": 1}  # noqa: RUF012 -- a ClassVar in the base

    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None:
        options = {"http_client" if is_sync else "async_http_client": http}
        if not defaults:
            options["max_retries"] = 0
        self._llm = library.OpenAILike(
            model=MODEL,
            api_base=api.base_url,
            api_key=api.api_key,
            is_chat_model=True,
            **options,
        )
        self._messages = [llms.ChatMessage(PROMPT)]

    def call(self) -> str:
        text: str = self._llm.chat(self._messages).message.content
        return text

    async def call_async(self) -> str:
        text: str = (await self._llm.achat(self._messages)).message.content
        return text

    def stream(self) -> Iterator[str]:
        for piece in self._llm.stream_chat(self._messages):
            yield piece.delta

    async def stream_async(self) -> AsyncIterator[str]:
        async for piece in await self._llm.astream_chat(self._messages):
            yield piece.delta


ADAPTER = LlamaIndex


class TestUnderLlamaIndex(Specification):
    """All of it."""
