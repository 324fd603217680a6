# SPDX-License-Identifier: Apache-2.0
"""`examples/observability/otlp.py` as a program: what a collector receives of its calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cline_transport import __version__
from cline_transport.simulator import Reply, Simulator

from .otlp_receiver import Attributes, Collector, Metric, Span, running_collector

EXAMPLE = Path(__file__).parents[2] / "examples" / "observability" / "otlp.py"
MODEL = "anthropic/claude-sonnet-4.6"
CALL = f"chat {MODEL}"

SCOPE = ("cline_transport", __version__)
HTTP_SCOPE = "opentelemetry.instrumentation.httpx"

SECONDS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
TOKENS = (
    *(1, 4, 16, 64, 256, 1024, 4096),
    *(16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as received:
        yield received


# --- the program ---


def run(
    api: Simulator, collector: Collector, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "CLINE_"))
    }
    given = {
        "CLINE_BASE_URL": api.base_url,
        "CLINE_API_KEY": api.api_key,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [sys.executable, "-W", "error", EXAMPLE],
        env=inherited | given | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def ours(attributes: Mapping[str, Any]) -> Attributes:
    """What the transport adds to an HTTP span; the rest is the instrumentation's."""
    names = ("cline.", "error.", "http.request.resend_count", "http.response.header.")
    return {name: value for name, value in attributes.items() if name.startswith(names)}


def attempt(
    request_id: str | None, *, resend: int | None = None, code: str | None = None
) -> Attributes:
    values = {
        "cline.error.code": code,
        "cline.request_id": request_id,
        "error.type": code,
        "http.request.resend_count": resend,
        "http.response.header.x-request-id": (request_id,),
    }
    return {name: value for name, value in values.items() if value is not None}


def identity(api: Simulator) -> Attributes:
    """What every call to the simulator has, on its span and its metrics."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "127.0.0.1",
        "gen_ai.request.model": MODEL,
        "server.address": "127.0.0.1",
        "server.port": api.port,
    }


def shape(collector: Collector) -> list[tuple[str, str, str, str, int]]:
    """Each span with its parent's name, in the order in which they began."""
    names = {span.span_id: span.name for span in collector.spans} | {b"": "-"}
    return [
        (span.scope[0], span.name, span.kind, names[span.parent_id], span.events)
        for span in collector.spans
    ]


def calls_and_attempts(collector: Collector) -> tuple[list[Span], list[Span]]:
    calls = [span for span in collector.spans if span.scope == SCOPE]
    attempts = [span for span in collector.spans if span.scope[0] == HTTP_SCOPE]
    for span in attempts:
        (parent,) = (call for call in calls if call.span_id == span.parent_id)
        assert span.trace_id == parent.trace_id
    return calls, attempts


def assert_nothing_is_told(collector: Collector, api: Simulator) -> None:
    for secret in (api.api_key, "Say hello in five languages.", "Hello"):
        assert secret.encode() not in collector.raw


CALL_SHAPE = ("cline_transport", CALL, "SPAN_KIND_CLIENT", "-", 0)
ATTEMPT_SHAPE = (HTTP_SCOPE, "POST", "SPAN_KIND_CLIENT", CALL, 0)
UNSET = ("STATUS_CODE_UNSET", "")


def test_a_retry_that_succeeds_and_a_completion(cline_api: Simulator, collector: Collector) -> None:
    cline_api.enqueue(
        Reply.error(429, retry_after=1),
        Reply.stream("Hello hallo", response_id="gen-1", cost=0.25),
        Reply.completion("Hello", response_id="gen-2", cost=0.5),
    )

    done = run(cline_api, collector)

    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello hallo\nHello\n", "")
    assert set(collector.requests) == {
        ("/v1/traces", None),
        ("/v1/metrics", None),
        ("/v1/logs", None),
    }
    assert collector.services == {"cline-transport-example"}
    assert_nothing_is_told(collector, cline_api)
    ids = [request.request_id for request in cline_api.requests]
    who = identity(cline_api)

    # The spans.
    assert shape(collector) == [
        CALL_SHAPE,
        ATTEMPT_SHAPE,
        ATTEMPT_SHAPE,
        CALL_SHAPE,
        ATTEMPT_SHAPE,
    ]
    (streamed, completed), attempts = calls_and_attempts(collector)
    assert [streamed.status, completed.status] == [UNSET, UNSET]
    first_chunk = streamed.attributes.pop("gen_ai.response.time_to_first_chunk")
    both = {
        **who,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 4,
    }
    assert streamed.attributes == {
        **both,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "gen-1",
        "gen_ai.usage.output_tokens": 2,
        "cline.request_id": ids[1],
        "cline.retry.count": 1,
        "cline.usage.cost": 0.25,
        "cline.stream.completed": True,
    }
    assert completed.attributes == {
        **both,
        "gen_ai.request.stream": False,
        "gen_ai.response.id": "gen-2",
        "gen_ai.usage.output_tokens": 1,
        "cline.request_id": ids[2],
        "cline.retry.count": 0,
        "cline.usage.cost": 0.5,
    }
    assert [ours(span.attributes) for span in attempts] == [
        attempt(ids[0], code="429"),
        attempt(ids[1], resend=1),
        attempt(ids[2]),
    ]
    assert [span.status[0] for span in attempts] == ["STATUS_CODE_ERROR", UNSET[0], UNSET[0]]

    # The metrics.
    metrics = {name: one for name, one in collector.metrics.items() if one.scope == SCOPE}
    answered = {**who, "gen_ai.response.model": MODEL}
    (_, seconds, _) = metrics["gen_ai.client.operation.duration"].points[0]
    assert seconds >= 1  # the wait is part of the call
    assert metrics == {
        "gen_ai.client.operation.duration": Metric(
            SCOPE, "histogram", "s", {SECONDS}, [(answered, seconds, 2)]
        ),
        "gen_ai.client.operation.time_to_first_chunk": Metric(
            SCOPE, "histogram", "s", {SECONDS}, [(answered, first_chunk, 1)]
        ),
        "gen_ai.client.token.usage": Metric(
            SCOPE,
            "histogram",
            "{token}",
            {TOKENS},
            [
                ({**answered, "gen_ai.token.type": "input"}, 24, 2),
                ({**answered, "gen_ai.token.type": "output"}, 3, 2),
            ],
        ),
        "cline.client.retries": Metric(
            SCOPE, "sum", "{retry}", set(), [({**who, "error.type": "429"}, 1, 1)]
        ),
        "cline.client.cost": Metric(SCOPE, "sum", "{credit}", set(), [(answered, 0.75, 1)]),
    }

    # The log.
    cooldown, line = sorted(collector.logs, key=lambda record: record.body)
    assert cooldown.body.startswith("cooldown of ")
    assert (line.scope[0], line.severity, line.event) == ("cline_transport", "INFO", "")
    assert re.fullmatch(
        rf"retry 1 of POST 127\.0\.0\.1 in \d\.\d\d s: 429 \(request ID {ids[0]}\)", line.body
    )
    assert line.attributes == {
        "cline.error.code": "429",
        "cline.request_id": ids[0],
        "error.type": "429",
    }
    assert (line.trace_id, line.span_id) == (streamed.trace_id, streamed.span_id)


def test_an_error_in_the_stream_and_an_error_status(
    cline_api: Simulator, collector: Collector
) -> None:
    broken, declined = "The provider stopped", "No credits"
    cline_api.enqueue(
        Reply.stream(
            "Hello hallo",
            error="server_error",
            error_message=broken,
            error_after=1,
            response_id="gen-1",
        ),
        Reply.error(402, message=declined),
    )

    done = run(
        cline_api,
        collector,
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_SERVICE_NAME="from-the-environment",
        OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN="logs",
    )

    assert (done.returncode, done.stdout) == (1, "Hello")
    assert broken in done.stderr
    assert declined in done.stderr
    assert set(collector.requests) == {
        ("/v1/traces", "gzip"),
        ("/v1/metrics", "gzip"),
        ("/v1/logs", "gzip"),
    }
    assert collector.services == {"from-the-environment"}
    assert_nothing_is_told(collector, cline_api)
    ids = [request.request_id for request in cline_api.requests]
    who = identity(cline_api)

    # The spans: HTTP knows nothing of what came in the stream.
    assert shape(collector) == [CALL_SHAPE, ATTEMPT_SHAPE, CALL_SHAPE, ATTEMPT_SHAPE]
    (streamed, refused), attempts = calls_and_attempts(collector)
    assert streamed.status == ("STATUS_CODE_ERROR", broken)
    assert refused.status == ("STATUS_CODE_ERROR", declined)
    first_chunk = streamed.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert streamed.attributes == {
        **who,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "gen-1",
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ("error",),
        "error.type": "server_error",
        "cline.error.code": "server_error",
        "cline.error.message": broken,
        "cline.error.phase": "mid_stream",
        "cline.request_id": ids[0],
        "cline.retry.count": 0,
        "cline.stream.completed": False,
    }
    assert refused.attributes == {
        **who,
        "gen_ai.request.stream": False,
        "error.type": "402",
        "cline.error.code": "402",
        "cline.error.message": declined,
        "cline.error.phase": "immediate",
        "cline.request_id": ids[1],
        "cline.retry.count": 0,
    }
    assert [ours(span.attributes) for span in attempts] == [
        attempt(ids[0]),
        attempt(ids[1], code="402"),
    ]
    assert [span.status[0] for span in attempts] == [UNSET[0], "STATUS_CODE_ERROR"]

    # The metrics.
    metrics = {name: one for name, one in collector.metrics.items() if one.scope == SCOPE}
    answered = {**who, "gen_ai.response.model": MODEL}
    duration = metrics.pop("gen_ai.client.operation.duration")
    assert [(attributes, count) for attributes, _, count in duration.points] == [
        ({**answered, "error.type": "server_error"}, 1),
        ({**who, "error.type": "402"}, 1),
    ]
    assert metrics == {
        "gen_ai.client.operation.time_to_first_chunk": Metric(
            SCOPE, "histogram", "s", {SECONDS}, [(answered, first_chunk, 1)]
        ),
    }

    # The log: a line and an event for each failure, in the context of its call.
    lines = [record for record in collector.logs if not record.event]
    events = [record for record in collector.logs if record.event]
    for records in (lines, events):
        assert [record.severity for record in records] == ["WARN", "WARN"]
        assert [(record.trace_id, record.span_id) for record in records] == [
            (call.trace_id, call.span_id) for call in (streamed, refused)
        ]
    assert [record.attributes for record in lines] == [
        {"cline.error.code": code, "cline.request_id": request_id, "error.type": code}
        for code, request_id in (("server_error", ids[0]), ("402", ids[1]))
    ]
    for line, message in zip(lines, (broken, declined), strict=True):
        assert line.body.startswith("POST 127.0.0.1 failed after 1 attempt(s): ")
        assert message in line.body
    assert [record.scope for record in events] == [SCOPE, SCOPE]
    assert {record.event for record in events} == {"gen_ai.client.operation.exception"}
    assert [record.attributes for record in events] == [
        {**who, "error.type": code, "exception.message": message}
        for code, message in (("server_error", broken), ("402", declined))
    ]
