# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "arize-phoenix>=20",
#   "cline-transport[demo]",
#   "opentelemetry-exporter-otlp-proto-http>=1.44",
# ]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""The tour of `cline-transport demo` in Arize Phoenix, on this machine.

    uv run examples/observability/phoenix.py

installs Phoenix, starts it on the loopback with a folder of its own, runs the tour against the
built-in simulator, sends the traces by OTLP over HTTP, and serves them until Ctrl+C.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import openai
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode, format_trace_id

from cline_transport._demo.calls import Outcome, complete, stream, stream_async
from cline_transport._demo.scenarios import SCENARIOS, Scenario
from cline_transport._demo.tour import MODEL, documented_settings, quiet_log
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Gate, Simulator

PROJECT = "cline-transport"

HOST = "127.0.0.1"

PACE = 0.05
"""Seconds between two words of a stream."""

START_SECONDS = 90

# Phoenix's gRPC collector listens on every address, whatever its host. Nobody here needs it.
SERVER = """\
import grpc.aio
import phoenix.server.main

make = grpc.aio.server

def on_loopback(*args, **kwargs):
    server = make(*args, **kwargs)
    listen = server.add_insecure_port
    server.add_insecure_port = lambda address: listen("127.0.0.1:0")
    return server

grpc.aio.server = on_loopback
phoenix.server.main.main()
"""


@contextmanager
def phoenix(port: int) -> Generator[str, None, None]:
    """A Phoenix of our own, as long as the block lasts; its URL.

    Args:
        port: Where it listens; 0: any free port.

    Raises:
        OSError: The port is taken.
        RuntimeError: Phoenix did not start; the message has its output.
    """
    with socket.create_server((HOST, port)) as probe:
        port = probe.getsockname()[1]
    with TemporaryDirectory(prefix="phoenix-", ignore_cleanup_errors=True) as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PHOENIX_")}
        environment |= {
            "PHOENIX_HOST": HOST,
            "PHOENIX_PORT": str(port),
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
            "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
            "PHOENIX_ENABLE_MCP_SERVER": "false",
        }
        log = Path(folder, "phoenix.log")
        with log.open("wb") as output:
            server = subprocess.Popen(  # noqa: S603 - our own interpreter, the code above
                [sys.executable, "-c", SERVER, "serve"],
                cwd=folder,  # not ours: `import phoenix` would find this file
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if not _is_ready(server, port):
                raise RuntimeError(f"Phoenix did not start:\n{log.read_text(errors='replace')}")
            yield f"http://{HOST}:{port}"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _is_ready(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        connection = HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return True
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    return False


def play(scenario: Scenario, api: Simulator, provider: TracerProvider) -> Outcome:
    """Make the call of one scenario, as an application would."""
    gate = Gate(2)  # the role and the first word: what the transport holds back
    api.enqueue(*scenario.replies(gate))
    if scenario.way == "stream_async":
        return asyncio.run(_play_async(api, provider, gate))

    def pace() -> None:
        gate.release()
        time.sleep(PACE)

    with openai.OpenAI(
        base_url=api.base_url,
        api_key="sk-wrong" if scenario.wrong_key else api.api_key,
        http_client=http_client(
            settings=documented_settings(), tracer_provider=provider, trust_env=False
        ),
    ) as client:
        if scenario.way == "stream":
            return stream(client, MODEL, pace)
        return complete(client, MODEL)


async def _play_async(api: Simulator, provider: TracerProvider, gate: Gate) -> Outcome:
    async def pace() -> None:
        gate.release()
        await asyncio.sleep(PACE)

    async with openai.AsyncOpenAI(
        base_url=api.base_url,
        api_key=api.api_key,
        http_client=async_http_client(
            settings=documented_settings(), tracer_provider=provider, trust_env=False
        ),
    ) as client:
        return await stream_async(client, MODEL, pace)


def run_tour(url: str) -> None:
    """Run each scenario in a span of the application's, and print where to see it."""
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": "cline-transport-tour", "openinference.project.name": PROJECT}
        )
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    tracer = provider.get_tracer("cline-transport-tour")
    with quiet_log(), Simulator() as api:
        for scenario in SCENARIOS:
            # What no convention makes an LLM span, Phoenix shows as of unknown kind.
            with tracer.start_as_current_span(
                scenario.title, attributes={"openinference.span.kind": "CHAIN"}
            ) as span:
                api.reset()
                outcome = play(scenario, api, provider)
                if outcome.error is not None:
                    span.set_status(Status(StatusCode.ERROR, type(outcome.error).__name__))
            trace_id = format_trace_id(span.get_span_context().trace_id)
            print(f"{scenario.title}\n  {url}/redirects/traces/{trace_id}", flush=True)
    provider.shutdown()  # sends what is left


def main() -> int:
    """Run the program. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Show the tour's traces in Arize Phoenix.")
    parser.add_argument("--port", type=int, default=6006, help="default 6006; 0: any free port")
    parser.add_argument("--once", action="store_true", help="exit when the traces have been sent")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Phoenix must not outlive us
    try:
        print("Starting Phoenix ...", flush=True)
        with phoenix(args.port) as url:
            run_tour(url)
            if not args.once:
                print(f"Phoenix serves them at {url} until Ctrl+C.", flush=True)
                while True:
                    time.sleep(3600)
    except KeyboardInterrupt:
        return 0
    except (OSError, RuntimeError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
