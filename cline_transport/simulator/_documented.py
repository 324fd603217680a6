# SPDX-License-Identifier: Apache-2.0
"""The tables of the Cline API's error page, as far as a server needs them."""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import Final

HTTP_ERRORS: Final = MappingProxyType(
    {
        400: "Malformed JSON, missing required fields",
        401: "Invalid API key",
        402: "Insufficient account credits",
        403: "Key does not have access to this resource",
        404: "Invalid endpoint path or model ID",
        429: "Rate limit exceeded",
        500: "Server-side issue",
        502: "Upstream provider error",
        503: "Service temporarily down",
    }
)
"""Documented status → cause."""

STREAM_ERRORS: Final = MappingProxyType(
    {
        "context_length_exceeded": "The input exceeds the model's maximum context length.",
        "content_filter": "Content was blocked by a safety filter.",
        "rate_limit": "Rate limit hit during generation.",
        "server_error": "Upstream provider failed during generation.",
    }
)
"""Documented mid-stream code → meaning."""


def message_for(code: int | str) -> str:
    """The documented text for a status or a mid-stream code, else the best there is."""
    if isinstance(code, str):
        return STREAM_ERRORS.get(code, code)
    if code in HTTP_ERRORS:
        return HTTP_ERRORS[code]
    try:
        return HTTPStatus(code).phrase
    except ValueError:  # such as 529, which no RFC names
        return f"Error {code}"
