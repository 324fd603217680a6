# SPDX-License-Identifier: Apache-2.0
"""Under DSPy, whose LiteLLM engine takes the transport and whose own engine does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cline_transport import error_info
from cline_transport.openai import http_client
from cline_transport.simulator import Reply, Simulator

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network for prices
library: Any = pytest.importorskip("dspy", reason="python -m tests.frameworks")
litellm: Any = pytest.importorskip("litellm")
execution: Any = pytest.importorskip("dspy.clients.execution")

from .specification import ATTEMPTS  # noqa: E402 -- after the skip
from .support import MODEL, PROMPT, hurried  # noqa: E402 -- after the skip

# LiteLLM's own, of modules that it imports at the first call.
pytestmark = pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning")

GOOD = Reply.ok("one two three")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What DSPy waits between its attempts; it takes no time."""
    waited: list[float] = []
    monkeypatch.setattr(execution, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    with http_client() as http:
        litellm.client_session = hurried(http)
        yield
    litellm.client_session = None
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture(autouse=True)
def loop_to_close() -> Iterator[None]:
    """LiteLLM asks for the thread's event loop, and would leave one open that it made."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def lm(api: Simulator, **options: Any) -> Any:
    return library.LM(
        f"openai/{MODEL}", api_base=api.base_url, api_key=api.api_key, cache=False, **options
    )


def test_with_the_engine_litellm_a_429_is_retried_unseen(
    waits: list[float], cline_api: Simulator
) -> None:
    cline_api.enqueue(Reply.error(429, retry_after=0), GOOD)
    assert lm(cline_api, engine="litellm", num_retries=0)(PROMPT) == ["one two three"]
    assert len(cline_api.requests) == 2
    assert waits == []


@pytest.mark.parametrize(("options", "times"), [({}, 4), ({"num_retries": 0}, 1)])
def test_its_own_retries_multiply_the_transports(
    options: dict[str, Any], times: int, waits: list[float], cline_api: Simulator
) -> None:
    cline_api.enqueue(*[Reply.error(429, retry_after=0)] * 50)
    with pytest.raises(Exception, match="429") as caught:
        lm(cline_api, engine="litellm", **options)(PROMPT)
    assert len(cline_api.requests) == ATTEMPTS * times
    assert len(waits) == times - 1
    info = error_info(caught.value)
    assert info is not None
    assert (info.code, info.request_id) == (429, cline_api.requests[-1].request_id)


def test_its_own_engine_goes_past_the_transport(waits: list[float], cline_api: Simulator) -> None:
    """So its waits are its own; and it takes the stream, which the API answers with, as JSON."""
    cline_api.enqueue(Reply.error(429, retry_after=0), Reply.completion("one two three"), GOOD)
    own = lm(cline_api)
    assert own(PROMPT) == ["one two three"]
    assert len(waits) == 1
    assert "x-stainless-lang" not in cline_api.requests[0].headers
    with pytest.raises(Exception, match="is not JSON"):
        own(PROMPT)
