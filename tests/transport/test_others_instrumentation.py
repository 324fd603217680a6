# SPDX-License-Identifier: Apache-2.0
"""Others' instrumentation of httpx keeps its spans, and they are at home in the call's trace."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry.instrumentation import httpx as instrumentation
from opentelemetry.sdk.trace import Span
from wrapt import FunctionWrapper

from cline_transport import Settings, TelemetrySettings, attach
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, unread
from .spans import check_three_attempts, three_attempts, traced


def test_an_application_that_instrumented_before_keeps_its_spans(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    client = traced(rig)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_so_does_one_that_instruments_after_and_one_that_stops(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    client = traced(rig)
    instrumentor.instrument(tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    instrumentor.uninstrument()
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_its_hooks_are_called_for_each_attempt(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    seen: list[int] = []

    def hook(span: Span, request: Any, response: Any) -> None:
        seen.append(response.status_code)

    async def async_hook(span: Span, request: Any, response: Any) -> None:
        hook(span, request, response)

    instrumentor.instrument(
        tracer_provider=rig.provider, response_hook=hook, async_response_hook=async_hook
    )
    three_attempts(api)
    traced(rig).post(url, json=CHAT)
    assert seen == [503, 502, 200]


def test_one_client_that_was_instrumented_before_keeps_its_spans(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    plain = rig.plain()
    instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
    plain.raw._transport = rig.transport(plain.raw._transport, traced=True)
    three_attempts(api)
    plain.post(url, json=CHAT)
    check_three_attempts(rig)


def test_one_client_that_is_instrumented_after_has_its_spans_at_the_attempts(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    client = traced(rig)
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    instrumentor.uninstrument_client(client.raw)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_both_global_and_client_instrumentation_make_one_span(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    client = traced(rig)
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)


def test_a_transport_of_opentelemetrys_beneath_keeps_its_spans(
    rig: Rig, api: Simulator, url: str
) -> None:
    name = ("Sync" if rig.is_sync else "Async") + "OpenTelemetryTransport"
    suffix = {"httpx": "", "httpx2": "Httpx2"}[rig.family]
    wrapped = getattr(instrumentation, name + suffix)(rig.inner(), tracer_provider=rig.provider)
    three_attempts(api)
    traced(rig, inner=wrapped).post(url, json=CHAT)
    check_three_attempts(rig)


def test_an_instrumented_transport_further_down_is_not_doubled(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    instrumentor.instrument(tracer_provider=rig.provider)
    three_attempts(api)
    traced(rig, inner=passing_on(rig)).post(url, json=CHAT)
    check_three_attempts(rig)


def passing_on(rig: Rig) -> Any:
    """A transport of the application's own around a plain one."""
    inner = rig.inner()
    if rig.is_sync:

        class Passing(rig.library.BaseTransport):  # type: ignore[misc,name-defined]
            def handle_request(self, request: Any) -> Any:
                return inner.handle_request(request)

            def close(self) -> None:
                inner.close()

        return Passing()

    class AsyncPassing(rig.library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(request)

        async def aclose(self) -> None:
            await inner.aclose()

    return AsyncPassing()


@pytest.mark.parametrize("how", ["patched", "uninstrumented"])
def test_one_of_opentelemetrys_with_a_method_of_its_own_sends_once(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, how: str
) -> None:
    name = ("Sync" if rig.is_sync else "Async") + "OpenTelemetryTransport"
    name += {"httpx": "", "httpx2": "Httpx2"}[rig.family]
    wrapped = getattr(instrumentation, name)(rig.inner(), tracer_provider=rig.provider)
    plain = rig.client(wrapped)
    if how == "uninstrumented":
        instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
        instrumentor.uninstrument_client(plain.raw)
    else:
        method = "handle_request" if rig.is_sync else "handle_async_request"
        setattr(wrapped, method, getattr(wrapped, method))
    attach(plain.raw, tracer_provider=rig.provider)
    api.enqueue(Reply.completion("first"), Reply.completion("second"))
    answer = plain.post(url, json=CHAT)
    assert b"first" in answer.body
    assert len(api.requests) == len(answer.record.attempts) == 1


def test_an_answer_that_never_came_to_us_is_the_answer(rig: Rig, url: str) -> None:
    def handler(_: Any) -> Any:
        raise AssertionError("it is not asked")

    transport = rig.transport(rig.library.MockTransport(handler), traced=True)
    content = {"choices": [{"finish_reason": "stop"}], "id": "gen-1"}

    def answered(*_: Any) -> Any:
        return rig.library.Response(200, json=content)

    async def answered_later(*_: Any) -> Any:
        return answered()

    transport._loop.spans._own = answered if rig.is_sync else answered_later
    answer = rig.client(transport).post(url, json=CHAT)
    assert answer.json() == content
    assert len(answer.record.attempts) == 1


def test_another_patch_of_the_method_is_left_alone(rig: Rig, api: Simulator, url: str) -> None:
    calls: list[str] = []

    def note(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append("call")
        return wrapped(*args, **kwargs)

    transport = rig.transport(traced=True)
    method = "handle_request" if rig.is_sync else "handle_async_request"
    setattr(transport, method, FunctionWrapper(getattr(transport, method), note))
    three_attempts(api)
    rig.client(transport).post(url, json=CHAT)
    check_three_attempts(rig)
    assert calls == ["call"]


# --- an application's instrumentation is never lost ---


@pytest.mark.parametrize(
    "settings",
    [
        Settings(enabled=False),
        Settings(telemetry=TelemetrySettings(enabled=False)),
        Settings(telemetry=TelemetrySettings(attempt_spans=False)),
        None,  # and no OpenTelemetry SDK for us
    ],
    ids=["disabled", "telemetry off", "attempt spans off", "no SDK"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_client_that_the_application_instrumented_keeps_its_span(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, settings: Settings | None, when: str
) -> None:
    plain = rig.plain()
    api.enqueue(Reply.completion("a"))
    if when == "before":
        instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
    attach(plain.raw, settings=settings)
    if when == "after":
        instrumentor.instrument_client(plain.raw, tracer_provider=rig.provider)
    with rig.provider.get_tracer("application").start_as_current_span("outer") as outer:
        plain.post(url, json=CHAT)
    _, [attempt, _] = rig.finished()
    assert attempt.name == "POST"
    assert attempt.parent is not None
    if settings is not None:
        assert attempt.parent.span_id == outer.get_span_context().span_id
    rig.spans.clear()
    instrumentor.uninstrument_client(plain.raw)
    api.enqueue(Reply.completion("a"))
    plain.post(url, json=CHAT)
    assert rig.spans.get_finished_spans() == ()


def test_a_mock_that_was_instrumented_can_be_attached_to(rig: Rig, instrumentor: Any) -> None:
    def handler(_: Any) -> Any:
        return rig.library.Response(204)

    client = rig.client(rig.library.MockTransport(handler))
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    attach(client.raw)
    assert client.request("GET", "http://127.0.0.1/").status == 204
    assert len(rig.spans.get_finished_spans()) == 1


def test_another_patch_beneath_the_instrumentation_stays(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    calls: list[str] = []

    def note(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append("call")
        return wrapped(*args, **kwargs)

    method = "handle_request" if rig.is_sync else "handle_async_request"
    client = traced(rig)
    transport = client.raw._transport
    setattr(transport, method, FunctionWrapper(getattr(transport, method), note))
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    instrumentor.uninstrument_client(client.raw)
    three_attempts(api)
    client.post(url, json=CHAT)
    check_three_attempts(rig)
    assert calls == ["call", "call"]


def test_an_interruption_in_a_hook_leaves_no_connection_checked_out(
    sync_rig: Rig, api: Simulator, url: str
) -> None:
    def hook(*_: Any) -> None:
        raise KeyboardInterrupt

    inner = sync_rig.inner()
    client = traced(sync_rig, inner=inner)
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
    instrument = getattr(instrumentation, kind[sync_rig.family]).instrument_client
    instrument(client.raw, tracer_provider=sync_rig.provider, response_hook=hook)
    api.enqueue(Reply.stream("a b", gate=Gate(2)))
    with pytest.raises(KeyboardInterrupt):
        client.raw.post(url, json=CHAT)
    assert inner._pool.connections == []


@unread
def test_a_cancellation_in_a_hook_leaves_none_either(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    scopes: list[anyio.CancelScope] = []

    async def hook(*_: Any) -> None:
        scopes[0].cancel()
        await anyio.lowlevel.checkpoint()

    inner = async_rig.inner()
    client = traced(async_rig, inner=inner)
    kind = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
    instrument = getattr(instrumentation, kind[async_rig.family]).instrument_client
    instrument(client.raw, tracer_provider=async_rig.provider, response_hook=hook)
    api.enqueue(Reply.stream("a b", gate=Gate(2)))

    async def go() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await client.raw.post(url, json=CHAT)

    client.run(go)
    assert [c for c in inner._pool.connections if not c.is_idle()] == []
