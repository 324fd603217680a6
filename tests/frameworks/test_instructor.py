# SPDX-License-Identifier: Apache-2.0
"""Under Instructor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.metadata import requires, version
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from cline_transport.simulator import Simulator

library: Any = pytest.importorskip("instructor", reason="python -m tests.frameworks")

from .specification import Specification  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, Adapter  # noqa: E402 -- after the skip


class Greeting(BaseModel):
    text: str


class Instructor(Adapter):
    name = "instructor"
    printed = "text='one'\ntext='one two'\ntext='one two three'\n"
    says_stream_false = False
    # Its synchronous `create_partial` reads the whole stream before it hands anything over.
    delivered = {"sync": "", "async": "one two"}  # noqa: RUF012 -- a ClassVar in the base

    def __init__(self, api: Simulator, *, is_sync: bool, http: Any, defaults: bool) -> None:
        kind: Any = openai.OpenAI if is_sync else openai.AsyncOpenAI
        self._client = library.from_openai(
            kind(base_url=api.base_url, api_key=api.api_key, http_client=http),
            mode=library.Mode.JSON,
        )
        self._asked = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "response_model": Greeting,
        }

    @staticmethod
    def chunks(*words: str) -> list[str]:
        """A JSON document, cut where the words are."""
        first, *others = words
        last = others.pop() if others else ""
        return ['{"text": "' + first, *others, last + '"}']

    def call(self) -> str:
        text: str = self._client.create(**self._asked).text
        return text

    async def call_async(self) -> str:
        text: str = (await self._client.create(**self._asked)).text
        return text

    def stream(self) -> Iterator[str]:
        text = ""
        for greeting in self._client.create_partial(**self._asked):
            yield grown(text, greeting.text)
            text = greeting.text

    async def stream_async(self) -> AsyncIterator[str]:
        text = ""
        async for greeting in self._client.create_partial(**self._asked):
            yield grown(text, greeting.text)
            text = greeting.text


def test_it_caps_what_the_newest_sdk_needs() -> None:
    """So its environment has an older SDK than the others: the table says which."""
    caps = [one for one in requires("instructor") or [] if one.startswith("jiter")]
    assert caps == ["jiter<0.15,>=0.6.1"]
    assert version("openai").split(".")[:2] == ["3", "3"]


def grown(before: str, after: str) -> str:
    """What came to a partial answer, which never loses or repeats anything."""
    assert after.startswith(before)
    return after.removeprefix(before)


ADAPTER = Instructor


class TestUnderInstructor(Specification):
    """All of it."""
