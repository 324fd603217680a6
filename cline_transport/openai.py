# SPDX-License-Identifier: Apache-2.0
"""HTTP clients for the official `openai` SDK, with the transport underneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from cline_transport._attach import attach
from cline_transport._extras import absent

try:
    import openai
except ImportError as error:
    raise absent("openai", __name__, error) from error

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

    from cline_transport.settings import Settings

__all__ = ["async_http_client", "http_client"]


def http_client(
    *,
    settings: Settings | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    **kwargs: Any,
) -> DefaultHttpxClient:
    """An HTTP client for `openai.OpenAI(http_client=...)`.

    It is the SDK's own default client, of the family that the installed SDK is built on (httpx for
    openai 1 and 2, httpx2 for openai 3): its timeouts, limits and redirects, environment proxies
    intact.

    Args:
        settings: The policies; read from the environment by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: The same for metrics.
        logger_provider: The same for log events.
        **kwargs: Passed on to the client (`timeout`, `limits`, `proxy`, `verify`, …).

    Raises:
        SettingsError: A setting from the environment or the file is wrong.

    Example:
        ```python
        client = OpenAI(base_url="https://api.cline.bot/api/v1", http_client=http_client())
        ```
    """
    return attach(
        openai.DefaultHttpxClient(**kwargs),
        settings=settings,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
    )


def async_http_client(
    *,
    settings: Settings | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    **kwargs: Any,
) -> DefaultAsyncHttpxClient:
    """An HTTP client for `openai.AsyncOpenAI(http_client=...)`; see `http_client`.

    Args:
        settings: The policies; read from the environment by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: The same for metrics.
        logger_provider: The same for log events.
        **kwargs: Passed on to the client.

    Raises:
        SettingsError: A setting from the environment or the file is wrong.

    Example:
        ```python
        client = AsyncOpenAI(http_client=async_http_client(timeout=30))
        ```
    """
    return attach(
        openai.DefaultAsyncHttpxClient(**kwargs),
        settings=settings,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
    )
