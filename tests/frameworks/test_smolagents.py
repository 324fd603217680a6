# SPDX-License-Identifier: Apache-2.0
"""Under smolagents, which retries by the words of an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cline_transport import error_info
from cline_transport.openai import http_client
from cline_transport.simulator import Reply, Simulator

library: Any = pytest.importorskip("smolagents", reason="python -m tests.frameworks")
models: Any = pytest.importorskip("smolagents.models")

from .specification import ATTEMPTS  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, hurried  # noqa: E402 -- after the skip

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client with the transport; what smolagents waits between its attempts takes no time."""
    assert models.RETRY_WAIT == 60
    assert models.RETRY_MAX_ATTEMPTS == 3
    monkeypatch.setattr(models, "RETRY_WAIT", 0)
    with http_client() as client:
        yield hurried(client)


def model(api: Simulator, http: Any, **options: Any) -> Any:
    return library.OpenAIModel(
        MODEL,
        api_base=api.base_url,
        api_key=api.api_key,
        client_kwargs={"http_client": http},
        **options,
    )


def test_an_answer_comes_through(http: Any, cline_api: Simulator) -> None:
    cline_api.enqueue(Reply.error(429, retry_after=0), *[Reply.ok("one two three")] * 2)
    smol = model(cline_api, http, retry=False)
    assert smol.generate(MESSAGES).content == "one two three"
    parts = [delta.content or "" for delta in smol.generate_stream(MESSAGES)]
    assert "".join(parts) == "one two three"
    assert len(cline_api.requests) == 3


def test_an_error_after_content_is_raised(http: Any, cline_api: Simulator) -> None:
    cline_api.enqueue(Reply.stream("one two three", error="rate_limit", error_after=2))
    deltas = model(cline_api, http, retry=False).generate_stream(MESSAGES)
    assert [next(deltas).content for _ in range(3)] == ["", "one", " two"]
    with pytest.raises(Exception, match="Rate limit") as caught:
        next(deltas)
    info = error_info(caught.value)
    assert info is not None
    assert info.code == "rate_limit"


@pytest.mark.parametrize(("options", "times"), [({}, 3), ({"retry": False}, 1)])
def test_its_own_retries_multiply_the_transports(
    options: dict[str, Any], times: int, http: Any, cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(429, retry_after=0)] * 50)
    with pytest.raises(Exception, match="429"):
        model(cline_api, http, **options).generate(MESSAGES)
    assert len(cline_api.requests) == ATTEMPTS * times


@pytest.mark.parametrize(("options", "times"), [({}, 3), ({"retry": False}, 1)])
@pytest.mark.parametrize("message", ["at most 4290 tokens", "no rate limit is set for this key"])
def test_it_retries_whatever_has_429_or_rate_limit_in_its_text(
    message: str, options: dict[str, Any], times: int, http: Any, cline_api: Simulator
) -> None:
    """A 400, which no retry mends."""
    cline_api.enqueue(*[Reply.error(400, message=message)] * 50)
    with pytest.raises(Exception, match=message):
        model(cline_api, http, **options).generate(MESSAGES)
    assert len(cline_api.requests) == times
