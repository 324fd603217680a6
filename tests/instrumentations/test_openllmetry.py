# SPDX-License-Identifier: Apache-2.0
"""Within OpenLLMetry: its span ends green whatever becomes of a stream, ours says what did."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from cline_transport.simulator import Simulator
from tests.clients.support import Mode, Sdk

from .specification import (
    GOOD,
    Specification,
    assert_counted_once,
    read_raw,
    read_raw_async,
    run,
    sampled_or_not,
)
from .support import DURATION, TOKENS, Instrumentation, Told, unwrap_the_sdk

OPENLLMETRY = Instrumentation(
    group="openllmetry",
    module="opentelemetry.instrumentation.openai",
    span="openai.chat",
    kind=SpanKind.CLIENT,
    # Of the first chunk it has `gen_ai.server.time_to_first_token`, which is another metric.
    records=frozenset({DURATION, TOKENS}),
    input_tokens="gen_ai.usage.input_tokens",
)
OPENLLMETRY.skip_unless_installed()

# A model of its own, made when it is put in force.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Support for class-based `config` is deprecated:pydantic.PydanticDeprecatedSince20"
)


@pytest.fixture
def instrumentation() -> Instrumentation:
    return OPENLLMETRY


class TestWithinOpenLLMetry(Specification):
    """All of it, and what is different."""

    def assert_theirs_after_a_stream_error(self, inference: ReadableSpan) -> None:
        # It ends the span as good before it looks at the error.
        assert inference.status.status_code is StatusCode.OK

    @sampled_or_not
    def test_of_a_raw_response_every_metric_is_recorded_once(
        self,
        instrumentation: Instrumentation,
        mode: Mode,
        sdk: Sdk,
        told: Told,
        cline_api: Simulator,
    ) -> None:
        cline_api.enqueue(GOOD)

        run(sdk, read_raw, read_raw_async, mode)

        # It takes the raw response of a stream for a completion, fails to read it and records
        # nothing: then we do.
        assert_counted_once(told, instrumentation if mode == "json" else None, mode)

    def uninstrument(self, instrumentor: Any) -> None:
        instrumentor.uninstrument()
        # It looks for `Completions.create` where `create` is, and takes nothing off.
        assert "Completions.create" in unwrap_the_sdk()
