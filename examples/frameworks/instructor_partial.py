# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]", "instructor>=1.17"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""Instructor: an answer as a Pydantic model, piece by piece, and why it failed.

Live: CLINE_API_KEY=... uv run examples/frameworks/instructor_partial.py
"""

import asyncio
import os
import sys

import instructor
from instructor.core import InstructorRetryException
from openai import APIError, AsyncOpenAI
from pydantic import BaseModel

from cline_transport import error_info
from cline_transport.openai import async_http_client


class Greeting(BaseModel):
    """What the model shall answer."""

    text: str


async def main() -> None:
    """Print the answer as it grows; on failure, say why."""
    openai = AsyncOpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        http_client=async_http_client(),
    )
    client = instructor.from_openai(openai, mode=instructor.Mode.JSON)
    try:
        async with openai:
            async for greeting in client.create_partial(
                model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
                messages=[{"role": "user", "content": "Say hello in five languages."}],
                response_model=Greeting,
            ):
                print(greeting)
    except (InstructorRetryException, APIError) as exc:  # before the first piece, and after it
        info = error_info(exc)
        sys.exit(f"\n{info.report() if info else exc}")


asyncio.run(main())
