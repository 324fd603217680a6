"""The work that is compared: one kind of client, one kind of call, done again and again.

It runs in a process of its own, so that one instrumentation does not see another's clients.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx
import openai
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["KINDS", "main"]

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


# --- transports for httpx ---


def bare() -> Any:
    return httpx.HTTPTransport()


def ours() -> Any:
    from cline_transport.httpx import ClineTransport

    return ClineTransport(tracer_provider=provider())


def ours_without_sdk() -> Any:
    from cline_transport.httpx import ClineTransport

    return ClineTransport()


def otel(inner: Any = None) -> Any:
    from opentelemetry.instrumentation.httpx import SyncOpenTelemetryTransport

    return SyncOpenTelemetryTransport(inner or bare(), tracer_provider=provider())


def httpx_retries() -> Any:
    from httpx_retries import Retry, RetryTransport

    return RetryTransport(transport=bare(), retry=Retry(total=3, backoff_factor=1))


def httpx_retries_with_otel() -> Any:
    return otel(httpx_retries())


def pydantic_ai() -> Any:
    """Its transport for httpx: retries by tenacity, on the same statuses."""
    import warnings

    from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pydantic_ai.retries import RetryConfig, TenacityTransport

        return TenacityTransport(
            RetryConfig(
                retry=retry_if_exception_type(httpx.HTTPStatusError),
                wait=wait_exponential(),
                stop=stop_after_attempt(4),
                reraise=True,
            ),
            bare(),
            validate_response=lambda response: response.raise_for_status(),
        )


# --- the SDK ---


def sdk(url: str, key: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, **options)


def sdk_ours(url: str, key: str) -> openai.OpenAI:
    from cline_transport.openai import http_client

    return sdk(url, key, http_client=http_client(tracer_provider=provider()))


def sdk_otel(url: str, key: str) -> openai.OpenAI:
    import opentelemetry.instrumentation.httpx as instrumentation

    instrumentation.HTTPX2ClientInstrumentor().instrument(tracer_provider=provider())
    return sdk(url, key)


def sdk_genai(url: str, key: str) -> openai.OpenAI:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    trace.set_tracer_provider(provider())
    OpenAIInstrumentor().instrument()
    return sdk(url, key)


def sdk_openinference(url: str, key: str) -> openai.OpenAI:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider())
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
SDK: Final[Mapping[str, Callable[[str, str], openai.OpenAI]]] = {
    "openai": sdk,
    "openai + OpenTelemetry httpx": sdk_otel,
    "openai + OpenTelemetry genai": sdk_genai,
    "openai + OpenInference": sdk_openinference,
    "openai + cline-transport": sdk_ours,
}
KINDS: Final = (*HTTPX, *SDK)
"""Each kind of client; the first of its library is what the others are compared with."""


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
    client = httpx.Client(
        transport=HTTPX[kind](), headers={"authorization": f"Bearer {key}"}, timeout=60
    )
    target, body = f"{url}/chat/completions", {**CHAT, "stream": stream}

    def post() -> None:
        client.post(target, json=body).raise_for_status()

    def read() -> None:
        with client.stream("POST", target, json=body) as response:
            for _ in response.iter_lines():
                pass

    return read if stream else post


def main(kind: str, url: str, key: str, what: str, count: int) -> None:
    """Make the calls; callgrind counts within `functools.reduce`. Print seconds of CPU per call."""
    call = calls_of(kind, url, key, stream=what == "stream")
    for _ in range(max(3, count // 2)):
        call()

    def again(_: None, __: int) -> None:
        call()

    began = time.process_time()
    functools.reduce(again, range(count), None)
    print((time.process_time() - began) / count)  # noqa: T201 -- it is read by the runner
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
