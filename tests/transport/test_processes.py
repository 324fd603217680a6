# SPDX-License-Identifier: Apache-2.0
"""Processes that fork after the transport was made, and processes that end in the middle of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cline_transport.simulator import Reply, Simulator

from .rig import CHAT, FAMILIES

PREAMBLE = """
import asyncio, json, os, sys, threading
import {family} as library
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from cline_transport import RetryPolicy, RetryRule, Settings
from cline_transport.{family} import AsyncClineTransport, ClineTransport

CHAT = {chat!r}
url = os.environ["API"] + "/chat/completions"


class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                told = {{"pid": os.getpid(), "name": span.name, "id": span.context.span_id}}
                told["parent"] = span.parent and span.parent.span_id
                file.write(json.dumps(told) + "\\n")
        return SpanExportResult.SUCCESS


class Nowhere(MetricExporter):
    def export(self, metrics_data, timeout_millis=0, **kwargs):
        return None

    def shutdown(self, timeout_millis=0, **kwargs):
        pass

    def force_flush(self, timeout_millis=0):
        return True


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ToFile()))
trace.set_tracer_provider(provider)
meters = MeterProvider(metric_readers=[PeriodicExportingMetricReader(Nowhere())])
"""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(
    program: str, family: str, api: Simulator, spans: Path
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    """Run a program in a process of its own; return it, and the spans that were exported."""
    code = PREAMBLE.format(family=family, chat=CHAT) + textwrap.dedent(program)
    done = subprocess.run(  # noqa: S603 -- our own interpreter, our own code
        # Python 3.12 and later warn of any fork in a process with threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=os.environ | {"API": api.base_url, "SPANS": str(spans)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = spans.read_text().splitlines() if spans.exists() else []
    return done, [json.loads(line) for line in lines]


def test_a_process_that_forks_has_its_telemetry_in_both(
    family: str, api: Simulator, tmp_path: Path
) -> None:
    api.enqueue(*[Reply.error(429, retry_after=0), Reply.stream("Hi")] * 3)
    program = """
        client = library.Client(transport=ClineTransport(meter_provider=meters))
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                client.post(url, json=CHAT).raise_for_status()
                provider.force_flush()
                os._exit(0)
            children.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        client.post(url, json=CHAT).raise_for_status()
        print(children)
    """
    done, spans = run(program, family, api, tmp_path / "spans")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 0]\n", "")
    by_process: dict[object, list[dict[str, object]]] = {}
    for span in spans:
        by_process.setdefault(span["pid"], []).append(span)
    assert len(by_process) == 3
    for told in by_process.values():
        [call] = [span for span in told if span["parent"] is None]
        assert call["name"] == "chat cline/ok"
        assert [s["name"] for s in told if s["parent"] == call["id"]] == ["POST", "POST"]


def test_a_fork_during_a_stream_leaves_it_to_the_parent(
    family: str, api: Simulator, tmp_path: Path
) -> None:
    api.enqueue(Reply.stream("one two three"))
    program = """
        client = library.Client(transport=ClineTransport())
        with client.stream("POST", url, json=CHAT) as response:
            chunks = response.iter_raw()
            next(chunks)
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print(sum(1 for _ in chunks) > 0)
    """
    done, spans = run(program, family, api, tmp_path / "spans")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert sorted(str(span["name"]) for span in spans) == ["POST", "chat cline/ok"]


ENDS = {
    "a stream that nobody closed": """
        client = library.Client(transport=ClineTransport(meter_provider=meters))
        request = client.build_request("POST", url, json=CHAT)
        kept = client.send(request, stream=True)
    """,
    "a stream in a cycle": """
        client = library.Client(transport=ClineTransport(meter_provider=meters))
        request = client.build_request("POST", url, json=CHAT)
        kept = client.send(request, stream=True)
        kept.itself = [kept, client]
        del client, kept
    """,
    "a stream half read": """
        client = library.Client(transport=ClineTransport(meter_provider=meters))
        response = client.send(client.build_request("POST", url, json=CHAT), stream=True)
        chunks = response.iter_raw()
        next(chunks)
    """,
    "sys.exit() in a stream": """
        client = library.Client(transport=ClineTransport(meter_provider=meters))
        with client.stream("POST", url, json=CHAT) as response:
            for chunk in response.iter_raw():
                sys.exit(0)
    """,
    "providers that were shut down before": """
        client = library.Client(transport=ClineTransport(meter_provider=meters))
        response = client.send(client.build_request("POST", url, json=CHAT), stream=True)
        provider.shutdown()
        meters.shutdown()
    """,
    "an asynchronous stream that nobody closed": """
        async def main():
            client = library.AsyncClient(transport=AsyncClineTransport(meter_provider=meters))
            request = client.build_request("POST", url, json=CHAT)
            return client, await client.send(request, stream=True)

        kept = asyncio.run(main())
    """,
    "a thread in the middle of a call": """
        client = library.Client(transport=ClineTransport(meter_provider=meters), timeout=60)
        threading.Thread(target=lambda: client.post(url, json=CHAT), daemon=True).start()
        sys.stdin.read()
    """,
}


@pytest.mark.parametrize("end", [end for end in ENDS if "thread" not in end])
def test_a_process_ends_quietly_with(end: str, family: str, api: Simulator, tmp_path: Path) -> None:
    api.enqueue(Reply.stream("one two three"))
    done, _ = run(ENDS[end], family, api, tmp_path / "spans")
    assert [request.path for request in api.requests] == ["/api/v1/chat/completions"]
    if family == "httpx2" and "asynchronous" in end:
        # httpcore2 complains of its own generators, as it does without us when one is half read.
        assert "cline_transport" not in done.stderr
        done.stderr = ""
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_process_ends_quietly_with_a_thread_in_the_middle_of_a_call(
    family: str, api: Simulator, tmp_path: Path
) -> None:
    api.enqueue(Reply.stall())
    code = PREAMBLE.format(family=family, chat=CHAT)
    code += textwrap.dedent(ENDS["a thread in the middle of a call"])
    with subprocess.Popen(  # noqa: S603 -- our own interpreter, our own code
        [sys.executable, "-c", code],
        env=os.environ | {"API": api.base_url, "SPANS": str(tmp_path / "spans")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        api.wait_for(lambda: len(api.requests) == 1, timeout=30)
        out, err = process.communicate(timeout=30)  # closes its input: it ends
    assert (process.returncode, out, err) == (0, "", "")
