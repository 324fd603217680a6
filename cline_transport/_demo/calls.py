# SPDX-License-Identifier: Apache-2.0
"""What the demo's application does: plain calls of the `openai` SDK, as anyone writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.chat import ChatCompletionUserMessageParam

__all__ = ["Outcome", "complete", "replace_sleep", "stream", "stream_async"]

PROMPT: ChatCompletionUserMessageParam = {"role": "user", "content": "Say hello in five words."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the application saw.

    Attributes:
        text: The text that was delivered, all of it or the part before an error.
        error: The exception that came out of the SDK, its own or the wire's; `None` for none.
    """

    text: str
    error: Exception | None = None


def complete(client: openai.OpenAI, model: str) -> Outcome:
    """One call without a stream."""
    try:
        completion = client.chat.completions.create(model=model, messages=[PROMPT], stream=False)
    except Exception as exc:  # noqa: BLE001 - whatever the application would see is shown
        return Outcome(text="", error=exc)
    return Outcome(text=completion.choices[0].message.content or "")


def stream(client: openai.OpenAI, model: str, on_chunk: Callable[[], None]) -> Outcome:
    """One streamed call; `on_chunk` is called after each chunk."""
    text = ""
    try:
        chunks = client.chat.completions.create(model=model, messages=[PROMPT], stream=True)
        for chunk in chunks:
            for choice in chunk.choices:
                text += choice.delta.content or ""
            on_chunk()
    except Exception as exc:  # noqa: BLE001 - whatever the application would see is shown
        return Outcome(text=text, error=exc)
    return Outcome(text=text)


async def stream_async(
    client: openai.AsyncOpenAI, model: str, on_chunk: Callable[[], Awaitable[None]]
) -> Outcome:
    """`stream`, with the asynchronous client."""
    text = ""
    try:
        chunks = await client.chat.completions.create(model=model, messages=[PROMPT], stream=True)
        async for chunk in chunks:
            for choice in chunk.choices:
                text += choice.delta.content or ""
            await on_chunk()
    except Exception as exc:  # noqa: BLE001 - whatever the application would see is shown
        return Outcome(text=text, error=exc)
    return Outcome(text=text)


def replace_sleep(http_client: Any, sleep: Callable[[float], object]) -> None:
    """Let a client's transports wait with `sleep`; proxy mounts have transports of their own.

    Args:
        http_client: From `cline_transport.openai.http_client()` or `async_http_client()`.
        sleep: Takes seconds; returns an awaitable for an asynchronous client.
    """
    mounted: list[Any] = list(http_client._mounts.values())  # noqa: SLF001 - no public way
    for transport in (http_client._transport, *mounted):  # noqa: SLF001 - the same
        if transport is not None:  # no_proxy: a mount without a transport of its own
            transport._loop.sleep = sleep  # noqa: SLF001 - the demo shows the wait, nobody else does
