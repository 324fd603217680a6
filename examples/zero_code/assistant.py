# SPDX-License-Identifier: Apache-2.0
"""An ordinary application: an answer as it comes, and a whole one. It knows of no transport.

LLM_BASE_URL=... LLM_API_KEY=... [LLM_MODEL=...] python assistant.py [--async]
"""

from __future__ import annotations

import asyncio
import os
import sys

from openai import APIError, APIStatusError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

URL = os.environ["LLM_BASE_URL"]
KEY = os.environ["LLM_API_KEY"]
MODEL = os.environ.get("LLM_MODEL", "anthropic/claude-sonnet-4.6")

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
GOODBYE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say goodbye."}]


def show(text: str | None) -> None:
    """Print a piece of an answer at once."""
    print(text or "", end="", flush=True)


def tell(exc: APIError) -> None:
    """Print what became of an answer."""
    status = exc.status_code if isinstance(exc, APIStatusError) else "-"
    print(f"[{type(exc).__name__} {status} {exc.message}]")


def ask() -> None:
    """Ask twice."""
    with OpenAI(base_url=URL, api_key=KEY) as llm:
        try:
            with llm.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
                for chunk in stream:
                    for choice in chunk.choices:
                        show(choice.delta.content)
            print()
        except APIError as exc:
            tell(exc)
        try:
            answer = llm.chat.completions.create(model=MODEL, messages=GOODBYE)
            print(answer.choices[0].message.content)
        except APIError as exc:
            tell(exc)


async def ask_async() -> None:
    """Ask twice, in an event loop."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY) as llm:
        try:
            stream = await llm.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            async with stream:
                async for chunk in stream:
                    for choice in chunk.choices:
                        show(choice.delta.content)
            print()
        except APIError as exc:
            tell(exc)
        try:
            answer = await llm.chat.completions.create(model=MODEL, messages=GOODBYE)
            print(answer.choices[0].message.content)
        except APIError as exc:
            tell(exc)


if __name__ == "__main__":
    if "--async" in sys.argv[1:]:
        asyncio.run(ask_async())
    else:
        ask()
