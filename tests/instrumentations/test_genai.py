# SPDX-License-Identifier: Apache-2.0
"""Within `opentelemetry-instrumentation-genai-openai`: all that the conventions ask for."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind

from tests.clients.support import MODEL

from .specification import Specification
from .support import DURATION, FIRST_CHUNK, TOKENS, Instrumentation

GENAI = Instrumentation(
    group="genai",
    module="opentelemetry.instrumentation.genai.openai",
    span=f"chat {MODEL}",
    kind=SpanKind.CLIENT,
    records=frozenset({DURATION, FIRST_CHUNK, TOKENS}),
    input_tokens="gen_ai.usage.input_tokens",
)
GENAI.skip_unless_installed()


@pytest.fixture
def instrumentation() -> Instrumentation:
    return GENAI


class TestWithinGenai(Specification):
    """All of it."""
