# SPDX-License-Identifier: Apache-2.0
"""Under LangChain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cline_transport.simulator import Simulator

library: Any = pytest.importorskip("langchain_openai", reason="python -m tests.frameworks")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter  # noqa: E402 -- after the skip


class LangChain(Adapter):
    name = "langchain"

    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None:
        client = {"http_client" if is_sync else "http_async_client": http}
        self._llm = library.ChatOpenAI(
            model=MODEL, base_url=api.base_url, api_key=api.api_key, **client
        )

    def call(self) -> str:
        text: str = self._llm.invoke(PROMPT).text
        return text

    async def call_async(self) -> str:
        text: str = (await self._llm.ainvoke(PROMPT)).text
        return text

    def stream(self) -> Iterator[str]:
        for chunk in self._llm.stream(PROMPT):
            yield chunk.text

    async def stream_async(self) -> AsyncIterator[str]:
        async for chunk in self._llm.astream(PROMPT):
            yield chunk.text


ADAPTER = LangChain


class TestUnderLangChain(Specification):
    """All of it."""
