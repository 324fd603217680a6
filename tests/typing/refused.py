# SPDX-License-Identifier: Apache-2.0
"""What a caller's type checker refuses: each line has the error that it is here for."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import httpx
import httpx2
import openai

import cline_transport.httpx
import cline_transport.httpx2
from cline_transport import (
    ErrorInfo,
    ErrorSettings,
    LimitSettings,
    RetryPolicy,
    RetryRule,
    Settings,
    StreamSettings,
    attach,
    error_info,
)
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Reply


def the_wrong_family() -> None:
    httpx.Client(transport=cline_transport.httpx2.ClineTransport())  # type: ignore[arg-type]
    httpx2.Client(transport=cline_transport.httpx.ClineTransport())  # type: ignore[arg-type]
    cline_transport.httpx.ClineTransport(httpx2.HTTPTransport())  # type: ignore[arg-type]
    cline_transport.httpx2.ClineTransport(httpx.HTTPTransport())  # type: ignore[arg-type]
    httpx.AsyncClient(transport=cline_transport.httpx2.AsyncClineTransport())  # type: ignore[arg-type]
    openai.OpenAI(http_client=attach(httpx.Client()))  # type: ignore[arg-type]


def the_wrong_colour() -> None:
    httpx.Client(transport=cline_transport.httpx.AsyncClineTransport())  # type: ignore[arg-type]
    httpx.AsyncClient(transport=cline_transport.httpx.ClineTransport())  # type: ignore[arg-type]
    cline_transport.httpx.ClineTransport(httpx.AsyncHTTPTransport())  # type: ignore[arg-type]
    cline_transport.httpx2.AsyncClineTransport(httpx2.HTTPTransport())  # type: ignore[arg-type]
    openai.OpenAI(http_client=async_http_client())  # type: ignore[arg-type]
    openai.AsyncOpenAI(http_client=http_client())  # type: ignore[arg-type]


def a_client_of_another_type() -> None:
    _: httpx.AsyncClient = attach(httpx.Client())  # type: ignore[assignment]


def wrong_settings() -> None:
    Settings(retry=3)  # type: ignore[arg-type]
    Settings(retries=RetryPolicy())  # type: ignore[call-arg]
    RetryPolicy(rules={503: 3})  # type: ignore[dict-item]
    RetryPolicy(60)  # type: ignore[call-arg,arg-type]
    RetryRule(max_retries="three")  # type: ignore[arg-type]
    StreamSettings(on_error="ignore")  # type: ignore[arg-type]
    ErrorSettings(normalise=False)  # type: ignore[call-arg]
    LimitSettings(max_concurrency="many")  # type: ignore[arg-type]
    cline_transport.httpx.ClineTransport(settings={"retry": 3})  # type: ignore[arg-type]
    cline_transport.httpx.ClineTransport(httpx.HTTPTransport(), Settings())  # type: ignore[call-arg]
    http_client(settings={})  # type: ignore[arg-type]


def an_error_that_may_be_none(exc: Exception) -> None:
    error_info(exc).report()  # type: ignore[union-attr]
    _: ErrorInfo = error_info(exc)  # type: ignore[assignment]


def what_cannot_be_changed(policy: RetryPolicy, info: ErrorInfo) -> None:
    policy.deadline = 3  # type: ignore[misc]
    info.code = "none"  # type: ignore[misc]


def names_that_are_none() -> None:
    cline_transport.httpx.Transport()  # type: ignore[attr-defined]
    Reply.strean("Hello")  # type: ignore[attr-defined]
    Reply.stream("Hello", error_shape="yours")  # type: ignore[arg-type]
