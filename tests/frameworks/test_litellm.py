"""Under LiteLLM."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cline_transport.simulator import Simulator

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network for prices
library: Any = pytest.importorskip("litellm", reason="python -m tests.frameworks")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter  # noqa: E402 -- after the skip

# Its own, of modules that it imports at the first call.
pytestmark = pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning")

PRINTED = "one two three\n"


class LiteLlm(Adapter):
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
