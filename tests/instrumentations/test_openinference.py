# SPDX-License-Identifier: Apache-2.0
"""Within OpenInference: it has spans of its own kind and no metrics, so these are ours."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind

from .specification import Specification
from .support import Instrumentation

OPENINFERENCE = Instrumentation(
    group="openinference",
    module="openinference.instrumentation.openai",
    span="ChatCompletion",
    kind=SpanKind.INTERNAL,
    records=frozenset(),
    input_tokens="llm.token_count.prompt",
)
OPENINFERENCE.skip_unless_installed()


@pytest.fixture
def instrumentation() -> Instrumentation:
    return OPENINFERENCE


class TestWithinOpenInference(Specification):
    """All of it."""
