# SPDX-License-Identifier: Apache-2.0
"""Under the OpenAI Agents SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from cline_transport.simulator import Simulator

library: Any = pytest.importorskip("agents", reason="python -m tests.frameworks")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter  # noqa: E402 -- after the skip


class OpenAiAgents(Adapter):
    name = "openai_agents"
    async_client_only = True
    sync_modes = ("call",)
    says_stream_false = False

    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None:
        client = openai.AsyncOpenAI(base_url=api.base_url, api_key=api.api_key, http_client=http)
        model = library.OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
        self._agent = library.Agent(name="greeter", model=model)
        library.set_tracing_disabled(True)

    def call(self) -> str:
        text: str = library.Runner.run_sync(self._agent, PROMPT).final_output
        return text

    async def call_async(self) -> str:
        text: str = (await library.Runner.run(self._agent, PROMPT)).final_output
        return text

    async def stream_async(self) -> AsyncIterator[str]:
        async for event in library.Runner.run_streamed(self._agent, PROMPT).stream_events():
            if (
                event.type == "raw_response_event"
                and event.data.type == "response.output_text.delta"
            ):
                yield event.data.delta


ADAPTER = OpenAiAgents


class TestUnderOpenAiAgents(Specification):
    """All of it."""
