# SPDX-License-Identifier: Apache-2.0
"""Which of OpenTelemetry's providers there are."""

from __future__ import annotations

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from cline_transport._providers import given, global_meters, global_tracers, records


def test_those_of_the_sdk_record_and_those_of_the_api_do_not() -> None:
    assert records(TracerProvider())
    assert records(MeterProvider())
    assert not records(trace.NoOpTracerProvider())
    assert not records(trace.ProxyTracerProvider())
    assert not records(metrics.NoOpMeterProvider())
    assert not records(None)


def test_a_stand_in_for_the_global_one_is_none_that_was_given() -> None:
    assert given(trace.ProxyTracerProvider()) is None
    assert given(None) is None
    provider = TracerProvider()
    assert given(provider) is provider


def test_the_global_ones_are_those_that_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    tracers, meters = TracerProvider(), MeterProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracers)
    monkeypatch.setattr(_internal, "_METER_PROVIDER", meters)
    assert global_tracers() is trace.get_tracer_provider() is tracers
    assert global_meters() is metrics.get_meter_provider() is meters


def test_without_the_names_inside_the_api_its_functions_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracers, meters = trace.NoOpTracerProvider(), metrics.NoOpMeterProvider()
    monkeypatch.delattr(trace, "_TRACER_PROVIDER")
    monkeypatch.delattr(_internal, "_METER_PROVIDER")
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    assert global_tracers() is tracers
    assert global_meters() is meters
