# SPDX-License-Identifier: Apache-2.0
"""`examples/zero_code`: an application that knows nothing, run by `opentelemetry-instrument`.

Real processes, a real collector. All tests hold for whichever SDK is installed, on httpx or httpx2.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from cline_transport import __version__
from cline_transport.simulator import Reply, Simulator
from tests.clients.proxy import running_proxy

from .otlp_receiver import Collector, Span, running_collector

HERE = Path(__file__).parents[2] / "examples" / "zero_code"
# The one beside this interpreter, whatever is on the path.
COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")

MODEL = "anthropic/claude-sonnet-4.6"
CALL = ("cline_transport", f"chat {MODEL}", "-")
ATTEMPT = ("opentelemetry.instrumentation.httpx", "POST", f"chat {MODEL}")
PLAIN = ("opentelemetry.instrumentation.httpx", "POST", "-")

OFF = "cline-transport is switched off, its settings are wrong: "
# opentelemetry-sdk says it of its own command whenever a configuration file is used.
UPSTREAM = re.compile(r"OTEL_CONFIG_FILE is set; ignoring configurator kwargs: .*\n")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as received:
        yield received


def environment_file() -> dict[str, str]:
    """`otel.env`, as a shell or a container reads it."""
    lines = (HERE / "otel.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# The simulator's host, and no waiting; the rest is as in the files.
QUICK = {
    "CLINE_TRANSPORT_RETRY__JITTER": "0",
    "CLINE_TRANSPORT_RETRY__RULES__429__INITIAL": "0",
    "CLINE_TRANSPORT_RETRY__RULES__500__INITIAL": "0",
}
LOCAL = environment_file() | {"CLINE_TRANSPORT_HOSTS": "127.0.0.1"} | QUICK
# What says nothing of the transport: telemetry only.
ELSEWHERE = {
    name: value for name, value in environment_file().items() if name.startswith("OTEL_")
} | QUICK


def run(
    api: Simulator,
    collector: Collector,
    environment: dict[str, str],
    *arguments: str,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "CLINE_", "LLM_")) and not name.upper().endswith("_PROXY")
    }
    given = {
        "LLM_BASE_URL": api.base_url,
        "LLM_API_KEY": api.api_key,
        "LLM_MODEL": MODEL,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "PYTHONWARNINGS": "error",
    }
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [COMMAND, sys.executable, "assistant.py", *arguments],
        cwd=HERE,
        env=inherited | environment | given | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def printed(done: subprocess.CompletedProcess[str], *, declarative: bool = False) -> str:
    """What the application printed, after it has ended well and nothing was complained of."""
    stderr = UPSTREAM.sub("", done.stderr, count=1) if declarative else done.stderr
    assert (done.returncode, stderr) == (0, "")
    return done.stdout


def shape(collector: Collector) -> list[tuple[str, str, str]]:
    """Each span with its parent's name, in the order in which they began."""
    names = {span.span_id: span.name for span in collector.spans} | {b"": "-"}
    return [(span.scope[0], span.name, names[span.parent_id]) for span in collector.spans]


def attempts_of(collector: Collector) -> list[list[Span]]:
    """The HTTP spans beneath each call, call by call."""
    calls = [span for span in collector.spans if span.scope == ("cline_transport", __version__)]
    return [[span for span in collector.spans if span.parent_id == call.span_id] for call in calls]


def told(spans: Sequence[Span], name: str) -> list[object]:
    return [span.attributes.get(name) for span in spans]


def counts(collector: Collector, name: str) -> dict[object, float]:
    """A metric by its `error.type`: how often a histogram was recorded, or a counter's sum."""
    metric = collector.metrics[name]
    assert metric.scope == ("cline_transport", __version__)
    histogram = metric.kind == "histogram"
    return {
        attributes.get("error.type"): count if histogram else total
        for attributes, total, count in metric.points
    }


def plain_only(collector: Collector, requests: int) -> None:
    """Every request has the HTTP span that it has without us, and there is nothing else."""
    assert shape(collector) == [PLAIN] * requests
    for span in collector.spans:
        assert not [name for name in span.attributes if name.startswith(("cline.", "gen_ai."))]
        assert "http.request.resend_count" not in span.attributes
    ours = [name for name, one in collector.metrics.items() if one.scope[0] == "cline_transport"]
    assert ours == []


def by_the_sdk(api: Simulator) -> list[str | None]:
    """The SDK's own count of its retries, request by request."""
    return [dict(request.headers).get("x-stainless-retry-count") for request in api.requests]


def once_refused(api: Simulator) -> None:
    """429, then good; and a completion."""
    refused = Reply.error(429, retry_after_ms=1)
    api.enqueue(refused, Reply.stream("Hello hallo"), Reply.completion("Goodbye"))


WELL = "Hello hallo\nGoodbye\n"


def test_the_command_loads_all_three() -> None:
    """What the tests below say of doubles holds only then."""
    loaded = {one.name for one in entry_points(group="opentelemetry_instrumentor")}
    assert {"cline_transport", "httpx", "httpx2"} <= loaded


def test_the_application_knows_nothing_of_us() -> None:
    code = (HERE / "assistant.py").read_text()
    assert "cline_transport" not in code
    assert "opentelemetry" not in code


@pytest.mark.parametrize("arguments", [[], ["--async"]], ids=["sync", "async"])
def test_variables_alone_bring_retries_and_telemetry(
    cline_api: Simulator, collector: Collector, arguments: list[str]
) -> None:
    once_refused(cline_api)
    done = run(cline_api, collector, LOCAL, *arguments)
    assert printed(done) == WELL
    assert by_the_sdk(cline_api) == ["0", "0", "0"]  # our retry, not the SDK's
    assert shape(collector) == [CALL, ATTEMPT, ATTEMPT, CALL, ATTEMPT]
    first, second = attempts_of(collector)
    assert told(first, "http.request.resend_count") == [None, 1]
    assert told(first, "error.type") == ["429", None]
    assert told(second, "error.type") == [None]
    assert counts(collector, "gen_ai.client.operation.duration") == {None: 2}
    assert counts(collector, "cline.client.retries") == {"429": 1}
    assert collector.services == {"my-app"}
    assert cline_api.api_key.encode() not in collector.raw
    assert b"hallo" not in collector.raw


def test_errors_have_the_type_that_they_should_have(
    cline_api: Simulator, collector: Collector
) -> None:
    cline_api.enqueue(
        Reply.stream(
            "Hello hallo", error="server_error", error_message="It stopped", error_after=1
        ),
        Reply.error(402, message="No credits"),
    )
    done = run(cline_api, collector, LOCAL)
    stopped, declined = printed(done).splitlines()
    assert stopped == "Hello[APIError - It stopped]"
    assert re.fullmatch(r"\[APIStatusError 402 Error code: 402 - .*No credits.*\]", declined)
    assert shape(collector) == [CALL, ATTEMPT, CALL, ATTEMPT]
    assert told(collector.spans[::2], "error.type") == ["server_error", "402"]
    # The HTTP of a stream that breaks off was good.
    assert [told(spans, "error.type") for spans in attempts_of(collector)] == [[None], ["402"]]
    assert counts(collector, "gen_ai.client.operation.duration") == {"server_error": 1, "402": 1}
    assert "cline.client.retries" not in collector.metrics
    assert [(one.scope[0], one.severity) for one in collector.logs] == [
        ("cline_transport", "WARN")
    ] * 2


def test_an_error_before_content_is_mended_and_a_refusal_is_typed(
    cline_api: Simulator, collector: Collector
) -> None:
    cline_api.enqueue(
        Reply.stream(error="server_error", error_after=0),
        Reply.stream("Hello hallo"),
        Reply.error(429, retry_after=3600),  # longer than anyone waits
    )
    done = run(cline_api, collector, LOCAL, "--async")
    hello, limited = printed(done).splitlines()
    assert hello == "Hello hallo"
    assert limited.startswith("[RateLimitError 429 Error code: 429 - ")
    assert by_the_sdk(cline_api) == ["0", "0", "0"]
    assert shape(collector) == [CALL, ATTEMPT, ATTEMPT, CALL, ATTEMPT]
    assert [told(spans, "error.type") for spans in attempts_of(collector)] == [
        ["server_error", None],
        ["429"],
    ]
    assert counts(collector, "cline.client.retries") == {"server_error": 1}


def refuse_often(api: Simulator) -> None:
    """More often than without a setting."""
    refused = [Reply.error(429, retry_after_ms=1) for _ in range(5)]
    api.enqueue(*refused, Reply.stream("Hello hallo"), Reply.completion("Goodbye"))


OFTEN_REFUSED = [CALL, *[ATTEMPT] * 6, CALL, ATTEMPT]


def test_a_file_brings_them(cline_api: Simulator, collector: Collector, tmp_path: Path) -> None:
    refuse_often(cline_api)
    text = (HERE / "cline_transport.toml").read_text()
    assert text.count('"api.cline.bot"') == 1
    file = tmp_path / "cline_transport.toml"
    file.write_text(text.replace('"api.cline.bot"', '"127.0.0.1"'))
    done = run(cline_api, collector, ELSEWHERE, CLINE_TRANSPORT_CONFIG=str(file))
    assert printed(done) == WELL
    assert shape(collector) == OFTEN_REFUSED
    assert counts(collector, "cline.client.retries") == {"429": 5}


def test_so_does_the_configuration_of_opentelemetry(
    cline_api: Simulator, collector: Collector
) -> None:
    refuse_often(cline_api)
    done = run(
        cline_api,
        collector,
        QUICK,
        OTEL_CONFIG_FILE="otel.yaml",
        CLINE_HOST="127.0.0.1",
        OTEL_SERVICE_NAME="from-the-environment",
    )
    assert printed(done, declarative=True) == WELL
    assert shape(collector) == OFTEN_REFUSED
    assert counts(collector, "cline.client.retries") == {"429": 5}
    assert collector.services == {"from-the-environment"}
    assert collector.logs == []  # the command's second try at the instrumentor is none


def test_its_host_is_that_of_the_api_unless_the_environment_names_another(
    cline_api: Simulator, collector: Collector
) -> None:
    once_refused(cline_api)
    done = run(cline_api, collector, QUICK, OTEL_CONFIG_FILE="otel.yaml")
    assert printed(done, declarative=True) == WELL
    plain_only(collector, 3)
    assert collector.services == {"my-app"}


def test_a_wrong_option_there_is_one_line_and_the_application_runs_on(
    cline_api: Simulator, collector: Collector
) -> None:
    once_refused(cline_api)
    done = run(
        cline_api,
        collector,
        QUICK,
        OTEL_CONFIG_FILE="otel.yaml",
        CLINE_HOST="127.0.0.1",
        CLINE_DEADLINE="-1",
    )
    [line] = UPSTREAM.sub("", done.stderr, count=1).splitlines()
    assert line.startswith(f"{OFF}retry.deadline must be")
    assert "got -1" in line
    assert (done.returncode, done.stdout) == (0, WELL)
    assert by_the_sdk(cline_api) == ["0", "1", "0"]
    plain_only(collector, 3)


@pytest.mark.parametrize(
    "variables",
    [
        LOCAL | {"CLINE_TRANSPORT_ENABLED": "false"},
        LOCAL | {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "cline_transport"},
        ELSEWHERE,
    ],
    ids=["our switch", "OpenTelemetry's switch", "another host"],
)
def test_without_it_all_is_as_opentelemetry_and_the_sdk_make_it(
    cline_api: Simulator, collector: Collector, variables: dict[str, str]
) -> None:
    once_refused(cline_api)
    done = run(cline_api, collector, variables)
    assert printed(done) == WELL
    assert by_the_sdk(cline_api) == ["0", "1", "0"]
    plain_only(collector, 3)
    assert collector.logs == []


def test_our_switch_is_above_the_configuration_of_opentelemetry(
    cline_api: Simulator, collector: Collector
) -> None:
    once_refused(cline_api)
    done = run(
        cline_api,
        collector,
        {"CLINE_TRANSPORT_ENABLED": "false"},
        OTEL_CONFIG_FILE="otel.yaml",
        CLINE_HOST="127.0.0.1",
    )
    assert printed(done, declarative=True) == WELL
    plain_only(collector, 3)


def test_it_works_without_telemetry(cline_api: Simulator, collector: Collector) -> None:
    once_refused(cline_api)
    done = run(cline_api, collector, LOCAL, OTEL_SDK_DISABLED="true")
    assert printed(done) == WELL
    assert by_the_sdk(cline_api) == ["0", "0", "0"]
    assert collector.requests == []


@pytest.mark.parametrize("log", ["true", "false"], ids=["exported log", "log on stderr"])
def test_a_wrong_setting_is_one_line_and_the_application_runs_as_without_it(
    cline_api: Simulator, collector: Collector, log: str
) -> None:
    once_refused(cline_api)
    done = run(
        cline_api,
        collector,
        LOCAL | {"CLINE_TRANSPORT_RETRY__JITTER": "7"},
        OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=log,
    )
    assert (done.returncode, done.stdout) == (0, WELL)
    assert done.stderr == (
        f"{OFF}retry.jitter must be a number between 0 and 1 "
        "(got 7.0, from the environment variable CLINE_TRANSPORT_RETRY__JITTER)\n"
    )
    assert by_the_sdk(cline_api) == ["0", "1", "0"]
    plain_only(collector, 3)


def test_a_proxy_of_the_environment_is_used(cline_api: Simulator, collector: Collector) -> None:
    once_refused(cline_api)
    with running_proxy() as proxy:
        done = run(cline_api, collector, LOCAL, HTTP_PROXY=proxy.url)
        through = [target for target in proxy.targets if target.startswith(cline_api.base_url)]
    assert printed(done) == WELL
    assert through == [f"{cline_api.base_url}/chat/completions"] * 3
    assert shape(collector) == [CALL, ATTEMPT, ATTEMPT, CALL, ATTEMPT]
    assert [len(spans) for spans in attempts_of(collector)] == [2, 1]
