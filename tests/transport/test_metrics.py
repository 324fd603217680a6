# SPDX-License-Identifier: Apache-2.0
"""The metrics of a call: the conventions' units, buckets and attributes, however the call ends."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from opentelemetry import context
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider

from cline_transport import RetryPolicy, Settings, StreamSettings, TelemetrySettings
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, unread
from .telling import metrics_of, scope_of, told_metrics

DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TOKENS = "gen_ai.client.token.usage"
RETRIES = "cline.client.retries"
THROTTLED = "cline.client.throttled_retries"
COST = "cline.client.cost"


def ours(rig: Rig) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """Our metrics: name -> attributes and value of each point."""
    found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for scope, name, _, attributes, value in told_metrics(rig):
        if scope == "ours":
            found.setdefault(name, []).append((attributes, value))
    return found


def instruments(rig: Rig) -> dict[str, Any]:
    return {metric.name: metric for scope, metric in metrics_of(rig) if scope == "ours"}


def traced(rig: Rig, settings: Settings | None = None) -> Any:
    return rig.client(rig.transport(settings=settings, traced=True))


def chat(api: Simulator, **more: Any) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.request.model": "cline/ok",
        "server.address": "127.0.0.1",
        "server.port": api.port,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def error_type_of_the_call(rig: Rig) -> Any:
    [call], _ = rig.finished()
    return (call.attributes or {}).get("error.type")


def test_units_and_buckets_are_those_of_the_conventions(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.stream("Hi"))
    traced(rig).post(url, json=CHAT)
    found = instruments(rig)
    seconds = (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    tokens = (
        1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
    )  # fmt: skip
    assert {name: metric.unit for name, metric in found.items()} == {
        DURATION: "s", FIRST_CHUNK: "s", TOKENS: "{token}", RETRIES: "{retry}", COST: "{credit}",
    }  # fmt: skip
    for name, bounds in ((DURATION, seconds), (FIRST_CHUNK, seconds), (TOKENS, tokens)):
        assert found[name].data.data_points[0].explicit_bounds == bounds
    for name in (RETRIES, COST):
        assert found[name].data.is_monotonic


@unread
def test_a_stream_that_the_caller_closes_is_a_call_that_did_not_fail(
    rig: Rig, api: Simulator, url: str
) -> None:
    gate = Gate()
    gate.release(2)
    api.enqueue(Reply.stream("a b c d", gate=gate))
    client = traced(rig)
    response = client.open("POST", url, json=CHAT)
    chunks = client.chunks(response)
    next(chunks)
    rig.time.now += 3
    client.close(response)
    chunks.close()
    attributes = chat(api, gen_ai__response__model="cline/ok")
    assert ours(rig) == {DURATION: [(attributes, (1, 3.0))], FIRST_CHUNK: [(attributes, (1, 0.0))]}


def test_a_call_without_a_response_is_counted_and_timed(rig: Rig, api: Simulator, url: str) -> None:
    with api.refusing():
        traced(rig).post(url, json=CHAT)
    failed = chat(api, error__type="connect_error")
    assert ours(rig) == {DURATION: [(failed, (1, 7.0))], RETRIES: [(failed, 3)]}
    assert error_type_of_the_call(rig) == "connect_error"


def test_each_code_has_its_own_retries(rig: Rig, api: Simulator, url: str) -> None:
    early = Reply.stream("x", error="rate_limit", error_after=0)
    api.enqueue(Reply.error(503, code="overloaded"), early, Reply.error(502), Reply.stream("Hi"))
    traced(rig).post(url, json=CHAT)
    assert sorted(ours(rig)[RETRIES], key=repr) == [
        (chat(api, error__type=code), 1) for code in ("502", "overloaded", "rate_limit")
    ]


@unread
def test_a_cancelled_call_has_the_same_error_type_on_span_and_metric(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.stream("a b c", gate=Gate(2)))
    client = traced(async_rig)

    async def go() -> None:
        with anyio.CancelScope() as scope:
            request = client.raw.build_request("POST", url, json=CHAT)
            response = await client.raw.send(request, stream=True)
            chunks = response.aiter_raw()
            await chunks.__anext__()
            scope.cancel()
            await chunks.__anext__()

    client.run(go)
    [(attributes, (count, _))] = ours(async_rig)[DURATION]
    assert attributes["error.type"] == error_type_of_the_call(async_rig)
    assert attributes["error.type"] in ("CancelledError", "Cancelled")
    assert count == 1


def test_a_retry_that_is_interrupted_before_it_begins_is_none(
    sync_rig: Rig, api: Simulator, url: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    sync_rig.time.on_wait = interrupt
    api.enqueue(Reply.error(503))
    with pytest.raises(KeyboardInterrupt):
        traced(sync_rig).post(url, json=CHAT)
    failed = chat(api, error__type="KeyboardInterrupt")
    assert ours(sync_rig) == {DURATION: [(failed, (1, 0.0))]}
    [call], [_] = sync_rig.finished()
    assert (call.attributes or {})["cline.retry.count"] == 0


def test_retries_that_the_throttle_forbids_are_counted(rig: Rig, api: Simulator, url: str) -> None:
    transport = rig.transport(traced=True)
    client = rig.client(transport)
    transport._loop._throttle.tokens = 50.0
    api.enqueue(Reply.error(502))
    client.post(url, json=CHAT)
    failed = chat(api, error__type="502")
    assert ours(rig) == {DURATION: [(failed, (1, 0.0))], THROTTLED: [(failed, 1)]}


@pytest.mark.parametrize("cost", ["-1", "NaN", "Infinity", '"much"', "true", "null"])
def test_a_cost_that_is_none_is_not_added(rig: Rig, api: Simulator, url: str, cost: str) -> None:
    body = b'{"choices": [], "usage": {"prompt_tokens": -4, "cost": %s}}' % cost.encode()
    api.enqueue(Reply.raw(200, headers=[("content-type", "application/json")], body=body))
    traced(rig).post(url, json=CHAT)
    assert ours(rig) == {DURATION: [(chat(api), (1, 0.0))]}


def test_a_cost_in_whole_credits_is_a_number_like_any_other(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(*[Reply.completion("x", usage={"cost": 2**63 - 1})] * 2)
    client = traced(rig)
    for _ in range(2):
        client.post(url, json=CHAT)
    [call, _], _ = rig.finished()
    assert type((call.attributes or {})["cline.usage.cost"]) is float
    data: Any = rig.reader.get_metrics_data()
    assert encode_metrics(data).SerializeToString()


@pytest.mark.parametrize(
    ("code", "told"),
    [("401", "401"), (401, "401"), (999, "_OTHER"), (-1, "_OTHER"), (200, "_OTHER")],
)
def test_a_number_is_told_where_it_is_a_status_that_failed(
    rig: Rig, api: Simulator, url: str, code: Any, told: str
) -> None:
    api.enqueue(Reply.error(401, code=code))
    traced(rig).post(url, json=CHAT)
    assert ours(rig) == {DURATION: [(chat(api, error__type=told), (1, 0.0))]}


def test_what_differs_from_call_to_call_is_in_no_metric(rig: Rig, api: Simulator, url: str) -> None:
    client = traced(rig, Settings(retry=RetryPolicy(rules={})))
    for number in range(20):
        api.enqueue(
            Reply.error(400, code=f"code_{number}", message=f"m{number}", request_id=f"r{number}")
        )
        client.post(f"{url}?q={number}", json={**CHAT, "user": f"u{number}"})
    assert ours(rig) == {DURATION: [(chat(api, error__type="_OTHER"), (20, 0.0))]}


def test_another_endpoint_has_retries_only(rig: Rig, api: Simulator) -> None:
    api.enqueue(Reply.error(503), Reply.completion("x"))
    traced(rig).request("GET", f"{api.base_url}/models")
    server = {"server.address": "127.0.0.1", "server.port": api.port}
    assert ours(rig) == {RETRIES: [({**server, "error.type": "503"}, 1)]}


def test_a_point_leads_to_the_trace_of_its_call(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.stream("Hi"))
    traced(rig).post(url, json=CHAT)
    [call], _ = rig.finished()
    assert call.context is not None
    for metric in instruments(rig).values():
        for point in metric.data.data_points:
            assert [e.span_id for e in point.exemplars] == [call.context.span_id], metric.name


def test_calls_that_are_not_sampled_are_counted(rig: Rig, api: Simulator, url: str) -> None:
    rig.provider.sampler = ALWAYS_OFF
    api.enqueue(Reply.completion("Hi"))
    traced(rig).post(url, json=CHAT)
    assert rig.spans.get_finished_spans() == ()
    assert sorted(ours(rig)) == [COST, DURATION, TOKENS]


def test_there_are_metrics_without_a_trace(rig: Rig, api: Simulator, url: str) -> None:
    rig.provider = NoOpTracerProvider()  # type: ignore[assignment]
    api.enqueue(Reply.error(503), Reply.completion("Hi"))
    traced(rig).post(url, json=CHAT)
    assert sorted(ours(rig)) == [COST, RETRIES, DURATION, TOKENS]
    assert "traceparent" not in api.requests[0].headers
    assert [p[3]["http.status_code"] for p in told_metrics(rig) if p[0] == "http"] == [200, 503]


def test_and_a_trace_without_metrics(rig: Rig, api: Simulator, url: str) -> None:
    rig.meter_provider = NoOpMeterProvider()  # type: ignore[assignment]
    api.enqueue(Reply.error(503), Reply.completion("Hi"))
    traced(rig).post(url, json=CHAT)
    assert told_metrics(rig) == []
    assert len(rig.finished()[1]) == 2


@pytest.mark.parametrize("how", ["enabled", "suppressed"])
def test_they_are_switched_off_with_the_spans(rig: Rig, api: Simulator, url: str, how: str) -> None:
    settings = Settings(telemetry=TelemetrySettings(enabled=how != "enabled"))
    api.enqueue(Reply.error(503), Reply.completion("Hi"))
    if how == "enabled":
        traced(rig, settings).post(url, json=CHAT)
    else:
        client = traced(rig, settings)
        with suppress_instrumentation():
            client.post(url, json=CHAT)
    assert told_metrics(rig) == []
    assert rig.spans.get_finished_spans() == ()


def test_the_genai_part_can_be_left_to_somebody_else(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.stream("Hi"))
    traced(rig, Settings(telemetry=TelemetrySettings(genai=False))).post(url, json=CHAT)
    server = {"server.address": "127.0.0.1", "server.port": api.port}
    assert ours(rig) == {
        RETRIES: [({**server, "error.type": "503"}, 1)],
        COST: [(server, 0.00042)],
    }
    [call], attempts = rig.finished()
    assert (call.name, call.kind.name, len(attempts)) == ("POST", "INTERNAL", 2)
    assert not any(name.startswith("gen_ai.") for name in call.attributes or {})
    assert (call.attributes or {})["cline.usage.cost"] == 0.00042


@contextmanager
def inference(rig: Rig, how: str) -> Generator[None, None, None]:
    """Run within what another instrumentation makes current; the real ones have their own tests."""
    attributes = {
        "openllmetry": {"gen_ai.operation.name": "chat"},
        "another": {"gen_ai.operation.name": "chat"},
        "openinference": {"openinference.span.kind": "LLM"},
        "genai": {},
    }
    scope = "opentelemetry.instrumentation.openai.v1" if how == "openllmetry" else "theirs"
    tracer = rig.provider.get_tracer(scope)
    with tracer.start_as_current_span("theirs", attributes=attributes[how]):
        if how == "genai":
            key = "opentelemetry.genai.client.inference.context"
            token = context.attach(context.set_value(key, object()))
            yield
            context.detach(token)
        else:
            yield


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("genai", []),
        ("openllmetry", [FIRST_CHUNK]),
        ("another", [DURATION, FIRST_CHUNK, TOKENS]),
        ("openinference", [DURATION, FIRST_CHUNK, TOKENS]),
    ],
)
def test_within_another_instrumentations_inference_nothing_is_counted_twice(
    rig: Rig, api: Simulator, url: str, how: str, left: list[str]
) -> None:
    api.enqueue(Reply.error(503), Reply.stream("Hi"))
    with inference(rig, how):
        traced(rig).post(url, json=CHAT)
    assert sorted(ours(rig)) == [COST, RETRIES, *left]
    [call] = [s for s in rig.spans.get_finished_spans() if s.name == "chat cline/ok"]
    told = call.attributes or {}
    assert call.kind.name == "INTERNAL"
    assert "gen_ai.operation.name" not in told
    assert not any(name.startswith("gen_ai.usage.") for name in told)
    assert told["gen_ai.response.model"] == "cline/ok"
    # What is counted is counted by the usual attributes.
    for points in ours(rig).values():
        for attributes, _ in points:
            assert attributes["gen_ai.operation.name"] == "chat"


def test_a_keep_alive_comment_is_no_first_chunk(rig: Rig, api: Simulator, url: str) -> None:
    gate = Gate()
    gate.release(2)  # the comments
    api.enqueue(Reply.stream("Hi", comments=2, gate=gate))
    client = traced(rig, Settings(stream=StreamSettings(retry="never")))
    response = client.open("POST", url, json=CHAT)
    chunks = client.chunks(response)
    assert b"PROCESSING" in next(chunks)
    rig.time.now += 5
    gate.release(20)
    assert list(chunks)
    client.close(response)
    [(_, value)] = ours(rig)[FIRST_CHUNK]
    assert value == (1, 5.0)


def test_scopes_are_named(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.completion("Hi"))
    traced(rig).post(url, json=CHAT)
    [call], _ = rig.finished()
    assert scope_of(call) == "ours"
    scope: Any = call.instrumentation_scope
    assert scope.version
    assert scope.schema_url.startswith("https://opentelemetry.io/schemas/")
