# SPDX-License-Identifier: Apache-2.0
"""Which OpenAI instrumentation a call runs within, and what of the call that already records.

The call's own span is then INTERNAL beneath theirs, and no metric is recorded a second time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import context, trace

from cline_transport import _names as names
from cline_transport._protocols import RequestHead

__all__ = ["recorded_around"]

_ALL: Final = frozenset({names.DURATION, names.TIME_TO_FIRST_CHUNK_DURATION, names.TOKEN_USAGE})
_USUAL: Final = frozenset({names.DURATION, names.TOKEN_USAGE})
_NONE: Final[frozenset[str]] = frozenset()

# opentelemetry-util-genai marks the context of each inference, sampled or not.
_INFERENCE: Final = "opentelemetry.genai.client.inference.context"
_KIND: Final = "openinference.span.kind"
_INFERENCES: Final = ("chat", "text_completion", "generate_content")
_OPENLLMETRY: Final = "opentelemetry.instrumentation.openai"
_OPENLLMETRY_METRICS: Final = "TRACELOOP_METRICS_ENABLED"
_RAW: Final = "x-stainless-raw-response"


def recorded_around(head: RequestHead, *, stream: bool | None) -> frozenset[str] | None:
    """The metrics that an instrumentation around this call records; `None`: there is none around.

    Args:
        head: The request: one of the OpenAI SDK's can be known by its headers.
        stream: Whether it asks for a stream.
    """
    if context.get_value(_INFERENCE) is not None:
        return _ALL
    span = trace.get_current_span()
    if not span.get_span_context().is_valid:
        return None
    attributes: Mapping[str, Any] | None = getattr(span, "attributes", None)
    if not isinstance(attributes, Mapping):
        # Not sampled: it cannot be asked what it is.
        return _by_openllmetry(head, stream=stream) if _is_openllmetry_around(head) else None
    if attributes.get(_KIND) == "LLM":
        return _NONE  # OpenInference has no metrics
    if attributes.get(names.OPERATION_NAME) in _INFERENCES:
        scope = str(getattr(getattr(span, "instrumentation_scope", None), "name", ""))
        # Of one that is not known: a metric that is recorded twice shows, by its scope; one that
        # is not recorded does not.
        return _by_openllmetry(head, stream=stream) if scope.startswith(_OPENLLMETRY) else _NONE
    return None


def _is_openllmetry_around(head: RequestHead) -> bool:
    instrumentor = getattr(sys.modules.get(_OPENLLMETRY), "OpenAIInstrumentor", None)
    # Making another would reset its configuration.
    instance = getattr(instrumentor, "_instance", None)
    active = getattr(instance, "is_instrumented_by_opentelemetry", False)
    return bool(active) and "x-stainless-lang" in head.headers


def _by_openllmetry(head: RequestHead, *, stream: bool | None) -> frozenset[str]:
    if (os.environ.get(_OPENLLMETRY_METRICS) or "true").lower() != "true":
        return _NONE
    # It takes the raw response of a stream for a completion, cannot read it and records nothing.
    return _NONE if stream and _RAW in head.headers else _USUAL
