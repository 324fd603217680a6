# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11"
# dependencies = ["cline-transport[openai]", "openai-agents>=0.24"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""OpenAI Agents: stream an answer, and say why it failed.

Live: CLINE_API_KEY=... uv run examples/frameworks/openai_agents_stream.py
"""

import asyncio
import os
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import APIError, AsyncOpenAI

from cline_transport import error_info
from cline_transport.openai import async_http_client


async def main() -> None:
    """Print the answer as it comes; on failure, say why."""
    set_tracing_disabled(disabled=True)  # traces would go to OpenAI, with its key
    client = AsyncOpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        http_client=async_http_client(),
    )
    name = os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6")
    model = OpenAIChatCompletionsModel(model=name, openai_client=client)
    async with client:
        answer = Runner.run_streamed(Agent(name="greeter", model=model), "Say hello.")
        try:
            async for event in answer.stream_events():
                if (
                    event.type == "raw_response_event"
                    and event.data.type == "response.output_text.delta"
                ):
                    print(event.data.delta, end="", flush=True)
            print()
        except APIError as exc:
            info = error_info(exc)
            sys.exit(f"\n{info.report() if info else exc}")


asyncio.run(main())
