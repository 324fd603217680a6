# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's providers: the given ones, the global ones, and whether they record."""

from __future__ import annotations

from typing import Final, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider, _internal
from opentelemetry.trace import TracerProvider

__all__ = ["given", "global_meters", "global_tracers", "records"]

_ProviderT = TypeVar("_ProviderT")

_API: Final = ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")


def records(provider: object) -> bool:
    """Whether a provider may record: those of the API itself do nothing, or stand for none yet."""
    return provider is not None and not type(provider).__module__.startswith(_API)


def given(provider: _ProviderT | None) -> _ProviderT | None:
    """A provider that was given; the API's stand-in for the global one is the global one."""
    return None if type(provider).__name__.lstrip("_").startswith("Proxy") else provider


def global_tracers() -> TracerProvider | None:
    """The global tracer provider, if there is one by now.

    The API's own function looks into the environment each time that there is none.
    """
    try:
        return trace._TRACER_PROVIDER
    except AttributeError:
        return trace.get_tracer_provider()


def global_meters() -> MeterProvider | None:
    """The same of metrics."""
    try:
        return _internal._METER_PROVIDER
    except AttributeError:
        return metrics.get_meter_provider()
