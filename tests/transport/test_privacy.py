# SPDX-License-Identifier: Apache-2.0
"""Neither key nor prompt nor completion nor query leaves in an export, whatever happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation import _semconv
from opentelemetry.instrumentation import httpx as instrumentation

from cline_transport import RetryPolicy, Settings, StreamSettings, attach
from cline_transport.simulator import Reply, Simulator

from .rig import CHAT, Rig, unread
from .spans import attributes, traced
from .telling import log_lines_exported

KEY = "sk-SECRETKEY0123456789"
PROMPT = 'SECRETPROMPT "of" a user\nwith a line'
ANSWER = "SECRETCOMPLETION of a model"
QUERY = "SECRETQUERY value"
COOKIE = "SECRETCOOKIE"
ECHO = f"The key {KEY} may not ask {PROMPT!s} with {QUERY} and {COOKIE}"
HEADERS = [("set-cookie", f"id={COOKIE}"), ("x-api-key", KEY), ("x-kept", "kept")]
PAGE = f"<html><head><title>{KEY}</title></head><body>{ECHO}</body></html>"


def exported(rig: Rig) -> bytes:
    """Everything that was told, as OTLP carries it."""
    data = rig.reader.get_metrics_data()
    spans: bytes = encode_spans(rig.spans.get_finished_spans()).SerializeToString()
    logs: bytes = encode_logs(rig.logs.get_finished_logs()).SerializeToString()
    metrics: bytes = b"" if data is None else encode_metrics(data).SerializeToString()
    return spans + logs + metrics


Way = Callable[[Simulator], None]


def answers(*replies: Reply) -> Way:
    return lambda api: api.enqueue(*replies)


WAYS: dict[str, Way] = {
    "a good stream": answers(Reply.stream(ANSWER, headers=HEADERS)),
    "a good completion": answers(Reply.completion(ANSWER, headers=HEADERS)),
    "an HTTP error": answers(Reply.error(400, code=KEY, message=ECHO, headers=HEADERS)),
    "an HTTP error, retried": answers(
        Reply.error(503, message=ECHO, headers=HEADERS), Reply.stream(ANSWER, headers=HEADERS)
    ),
    "a page of a proxy": answers(Reply.html(403, html=PAGE, headers=HEADERS)),
    "an error in a 200": answers(Reply.json_error_in_200("content_filter", message=ECHO)),
    "an error before content": answers(
        Reply.stream(ANSWER, error="content_filter", error_after=0, error_message=ECHO)
    ),
    "an error after content": answers(
        Reply.stream(ANSWER, error="server_error", error_after=2, error_message=ECHO)
    ),
    "a truncated stream": answers(Reply.stream(ANSWER, cut_after=2)),
    "a lost connection": answers(Reply.close()),
    "a lost stream": answers(Reply.stream(ANSWER, cut_after=2, then="close")),
    "a redirect": answers(
        Reply.raw(302, headers=[("location", f"/elsewhere?key={KEY}"), *HEADERS], body=b"")
    ),
}


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user captures every header, and wants exceptions as logs."""
    for kind in ("REQUEST", "RESPONSE"):
        monkeypatch.setenv(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{kind}", ".*")
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs")


@pytest.fixture(params=["default", "http/dup"])
def conventions(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, captured: None
) -> None:
    """The HTTP conventions that the user has chosen: the old ones, or old and new together."""
    stability = _semconv._OpenTelemetrySemanticConventionStability
    monkeypatch.setattr(stability, "_initialized", False)
    monkeypatch.setattr(stability, "_OTEL_SEMCONV_STABILITY_SIGNAL_MAPPING", {})
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", request.param)


def call(client: Any, url: str) -> None:
    client.post(
        url,
        params={"token": QUERY, "empty": ""},
        json={**CHAT, "messages": [{"role": "user", "content": [{"text": PROMPT}]}]},
        headers={
            "authorization": f"Bearer {KEY}",
            "cookie": f"id={COOKIE}",
            "x-goog-api-key": KEY,
            "x-kept": "kept",
        },
    )


def check(rig: Rig) -> None:
    told = exported(rig)
    for secret in ("SECRETKEY", "SECRETPROMPT", "SECRETCOMPLETION", "SECRETQUERY", COOKIE):
        assert secret.encode() not in told, secret
    assert b"x-kept" in told or b"x_kept" in told
    assert b"token=REDACTED&empty=" in told


def happen(rig: Rig, api: Simulator, url: str, way: str, on_error: Any = "normalize") -> None:
    WAYS[way](api)
    settings = Settings(
        retry=RetryPolicy() if "retried" in way else RetryPolicy(rules={}),
        stream=StreamSettings(on_error=on_error),
    )
    with log_lines_exported(rig):
        call(rig.client(rig.transport(settings=settings, traced=True)), url)
    check(rig)


@unread
@pytest.mark.usefixtures("conventions")
@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_exported(rig: Rig, api: Simulator, url: str, way: str) -> None:
    happen(rig, api, url, way)


@unread
@pytest.mark.parametrize("on_error", ["raise", "observe"])
@pytest.mark.parametrize("way", ["an error before content", "an error after content"])
def test_nor_however_a_failed_stream_is_delivered(
    rig: Rig, api: Simulator, url: str, captured: None, way: str, on_error: Any
) -> None:
    happen(rig, api, url, way, on_error)


@pytest.mark.usefixtures("conventions")
@pytest.mark.parametrize("how", ["globally", "one client", "its transport"])
def test_nor_by_the_spans_of_an_application_that_instrumented_httpx(
    rig: Rig, api: Simulator, url: str, instrumentor: Any, how: str
) -> None:
    WAYS["an HTTP error, retried"](api)
    inner = rig.inner()
    if how == "globally":
        instrumentor.instrument(tracer_provider=rig.provider, meter_provider=rig.meter_provider)
    if how == "its transport":
        name = ("Sync" if rig.is_sync else "Async") + "OpenTelemetryTransport"
        name += {"httpx": "", "httpx2": "Httpx2"}[rig.family]
        inner = getattr(instrumentation, name)(inner, tracer_provider=rig.provider)
    client = rig.client(rig.transport(inner, traced=True))
    if how == "one client":
        instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    with log_lines_exported(rig):
        call(client, url)
    assert len(rig.finished()[1]) == 2
    check(rig)


@pytest.mark.usefixtures("conventions")
def test_nor_by_a_span_whose_hook_failed(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    def hook(*_: Any) -> None:
        raise RuntimeError("hook")

    async def async_hook(*_: Any) -> None:
        raise RuntimeError("hook")

    WAYS["a good completion"](api)
    client = rig.client(rig.transport(traced=True))
    instrumentor.instrument_client(
        client.raw,
        tracer_provider=rig.provider,
        request_hook=hook if rig.is_sync else async_hook,
    )
    call(client, url)
    assert api.requests[0].target.endswith("?token=SECRETQUERY+value&empty=")
    check(rig)


@pytest.mark.usefixtures("conventions")
@pytest.mark.parametrize("header", ["authorization", "cookie"])
def test_nor_by_the_exception_that_a_span_records(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    client = rig.client(rig.transport(traced=True))
    with caplog.at_level(logging.DEBUG, "cline_transport"), log_lines_exported(rig):
        answer = client.post(url, json=CHAT, headers={header: f"Bearer {KEY}\n", "x-kept": "kept"})
    assert type(answer.exception) is rig.exception("LocalProtocolError")
    assert "SECRETKEY" in str(answer.exception)  # the caller's own
    [_], [attempt] = rig.finished()
    [event] = attempt.events
    assert (event.attributes or {})[
        "exception.type"
    ] == f"{rig.library.__name__}.LocalProtocolError"
    assert b"SECRETKEY" not in exported(rig)
    assert "SECRETKEY" not in caplog.text


def test_nor_by_a_request_id_that_repeats_it(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.completion(ANSWER, request_id=f"req {KEY} {'x' * 9000}"))
    client = rig.client(rig.transport(traced=True))
    client.post(url, json=CHAT, headers={"authorization": f"Bearer {KEY}"})
    [call], _ = rig.finished()
    told = str((call.attributes or {})["cline.request_id"])
    assert told.startswith("req [redacted] xxx")
    assert len(told) == 256
    assert b"SECRETKEY" not in exported(rig)


def test_a_query_that_is_long_is_left_out(rig: Rig, api: Simulator, url: str) -> None:
    query = "&".join(f"a{number}=1" for number in range(6500))
    api.enqueue(Reply.completion(ANSWER))
    assert (
        rig.client(rig.transport(traced=True)).post(f"{url}?{query}#part", json=CHAT).status == 200
    )
    _, [attempt] = rig.finished()
    assert (attempt.attributes or {})["http.url"] == f"{url}?REDACTED"
    assert api.requests[0].target.endswith(query)


def test_the_api_gets_the_query_as_it_is(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.completion("x"))
    rig.client(rig.transport(traced=True)).post(f"{url}?a=1%2F2&b=c+d&&e", json=CHAT)
    assert {request.target.partition("?")[2] for request in api.requests} == {"a=1%2F2&b=c+d&&e"}


def test_what_the_user_has_sanitised_stays_so(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS"
    monkeypatch.setenv(f"{prefix}_CLIENT_REQUEST", "x-tenant,x-plain,authorization")
    monkeypatch.setenv(f"{prefix}_SANITIZE_FIELDS", "x-tenant")
    api.enqueue(Reply.completion("x"))
    client = rig.client(rig.transport(traced=True))
    headers = {"x-tenant": "acme", "x-plain": "seen", "authorization": "Bearer abc"}
    client.post(url, json=CHAT, headers=headers)
    [_], [attempt] = rig.finished()
    captured = {
        name.rpartition(".")[2].replace("_", "-"): value
        for name, value in (attempt.attributes or {}).items()
        if name.startswith("http.request.header.")
    }
    assert captured == {
        "x-tenant": ("[REDACTED]",),
        "x-plain": ("seen",),
        "authorization": ("[REDACTED]",),
    }


def test_with_telemetry_off_an_applications_spans_are_as_they_were(
    rig: Rig, api: Simulator, url: str, instrumentor: Any
) -> None:
    api.enqueue(Reply.completion("x"))
    client = rig.plain()
    attach(client.raw, settings=Settings(telemetry={"enabled": False}))  # type: ignore[arg-type]
    instrumentor.instrument_client(client.raw, tracer_provider=rig.provider)
    client.post(f"{url}?page=2", json=CHAT)
    [attempt] = rig.spans.get_finished_spans()
    assert str((attempt.attributes or {})["http.url"]).endswith("?page=2")


def test_the_log_in_a_file_has_no_secret_either(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "cline_transport"):
        for way in WAYS.values():
            way(api)
            call(rig.client(rig.transport(traced=True)), url)
    assert "SECRET" not in caplog.text


def test_neither_key_nor_prompt_nor_completion_is_told(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.enqueue(
        Reply.error(503, message="key SECRET-KEY-123 is over its limit"),
        Reply.stream("COMPLETION text", error="server_error", error_message="SECRET-KEY-123 bad"),
    )
    with caplog.at_level(logging.DEBUG, "cline_transport"):
        traced(rig).post(
            f"{url}?q=QUERY",
            json={**CHAT, "messages": [{"role": "user", "content": "PROMPT"}]},
            headers={"authorization": "Bearer SECRET-KEY-123"},
        )
    told = "".join(str(s.to_json()) for s in rig.spans.get_finished_spans()) + caplog.text
    for secret in ("SECRET-KEY-123", "PROMPT", "COMPLETION"):
        assert secret not in told
    assert "[redacted] bad" in told


def test_what_a_server_writes_is_made_fit_for_a_log_and_an_exporter(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "SECRET-KEY-123"
    body = json.dumps(
        {"error": {"code": f"{secret}\nWARNING forged {'A' * 9000}", "message": f"\ud83d {secret}"}}
    )
    api.enqueue(Reply.raw(400, headers=[("content-type", "application/json")], body=body.encode()))
    with caplog.at_level(logging.DEBUG, "cline_transport"):
        answer = traced(rig).post(
            url,
            content=b'{"model": "m\\ud83d"}',
            headers={"api-key": secret, "authorization": "Bearer other-key"},
        )
    [call], [attempt] = rig.finished()
    info = answer.record.error
    assert info is not None
    told = caplog.text + str(call.to_json()) + str(attempt.to_json()) + info.report()
    assert secret not in told
    for record in caplog.records:
        assert len(record.getMessage()) < 2000
        assert "\n" not in record.getMessage()
    for text in (call.name, call.status.description or "", str(attributes(call))):
        text.encode()
    assert attributes(call)["error.type"] == "_OTHER"
