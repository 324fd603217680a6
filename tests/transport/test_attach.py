# SPDX-License-Identifier: Apache-2.0
"""`attach()` and `detach()`: on a client that exists, its mounts included, and off again."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.instrumentation import httpx as instrumentation

from cline_transport import Settings, attach, detach
from cline_transport.simulator import Reply, Simulator
from tests.clients.proxy import running_proxy

from .rig import CHAT, Client, Rig

QUICK = Settings(retry={"rules": {503: {"initial": 0}}, "jitter": 0})  # type: ignore[arg-type]


def plain(rig: Rig, **options: Any) -> Client:
    kind = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    raw = kind(timeout=10, **options)
    if rig.portal is None:
        rig.stack.enter_context(raw)
    else:
        rig.stack.enter_context(rig.portal.wrap_async_context_manager(raw))
    return Client(raw, rig.portal)


def transports(client: Client) -> list[Any]:
    return [client.raw._transport, *client.raw._mounts.values()]


def attempts(client: Client, api: Simulator, url: str) -> int:
    """How many requests a call makes that fails once."""
    api.reset()
    api.enqueue(Reply.error(503), Reply.stream("fine"))
    client.post(url, json=CHAT)
    return len(api.requests)


def test_detach_gives_the_client_back_as_it_was(rig: Rig, api: Simulator, url: str) -> None:
    client = plain(rig)
    before = transports(client)
    assert attach(client.raw, settings=QUICK) is client.raw
    assert attempts(client, api, url) == 2
    assert detach(client.raw) is client.raw
    assert transports(client) == before
    assert attempts(client, api, url) == 1


def test_a_proxys_mounts_are_attached_and_detached_too(rig: Rig, api: Simulator, url: str) -> None:
    with running_proxy() as proxy:
        client = plain(rig, proxy=proxy.url)
        before = transports(client)
        attach(client.raw, settings=QUICK)
        assert attempts(client, api, url) == 2
        detach(client.raw)
        assert transports(client) == before
        assert attempts(client, api, url) == 1
        assert len(proxy.targets) == 3


def test_a_mount_that_says_no_proxy_stays_so(rig: Rig, api: Simulator, url: str) -> None:
    client = plain(rig, mounts={"http://127.0.0.1": None})
    attach(client.raw, settings=QUICK)
    assert list(client.raw._mounts.values()) == [None]
    assert attempts(client, api, url) == 2
    detach(client.raw)
    assert list(client.raw._mounts.values()) == [None]


def test_to_detach_what_is_not_attached_changes_nothing(rig: Rig) -> None:
    client = plain(rig)
    before = transports(client)
    detach(detach(client.raw))
    assert transports(client) == before


def test_a_transport_of_ours_around_another_of_ours_goes_whole(rig: Rig) -> None:
    inner = rig.inner()
    client = rig.client(rig.transport(rig.transport(inner)))
    detach(client.raw)
    assert client.raw._transport is inner


@pytest.mark.parametrize("function", [attach, detach])
def test_what_is_no_client_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) takes .* \(got builtins\.int\)"):
        function(3)


@pytest.fixture
def instrumentor(rig: Rig) -> Any:
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
    return getattr(instrumentation, kind[rig.family])


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_application_that_instrumented_the_client_keeps_its_spans(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, when: str
) -> None:
    client = plain(rig)
    if when == "before":
        instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    attach(client.raw, settings=QUICK)
    if when == "after":
        instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    detach(client.raw)
    assert attempts(client, api, url) == 1
    assert [span.name for span in rig.spans.get_finished_spans()] == ["POST"]
    rig.spans.clear()
    instrumentor.uninstrument_client(client.raw)
    attempts(client, api, url)
    assert rig.spans.get_finished_spans() == ()


def test_azures_client_is_one_of_the_sdks(api: Simulator) -> None:
    openai = pytest.importorskip("openai")
    client = openai.AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{api.port}/api/v1",
        api_key=api.api_key,
        api_version="2024-10-21",
        max_retries=0,
    )
    attach(client, settings=QUICK)
    api.enqueue(Reply.error(503), Reply.completion("fine"))
    with client:
        answer = client.chat.completions.create(
            model="deployed", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.choices[0].message.content == "fine"
    assert len(api.requests) == 2
    assert "/deployments/deployed/chat/completions" in api.requests[0].target
    assert detach(client) is client
