# SPDX-License-Identifier: Apache-2.0
"""The transport under every client, without a line of the application's code."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation import httpx as instrumentation

from cline_transport import RetryPolicy, Settings, attach
from cline_transport.instrumentor import ClineTransportInstrumentor
from cline_transport.simulator import Reply, Simulator
from tests.clients.proxy import Proxy, running_proxy

from .rig import CHAT, Client, Rig
from .telling import scope_of

Instrument = Callable[..., None]


@pytest.fixture
def instrumentor() -> Iterator[Any]:
    made: Any = ClineTransportInstrumentor()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()


@pytest.fixture
def instrument(rig: Rig, instrumentor: Any) -> Instrument:
    """Instrument for the simulator's host, without waiting."""

    def begin(**options: Any) -> None:
        quick = {"rules": {503: {"max_retries": 3, "initial": 0}}, "jitter": 0}
        given: dict[str, Any] = {
            "hosts": ["127.0.0.1"],
            "retry": quick,
            "tracer_provider": rig.provider,
            "meter_provider": rig.meter_provider,
        }
        instrumentor.instrument(**given | options)

    return begin


def plain(rig: Rig, **options: Any) -> Client:
    """A client as an application makes it: nothing said of transports."""
    kind = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    return adopt(rig, kind(timeout=10, **options))


def adopt(rig: Rig, raw: Any) -> Client:
    if rig.portal is None:
        rig.stack.enter_context(raw)
    else:
        rig.stack.enter_context(rig.portal.wrap_async_context_manager(raw))
    return Client(raw, rig.portal)


def recovers(client: Client, api: Simulator, url: str) -> None:
    """503, then good: seen only where the transport is."""
    api.reset()
    api.enqueue(Reply.error(503), Reply.stream("fine"))
    answer = client.post(url, json=CHAT)
    assert (answer.status, len(api.requests)) == (200, 2)
    assert b"fine" in answer.body


def does_not(client: Client, api: Simulator, url: str) -> None:
    api.reset()
    api.enqueue(Reply.error(503), Reply.stream("fine"))
    assert client.post(url, json=CHAT).status == 503
    assert len(api.requests) == 1


def test_a_client_that_is_made_after_has_it(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    instrument()
    recovers(plain(rig), api, url)
    [call], attempts = rig.finished()
    assert (call.name, len(attempts)) == ("chat cline/ok", 2)


def test_so_has_one_that_was_made_before_and_used(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    client = plain(rig)
    does_not(client, api, url)
    instrument()
    recovers(client, api, url)


def test_so_has_one_of_a_subclass_or_with_a_transport_of_its_own(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    instrument()
    base = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    own = type("Own", (base,), {})
    recovers(adopt(rig, own()), api, url)
    recovers(plain(rig, transport=rig.inner()), api, url)


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_proxy_is_used_with_it(
    rig: Rig,
    api: Simulator,
    url: str,
    instrument: Instrument,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    instrument()
    with running_proxy() as proxy:
        client = proxied(rig, proxy, monkeypatch, how)
        recovers(client, api, url)
        assert len(proxy.targets) == 2


def proxied(rig: Rig, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, how: str) -> Client:
    if how == "argument":
        return plain(rig, proxy=proxy.url)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    return plain(rig)


def test_one_that_has_it_already_keeps_its_own(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    instrument()
    client = plain(rig)
    attach(client.raw, settings=Settings(retry=RetryPolicy(rules={})))
    does_not(client, api, url)


def test_a_client_has_one_transport_for_all_its_calls(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    instrument()
    client = plain(rig)
    for _ in range(3):
        recovers(client, api, url)
    kept = client.raw.__dict__["_cline_transports"]
    assert len(kept) == 1
    [(theirs, ours)] = kept.values()
    assert theirs is client.raw._transport
    assert ours._loop._throttle.tokens < 100


@pytest.mark.parametrize(
    ("hosts", "ours"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1:{port}"], True),
        (["127.0.0.1:1"], False),
        (["*.0.0.1"], True),
        (["*.0.0.1:{port}"], True),
        (["*.127.0.0.1"], False),
        (["127.0.0"], False),
        (["api.cline.bot"], False),
        (["API.cline.bot", "127.0.0.1"], True),
        ([], False),
    ],
)
def test_only_the_configured_hosts_have_it(
    rig: Rig, api: Simulator, url: str, instrument: Instrument, hosts: list[str], *, ours: bool
) -> None:
    instrument(hosts=[host.format(port=api.port) for host in hosts])
    (recovers if ours else does_not)(plain(rig), api, url)


@pytest.mark.parametrize(("to", "ours"), [("http://h/", True), ("https://h/", False)])
def test_a_port_that_is_not_written_is_that_of_the_scheme(
    rig: Rig, instrument: Instrument, to: str, *, ours: bool
) -> None:
    def handler(_: Any) -> Any:
        return rig.library.Response(200)

    instrument(hosts=["h:80"])
    client = plain(rig, transport=rig.library.MockTransport(handler))
    extensions = client.request("GET", to).response.extensions
    assert ("cline_transport" in extensions) is ours


def test_a_request_to_another_host_is_as_without_it(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    client = plain(rig)
    client.post(url, json={"model": "cline/ok"})
    instrument(hosts=["api.cline.bot"])
    client.post(url, json={"model": "cline/ok"})
    before, after = api.requests
    assert (before.headers, before.body, before.target) == (after.headers, after.body, after.target)
    assert "_cline_transports" not in client.raw.__dict__


def test_uninstrument_restores_everything(
    rig: Rig, api: Simulator, url: str, instrument: Instrument, instrumentor: Any
) -> None:
    kind: Any = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    original: Any = kind.__dict__["_transport_for_url"]
    instrument()
    client = plain(rig)
    recovers(client, api, url)
    instrumentor.uninstrument()
    assert kind.__dict__["_transport_for_url"] is original
    does_not(client, api, url)
    instrument()
    recovers(client, api, url)


def test_it_is_idle_beneath_a_patch_that_came_later(
    rig: Rig, api: Simulator, url: str, instrument: Instrument, instrumentor: Any
) -> None:
    kind: Any = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    original: Any = kind.__dict__["_transport_for_url"]
    instrument()
    patched: Any = kind.__dict__["_transport_for_url"]

    def later(client: Any, to: Any) -> Any:
        return patched(client, to)

    kind._transport_for_url = later
    try:
        recovers(plain(rig), api, url)
        instrumentor.uninstrument()
        assert kind.__dict__["_transport_for_url"] is later
        does_not(plain(rig), api, url)
    finally:
        kind._transport_for_url = original


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_spans_nest_whichever_instrumentor_is_loaded_first(
    rig: Rig, api: Simulator, url: str, instrument: Instrument, first: str
) -> None:
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}[rig.family]
    theirs: Any = getattr(instrumentation, kind)()
    steps = [instrument, lambda: theirs.instrument(tracer_provider=rig.provider)]
    for step in steps if first == "ours" else reversed(steps):
        step()
    try:
        recovers(plain(rig), api, url)
    finally:
        theirs.uninstrument()
    [call], attempts = rig.finished()
    assert call.context is not None
    assert [a.parent and a.parent.span_id for a in attempts] == [call.context.span_id] * 2
    assert {scope_of(a) for a in attempts} == {"http"}


def test_one_client_that_is_instrumented_too_has_its_spans_at_the_attempts(
    rig: Rig, api: Simulator, url: str, instrument: Instrument
) -> None:
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}[rig.family]
    theirs: Any = getattr(instrumentation, kind)
    instrument()
    client = plain(rig)
    theirs.instrument_client(client.raw, tracer_provider=rig.provider)
    recovers(client, api, url)
    assert len(rig.finished()[1]) == 2
    theirs.uninstrument_client(client.raw)
    rig.spans.clear()
    recovers(client, api, url)
    assert len(rig.finished()[1]) == 2


def test_the_environment_switches_it_off(
    rig: Rig,
    api: Simulator,
    url: str,
    instrument: Instrument,
    instrumentor: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "false")
    instrument()
    does_not(plain(rig), api, url)
    instrumentor.uninstrument()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retry": {"jitter": 7}}, "retry.jitter must be a number between 0 and 1 (got 7"),
        ({"retries": 3}, "retries is no setting; did you mean retry?"),
        ({"hosts": ["https://host"]}, "hosts must be host names"),
    ],
)
def test_a_wrong_setting_switches_it_off_with_one_line_and_the_application_runs_on(
    rig: Rig,
    api: Simulator,
    url: str,
    instrument: Instrument,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    says: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        instrument(**options)
    [line] = caplog.records
    assert (line.name, line.levelname) == ("cline_transport", "ERROR")
    assert line.getMessage().startswith("cline-transport is switched off, its settings are wrong: ")
    assert says in line.getMessage()
    does_not(plain(rig), api, url)


def test_settings_may_be_given_whole(rig: Rig, api: Simulator, url: str, instrumentor: Any) -> None:
    settings = Settings(hosts=("127.0.0.1",), retry=RetryPolicy(rules={}))
    instrumentor.instrument(settings=settings)
    does_not(plain(rig), api, url)
    assert plain(rig).post(url, json=CHAT).response.extensions["cline_transport"].attempts


def test_a_library_of_another_shape_is_said_and_left_alone(
    rig: Rig,
    instrument: Instrument,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kind = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    monkeypatch.delattr(kind, "_transport_for_url")
    with caplog.at_level(logging.WARNING):
        instrument()
    [line] = caplog.records
    name = f"{rig.library.__name__}.{kind.__name__}"
    assert line.getMessage() == f"{name} has no _transport_for_url: update it"


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own code
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_library_that_is_loaded_later_is_instrumented_then() -> None:
    pytest.importorskip("httpx")
    done = run("""
        import sys
        from cline_transport.instrumentor import ClineTransportInstrumentor
        ClineTransportInstrumentor().instrument()
        assert "httpx" not in sys.modules
        import httpx
        print(httpx.Client._transport_for_url.__module__,
              hasattr(httpx.Client._transport_for_url, "__wrapped__"))
    """)
    assert (done.stdout, done.stderr) == ("httpx._client True\n", "")


def test_one_that_is_loaded_after_the_end_is_not() -> None:
    pytest.importorskip("httpx")
    done = run("""
        from cline_transport.instrumentor import ClineTransportInstrumentor
        ClineTransportInstrumentor().instrument()
        ClineTransportInstrumentor().uninstrument()
        import httpx
        print(hasattr(httpx.Client._transport_for_url, "__wrapped__"))
    """)
    assert (done.stdout, done.stderr) == ("False\n", "")
