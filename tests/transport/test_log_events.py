# SPDX-License-Identifier: Apache-2.0
"""Lines and events in the log: in the context of the call's span, and by the conventions."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from cline_transport import Settings, StreamSettings, TelemetrySettings
from cline_transport.simulator import Reply, Simulator

from .rig import CHAT, Rig, unread
from .telling import log_lines_exported, told_logs

OPT_IN = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"


def traced(rig: Rig, **settings: Any) -> Any:
    return rig.client(rig.transport(settings=Settings(**settings), traced=True))


def events(rig: Rig) -> list[dict[str, Any]]:
    return [told for told in told_logs(rig) if told["event"] is not None]


@pytest.fixture
def opted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPT_IN, "logs")


def chat(api: Simulator, code: str) -> dict[str, Any]:
    return {
        "server.address": "127.0.0.1",
        "server.port": api.port,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.request.model": "cline/ok",
        "error.type": code,
    }


def test_lines_are_exported_in_the_context_of_the_call(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(500), Reply.error(500))
    with log_lines_exported(rig), rig.provider.get_tracer("a").start_as_current_span("outer"):
        traced(rig).post(url, json=CHAT)
    lines = told_logs(rig)
    assert [line["severity"] for line in lines] == ["INFO", "WARN"]
    assert all(line["in the call"] for line in lines)


def test_a_line_of_an_error_in_mid_stream_is_too(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stream("one two", error="server_error"))
    with log_lines_exported(rig):
        traced(rig).post(url, json=CHAT)
    [line] = told_logs(rig)
    assert line["in the call"]
    assert line["attributes"] == {
        "error.type": "server_error",
        "cline.error.code": "server_error",
        "cline.request_id": api.requests[0].request_id,
    }


@pytest.mark.parametrize("value", [None, "", "none", "LOG"])
def test_without_the_opt_in_there_is_no_event(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv(OPT_IN, value)
    api.enqueue(Reply.error(400))
    traced(rig).post(url, json=CHAT)
    assert rig.logs.get_finished_logs() == ()


@pytest.mark.parametrize("value", ["logs", "logs/dup", " LOGS "])
def test_a_failed_chat_is_an_event_of_the_genai_conventions(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(OPT_IN, value)
    api.enqueue(Reply.error(400, message="Too long"))
    traced(rig).post(url, json=CHAT)
    assert events(rig) == [
        {
            "event": "gen_ai.client.operation.exception",
            "severity": "WARN",
            "body": None,
            "in the call": True,
            "attributes": {**chat(api, "400"), "exception.message": "Too long"},
        }
    ]
    [call], _ = rig.finished()
    assert call.events == ()


@pytest.mark.usefixtures("opted_in")
def test_an_exception_of_the_wire_has_its_type_and_its_stack(
    rig: Rig, api: Simulator, url: str
) -> None:
    with api.refusing():
        answer = traced(rig, retry={"rules": {}}).post(url, json=CHAT)
    [event] = events(rig)
    told = event["attributes"]
    assert told["exception.type"].endswith(".ConnectError")
    assert told["exception.message"] == str(answer.exception)
    assert "Traceback" in told["exception.stacktrace"]
    assert told["error.type"] == "connect_error"


@pytest.mark.usefixtures("opted_in")
def test_so_has_one_in_mid_stream(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stream("one two", cut_after=1, then="close"))
    traced(rig).post(url, json=CHAT)
    [event] = events(rig)
    assert event["attributes"]["exception.type"].endswith(".RemoteProtocolError")


@unread
@pytest.mark.usefixtures("opted_in")
def test_a_stream_error_of_ours_has_its_type(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.stream("one two", error="server_error"))
    traced(rig, stream=StreamSettings(on_error="raise")).post(url, json=CHAT)
    [event] = events(rig)
    assert (
        event["attributes"]["exception.type"]
        == f"cline_transport.{rig.library.__name__}.StreamError"
    )
    assert event["attributes"]["error.type"] == "server_error"


@pytest.mark.usefixtures("opted_in")
def test_a_failure_that_a_retry_mended_is_no_event(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.close(), Reply.completion("Hi"))
    traced(rig).post(url, json=CHAT)
    assert rig.logs.get_finished_logs() == ()


@pytest.mark.usefixtures("opted_in")
def test_elsewhere_a_status_is_no_exception_but_a_lost_connection_is(
    rig: Rig, api: Simulator
) -> None:
    api.enqueue(Reply.error(404))
    client = traced(rig, retry={"rules": {}})
    client.request("GET", f"{api.base_url}/models")
    assert rig.logs.get_finished_logs() == ()
    rig.spans.clear()
    api.enqueue(Reply.close())
    client.request("GET", f"{api.base_url}/models")
    [event] = events(rig)
    assert event["event"] == "http.client.request.exception"
    assert event["in the call"]


@pytest.mark.usefixtures("opted_in")
def test_there_is_none_with_telemetry_off_or_nobody_to_take_it(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.error(400), Reply.error(400))
    traced(rig, telemetry=TelemetrySettings(enabled=False)).post(url, json=CHAT)
    own, rig.logger_provider = rig.logger_provider, NoOpLoggerProvider()  # type: ignore[assignment]
    traced(rig).post(url, json=CHAT)
    rig.logger_provider = own
    assert rig.logs.get_finished_logs() == ()


@pytest.mark.usefixtures("opted_in")
def test_an_event_needs_neither_spans_nor_metrics(rig: Rig, api: Simulator, url: str) -> None:
    rig.provider, rig.meter_provider = NoOpTracerProvider(), NoOpMeterProvider()  # type: ignore[assignment]
    api.enqueue(Reply.error(503), Reply.error(400))
    traced(rig).post(url, json=CHAT)
    [log] = rig.logs.get_finished_logs()
    assert dict(log.log_record.attributes or {}).pop("exception.message")
    assert (log.log_record.attributes or {})["gen_ai.request.model"] == "cline/ok"


def test_a_line_costs_nothing_where_its_level_is_off(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.enqueue(Reply.error(503), Reply.completion("Hi"))
    with caplog.at_level(logging.ERROR, "cline_transport"):
        traced(rig).post(url, json=CHAT)
    assert caplog.records == []


def test_a_retry_and_a_failure_are_a_line_each(
    rig: Rig, api: Simulator, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.enqueue(Reply.error(500, request_id="req_1"), Reply.error(500, request_id="req_2"))
    with caplog.at_level(logging.INFO, "cline_transport"):
        rig.client().post(url, json=CHAT)
    ours = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "cline_transport"]
    assert ours == [
        ("INFO", "retry 1 of POST 127.0.0.1 in 1.00 s: 500 (request ID req_1)"),
        (
            "WARNING",
            "POST 127.0.0.1 failed after 2 attempt(s): 500: Server-side issue "
            "(request ID req_2, immediate, not retried: exhausted)",
        ),
    ]
