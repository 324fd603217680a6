# SPDX-License-Identifier: Apache-2.0
"""The work that is compared: one kind of client, one kind of call, done again and again.

It runs in a process of its own, so that one instrumentation does not see another's clients.
"""

from __future__ import annotations

import functools
import gc
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["GROUPS", "HTTPX", "HTTPX2", "SDK", "calls_of", "main"]

CHAT: Final = {"model": "cline/ok", "messages": [{"role": "user", "content": "hello"}]}


class Nowhere(SpanExporter):
    """Spans are recorded, queued and forgotten."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider() -> TracerProvider:
    """The real SDK, whose batches wait until the end."""
    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(Nowhere(), schedule_delay_millis=3_600_000))
    return made


def named(module: str, name: str) -> Any:
    """What only some environments have, what instruments when it is loaded, and what takes long."""
    return getattr(import_module(module), name)


# --- transports for httpx ---


def bare() -> Any:
    return httpx.HTTPTransport()


def ours() -> Any:
    return named("cline_transport.httpx", "ClineTransport")(tracer_provider=provider())


def ours_without_sdk() -> Any:
    return named("cline_transport.httpx", "ClineTransport")()


def otel(inner: Any = None) -> Any:
    make = named("opentelemetry.instrumentation.httpx", "SyncOpenTelemetryTransport")
    return make(inner or bare(), tracer_provider=provider())


def httpx_retries() -> Any:
    retry = named("httpx_retries", "Retry")(total=3, backoff_factor=1)
    return named("httpx_retries", "RetryTransport")(transport=bare(), retry=retry)


def httpx_retries_with_otel() -> Any:
    return otel(httpx_retries())


def pydantic_ai() -> Any:
    """Its transport for httpx: retries by tenacity, on error statuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it prefers httpx2
        config = named("pydantic_ai.retries", "RetryConfig")(
            retry=named("tenacity", "retry_if_exception_type")(httpx.HTTPStatusError),
            wait=named("tenacity", "wait_exponential")(),
            stop=named("tenacity", "stop_after_attempt")(4),
            reraise=True,
        )
        make = named("pydantic_ai.retries", "TenacityTransport")
        return make(config, bare(), validate_response=httpx.Response.raise_for_status)


# --- and for httpx2 ---


def bare2() -> Any:
    return named("httpx2", "HTTPTransport")()


def otel2() -> Any:
    make = named("opentelemetry.instrumentation.httpx", "SyncOpenTelemetryTransportHttpx2")
    return make(bare2(), tracer_provider=provider())


def ours2() -> Any:
    return named("cline_transport.httpx2", "ClineTransport")(tracer_provider=provider())


def ours2_without_sdk() -> Any:
    return named("cline_transport.httpx2", "ClineTransport")()


# --- the SDK ---


def sdk(url: str, key: str, **options: Any) -> Any:
    return named("openai", "OpenAI")(base_url=url, api_key=key, **options)


def sdk_ours(url: str, key: str) -> Any:
    return sdk(
        url,
        key,
        http_client=named("cline_transport.openai", "http_client")(tracer_provider=provider()),
    )


def sdk_otel(url: str, key: str) -> Any:
    instrumentor = named("opentelemetry.instrumentation.httpx", "HTTPX2ClientInstrumentor")
    instrumentor().instrument(tracer_provider=provider())
    return sdk(url, key)


def sdk_genai(url: str, key: str) -> Any:
    trace.set_tracer_provider(provider())
    named("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor")().instrument()
    return sdk(url, key)


def sdk_openinference(url: str, key: str) -> Any:
    instrumentor = named("openinference.instrumentation.openai", "OpenAIInstrumentor")
    instrumentor().instrument(tracer_provider=provider())
    return sdk(url, key)


HTTPX: Final[Mapping[str, Callable[[], Any]]] = {
    "httpx": bare,
    "httpx-retries": httpx_retries,
    "httpx-retries + OpenTelemetry httpx": httpx_retries_with_otel,
    "pydantic-ai's transport": pydantic_ai,
    "OpenTelemetry httpx": otel,
    "cline-transport, no OpenTelemetry SDK": ours_without_sdk,
    "cline-transport": ours,
}
HTTPX2: Final[Mapping[str, Callable[[], Any]]] = {
    "httpx2": bare2,
    "OpenTelemetry httpx2": otel2,
    "cline-transport on httpx2, no OpenTelemetry SDK": ours2_without_sdk,
    "cline-transport on httpx2": ours2,
}
SDK: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "openai": sdk,
    "openai + OpenTelemetry httpx": sdk_otel,
    "openai + OpenTelemetry genai": sdk_genai,
    "openai + OpenInference": sdk_openinference,
    "openai + cline-transport": sdk_ours,
}
GROUPS: Final = (HTTPX, HTTPX2, SDK)
"""Each kind of client; the first of its library is what the others are compared with."""


def client_of(kind: str, key: str) -> Any:
    """A client of a kind that is not the SDK."""
    headers = {"authorization": f"Bearer {key}"}
    if kind in HTTPX2:
        return named("httpx2", "Client")(transport=HTTPX2[kind](), headers=headers, timeout=60)
    return httpx.Client(transport=HTTPX[kind](), headers=headers, timeout=60)


def calls_of(kind: str, url: str, key: str, *, stream: bool) -> Callable[[], None]:
    """A function that makes one call."""
    if kind in SDK:
        completions = SDK[kind](url, key).chat.completions
        messages: Any = CHAT["messages"]

        def ask() -> None:
            completions.create(model="cline/ok", messages=messages)

        def listen() -> None:
            for _ in completions.create(model="cline/ok", messages=messages, stream=True):
                pass

        return listen if stream else ask
    client = client_of(kind, key)
    target, body = f"{url}/chat/completions", {**CHAT, "stream": stream}

    def post() -> None:
        client.post(target, json=body).raise_for_status()

    def read() -> None:
        with client.stream("POST", target, json=body) as response:
            for _ in response.iter_lines():
                pass

    return read if stream else post


def memory_of(kind: str, url: str, key: str, count: int) -> float:
    """Bytes that Python holds for each stream that is open and was begun."""
    client = client_of(kind, key)
    target, body = f"{url}/chat/completions", {**CHAT, "stream": True}

    def begin() -> tuple[Any, Iterator[str]]:
        response = client.send(client.build_request("POST", target, json=body), stream=True)
        lines = response.iter_lines()
        while '"content"' not in next(lines):
            pass
        return response, lines

    first = [begin() for _ in range(8)]
    gc.collect()
    tracemalloc.start()
    streams = [begin() for _ in range(count)]
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for response, _ in first + streams:
        response.close()
    client.close()
    return held / count


def seconds_of(
    kind: str, url: str, key: str, what: str, count: int, when_warm: Callable[[], object]
) -> float:
    """Seconds of CPU per call; callgrind counts within `functools.reduce`."""
    call = calls_of(kind, url, key, stream=what == "stream")
    for _ in range(max(3, count // 2)):
        call()

    def again(_: None, __: int) -> None:
        call()

    # What was made before is not looked at again in the midst: whether a full collection falls into
    # so few calls is chance, and costs more than they do.
    gc.collect()
    gc.freeze()
    when_warm()
    began = time.process_time()
    functools.reduce(again, range(count), None)
    return (time.process_time() - began) / count


def wait() -> None:
    """Let the runner switch callgrind on: until then the work is five times as fast."""
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()


def main(kind: str, url: str, key: str, what: str, count: int, *, counted: bool) -> None:
    """Do the work, and print its figure for the runner."""
    if what == "memory":
        print(memory_of(kind, url, key, count))  # noqa: T201
    else:
        print(seconds_of(kind, url, key, what, count, wait if counted else bool))  # noqa: T201
    sys.stdout.flush()


if __name__ == "__main__":
    kind, url, key, what, count, *rest = sys.argv[1:]
    main(kind, url, key, what, int(count), counted=bool(rest))
