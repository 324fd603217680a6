# SPDX-License-Identifier: Apache-2.0
"""What callers write, and the types that they get."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import httpx2
import openai
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from typing_extensions import assert_type

import cline_transport
import cline_transport.httpx
import cline_transport.httpx2
from cline_transport import (
    DEFAULT_RULES,
    Attempt,
    CallRecord,
    ErrorInfo,
    LimitSettings,
    RetryPolicy,
    RetryRule,
    Settings,
    StreamSettings,
    attach,
    detach,
    error_info,
    override,
)
from cline_transport.instrumentor import ClineTransportInstrumentor
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import ApiLimits, Reply, Simulator


def transports() -> None:
    httpx.Client(transport=cline_transport.ClineTransport())
    httpx.AsyncClient(transport=cline_transport.AsyncClineTransport())
    httpx.Client(transport=cline_transport.httpx.ClineTransport(httpx.HTTPTransport(http2=True)))
    httpx2.Client(transport=cline_transport.httpx2.ClineTransport())
    httpx2.AsyncClient(transport=cline_transport.httpx2.AsyncClineTransport())
    with cline_transport.ClineTransport() as transport:
        assert_type(transport, cline_transport.httpx.ClineTransport)
    cline_transport.ClineTransport(
        settings=Settings(),
        tracer_provider=TracerProvider(),
        meter_provider=MeterProvider(),
        logger_provider=LoggerProvider(),
    )


class Own(httpx.Client):
    """A client of a caller's own."""


def attached() -> None:
    assert_type(attach(httpx.Client()), httpx.Client)
    assert_type(attach(httpx2.AsyncClient(), settings=Settings()), httpx2.AsyncClient)
    assert_type(attach(openai.OpenAI()), openai.OpenAI)
    assert_type(attach(Own()), Own)
    assert_type(detach(attach(Own())), Own)


def sdk() -> None:
    assert_type(http_client(), openai.DefaultHttpxClient)
    openai.OpenAI(http_client=http_client(timeout=30))
    openai.AsyncOpenAI(http_client=async_http_client(settings=Settings()))


def errors(exc: BaseException, response: httpx2.Response, chunk: Mapping[str, Any]) -> None:
    for source in (exc, response, chunk):
        info = error_info(source)
        assert_type(info, ErrorInfo | None)
        if info is not None:
            assert_type(info.code, int | str)
            assert_type(info.report(), str)
            assert_type(info.request_id, str | None)
    try:
        pass
    except cline_transport.httpx2.StreamError as error:
        assert_type(error.info, ErrorInfo)
        _: httpx2.TransportError = error


def settings() -> None:
    Settings(
        hosts=("api.cline.bot", "*.example"),
        retry=RetryPolicy(rules={**DEFAULT_RULES, 503: RetryRule(max_retries=5)}, deadline=120),
        stream=StreamSettings(on_error="raise", retry="buffered"),
        limits=LimitSettings(max_concurrency="adaptive", requests_per_minute=60),
    )
    with override(retry={"deadline": 30}):
        pass
    ClineTransportInstrumentor().instrument(hosts=["api.cline.bot"])


def records(record: CallRecord) -> None:
    for attempt in record.attempts:
        assert_type(attempt, Attempt)
        assert_type(attempt.status_code, int | None)
    assert_type(record.error, ErrorInfo | None)


def simulator() -> None:
    with Simulator(limits=ApiLimits(concurrent=4)) as api:
        api.enqueue(Reply.stream("Hello", error="rate_limit"), Reply.error(429))
        assert_type(api.base_url, str)
