# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "cline-transport[openai]",
#   "opentelemetry-exporter-prometheus>=0.65b0",
#   "opentelemetry-sdk>=1.44",
#   "prometheus-client>=0.21",
# ]
#
# [tool.uv.sources]
# cline-transport = { path = "../../..", editable = true }
# ///
r"""Answer questions through the Cline API; Prometheus scrapes how the calls went.

Live, a call every ten seconds until Ctrl+C:
CLINE_API_KEY=... uv run examples/observability/prometheus/app.py
Against a simulator: uv run cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
uv run examples/observability/prometheus/app.py --interval 0.2 \
cline/ok sim/429-once sim/502-twice sim/503 sim/402

With more calls at once than are allowed: CLINE_TRANSPORT_LIMITS__MAX_CONCURRENCY=2 and --at-once 8.

The metrics are at http://localhost:9464/metrics; CLINE_METRICS_PORT is another port.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from prometheus_client import start_http_server

from cline_transport import error_info
from cline_transport.openai import http_client

QUESTIONS = (
    "What is a histogram?",
    "What is a counter?",
    "Why does a rate need two samples?",
)


@contextmanager
def metrics_at(port: int) -> Generator[MeterProvider, None, None]:
    """Serve the metrics of a new meter provider on this port; 0 is any free one."""
    provider = MeterProvider(
        resource=Resource.create({SERVICE_NAME: "cline-example"}),
        metric_readers=[PrometheusMetricReader()],
    )
    server, thread = start_http_server(port, addr="127.0.0.1")
    print(f"metrics at http://127.0.0.1:{server.server_port}/metrics", flush=True)
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        provider.shutdown()


def answer(client: OpenAI, model: str, question: str, *, stream: bool) -> str:
    """Ask, and return the whole answer."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": question}]
    if not stream:
        completion = client.chat.completions.create(
            model=model, messages=messages, stream=False, max_tokens=100
        )
        return completion.choices[0].message.content or ""
    parts: list[str] = []
    with client.chat.completions.create(
        model=model, messages=messages, stream=True, max_tokens=100
    ) as chunks:
        for chunk in chunks:
            parts += (choice.delta.content or "" for choice in chunk.choices)
    return "".join(parts)


def call(client: OpenAI, model: str, question: str, *, stream: bool) -> None:
    """Ask, and print the answer, or why there is none."""
    try:
        print(f"{model}: {answer(client, model, question, stream=stream)}", flush=True)
    except Exception as exc:
        info = error_info(exc)
        if info is None:
            raise
        print(f"{model}: failed: {info.code}: {info.message}", file=sys.stderr, flush=True)


def work(client: OpenAI, models: Sequence[str], calls: int, interval: float, most: int) -> None:
    """Call the models in turn, each with and without streaming; `calls` 0 is without end."""
    under_way: deque[Future[None]] = deque()
    with ThreadPoolExecutor(most) as pool:
        for number in itertools.islice(itertools.count(), calls or None):
            turn, which = divmod(number, len(models))
            question, stream = QUESTIONS[turn % len(QUESTIONS)], turn % 2 == 1
            under_way.append(pool.submit(call, client, models[which], question, stream=stream))
            if len(under_way) == most:
                under_way.popleft().result()
            time.sleep(interval)
        for last in under_way:
            last.result()


def main() -> int:
    """Work until Ctrl+C or SIGTERM. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Call models and serve metrics to Prometheus.")
    parser.add_argument("models", nargs="*", default=["anthropic/claude-sonnet-4.6"])
    parser.add_argument("--calls", type=int, default=0, help="how many; 0 (default): without end")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two calls")
    parser.add_argument("--at-once", type=int, default=1, help="calls under way; default: 1")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            metrics_at(int(os.environ.get("CLINE_METRICS_PORT", "9464"))) as provider,
            OpenAI(
                base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
                api_key=os.environ["CLINE_API_KEY"],
                http_client=http_client(meter_provider=provider),
            ) as client,
        ):
            work(client, args.models, args.calls, args.interval, args.at_once)
            while True:  # what was counted last waits for the next scrape
                time.sleep(3600)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
