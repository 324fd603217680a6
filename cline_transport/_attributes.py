# SPDX-License-Identifier: Apache-2.0
"""What spans, metrics and log lines say of a call: its attributes, made from its record."""

from __future__ import annotations

import re
from typing import Final

from opentelemetry.util.types import AttributeValue

from cline_transport import _names as names
from cline_transport._protocols import DEFAULT_PORTS, RequestHead
from cline_transport.errors import ErrorInfo
from cline_transport.record import CallRecord
from cline_transport.wire import as_status, clip

__all__ = ["Attributes", "error_type", "failure", "identity", "log_fields", "outcome"]

Attributes = dict[str, AttributeValue]

_LOW_CARDINALITY: Final = re.compile(r"[A-Za-z][A-Za-z_.\-]{0,63}")


def error_type(error: ErrorInfo) -> str:
    """`error.type`: the code, or `_OTHER` where a server's code is no identifier.

    Examples:
        >>> error_type(ErrorInfo(code="rate_limit", message=""))
        'rate_limit'
    """
    status = as_status(error.code)
    if status is not None:
        return str(status)
    if isinstance(error.code, int):
        return "_OTHER"
    return error.code if _LOW_CARDINALITY.fullmatch(error.code) else "_OTHER"


def identity(head: RequestHead, model: str | None, *, chat: bool) -> Attributes:
    """What identifies a call, on its metrics and its span: of low cardinality.

    Args:
        head: The request.
        model: The model that it asks for.
        chat: Whether the GenAI conventions apply.
    """
    attributes: Attributes = {names.SERVER_ADDRESS: head.host}
    port = head.port or DEFAULT_PORTS.get(head.scheme)
    if port is not None:
        attributes[names.SERVER_PORT] = port
    if chat:
        attributes[names.OPERATION_NAME] = names.CHAT
        attributes[names.PROVIDER_NAME] = _provider(head.host)
        if model is not None:
            attributes[names.REQUEST_MODEL] = model
    return attributes


def _provider(host: str) -> str:
    registered = ".".join(host.rsplit(".", 2)[-2:])
    return names.PROVIDERS.get(registered, host)


def failure(error: ErrorInfo | None, cancelled: str | None = None) -> dict[str, str]:
    """`error.type`, the same on span and metric; nothing for a call that did not fail."""
    if error is not None:
        return {names.ERROR_TYPE: error_type(error)}
    return {} if cancelled is None else {names.ERROR_TYPE: cancelled}


def outcome(record: CallRecord, *, chat: bool, nested: bool, stream: bool) -> Attributes:
    """What became of a call, for its span.

    Args:
        record: What is known of it.
        chat: Whether the GenAI conventions apply.
        nested: Whether the tokens stand on the span of an instrumentation around.
        stream: Whether an event stream came.
    """
    usage, error = record.usage, record.error
    values: dict[str, AttributeValue | None] = {
        names.USAGE_COST: usage.cost,
        names.REQUEST_ID: record.request_id,
        names.STREAM_COMPLETED: record.completed if stream else None,
    }
    if chat:
        values |= {
            names.RESPONSE_ID: record.response_id,
            names.RESPONSE_MODEL: record.response_model,
            names.FINISH_REASONS: [record.finish_reason] if record.finish_reason else None,
            names.TIME_TO_FIRST_CHUNK: record.time_to_first_chunk,
        }
    if chat and not nested:
        values |= {
            names.INPUT_TOKENS: usage.input_tokens,
            names.OUTPUT_TOKENS: usage.output_tokens,
            names.CACHED_TOKENS: usage.cached_tokens,
        }
    if error is not None:
        values |= {
            names.ERROR_CODE: str(error.code),
            names.ERROR_MESSAGE: clip(error.message),
            names.ERROR_PHASE: error.phase,
        }
    return {name: value for name, value in values.items() if value is not None}


def log_fields(error: ErrorInfo) -> dict[str, str]:
    """A log line's attributes, for handlers that export them."""
    fields = {names.ERROR_TYPE: error_type(error), names.ERROR_CODE: str(error.code)}
    if error.request_id is not None:
        fields[names.REQUEST_ID] = error.request_id
    return fields
