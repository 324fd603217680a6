# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11"
# dependencies = ["cline-transport[openai]", "pydantic-ai-slim[openai]>=2.68"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""pydantic-ai: stream an answer, and say why it failed.

Live: CLINE_API_KEY=... uv run examples/frameworks/pydantic_ai_stream.py
"""

import asyncio
import os
import sys

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from cline_transport import error_info
from cline_transport.openai import async_http_client


async def main() -> None:
    """Print the answer as it comes; on failure, say why."""
    async with async_http_client() as http:
        provider = OpenAIProvider(
            base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
            api_key=os.environ["CLINE_API_KEY"],
            http_client=http,
        )
        model = os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6")
        agent = Agent(OpenAIChatModel(model, provider=provider))
        try:
            async with agent.run_stream("Say hello in five languages.") as answer:
                # By default what came in the last 0.1 s before an error would not be delivered.
                async for text in answer.stream_text(delta=True, debounce_by=None):
                    print(text, end="", flush=True)
            print()
        except ModelAPIError as exc:
            info = error_info(exc)
            sys.exit(f"\n{info.report() if info else exc}")


asyncio.run(main())
