"""The span of a call, what is added to the HTTP spans beneath it, and the log lines.

The span starts with the call and ends with its body. It is current only while an attempt is being
sent, never across a `yield`. Nothing here fails a call: what a tracer, processor or exporter raises
is logged at DEBUG and forgotten.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Concatenate, Final, ParamSpec

from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from cline_transport import _names as names
from cline_transport._protocols import RequestHead
from cline_transport._version import __version__
from cline_transport.errors import ErrorInfo
from cline_transport.record import Attempt, CallRecord
from cline_transport.wire import clip

__all__ = ["CallTelemetry", "Telemetry", "error_type"]

logger: Final = logging.getLogger("cline_transport")

_P = ParamSpec("_P")
_LOW_CARDINALITY: Final = re.compile(r"[A-Za-z][A-Za-z_.\-]{0,63}")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def error_type(error: ErrorInfo) -> str:
    """`error.type`: the code, or `_OTHER` where a server's code is no identifier.

    Example:
        >>> error_type(ErrorInfo(code="rate_limit", message=""))
        'rate_limit'
    """
    if isinstance(error.code, int):
        return str(error.code) if 100 <= error.code <= 599 else "_OTHER"
    return error.code if _LOW_CARDINALITY.fullmatch(error.code) else "_OTHER"


def _harmless(
    method: Callable[Concatenate[CallTelemetry, _P], None],
) -> Callable[Concatenate[CallTelemetry, _P], None]:
    """Telemetry that fails must not fail the call."""

    @functools.wraps(method)
    def guarded(self: CallTelemetry, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            logger.debug("telemetry failed in %s", method.__name__, exc_info=True)

    return guarded


class Telemetry:
    """The tracer of one transport.

    Args:
        tracer_provider: Where spans go; the global provider by default.
    """

    __slots__ = ("_tracer",)

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(names.SCOPE, __version__, tracer_provider, names.SCHEMA_URL)

    def start(
        self,
        head: RequestHead,
        *,
        chat: bool,
        model: str | None,
        stream: bool | None,
        enabled: bool,
    ) -> CallTelemetry:
        """Start the span of a call: `chat {model}`, or `{METHOD}` for any other endpoint.

        Without it (`enabled=False`) the log lines stay.
        """
        if not enabled or not is_instrumentation_enabled():
            return CallTelemetry(trace.INVALID_SPAN, head)
        port = head.port or _DEFAULT_PORTS.get(head.scheme)
        attributes: dict[str, AttributeValue] = {names.SERVER_ADDRESS: head.host}
        if port is not None:
            attributes[names.SERVER_PORT] = port
        name, kind = head.method, SpanKind.INTERNAL
        if chat:
            name, kind = names.CHAT, SpanKind.CLIENT
            attributes[names.OPERATION_NAME] = names.CHAT
            attributes[names.PROVIDER_NAME] = _provider(head.host)
            if model is not None:
                name = f"{names.CHAT} {model}"
                attributes[names.REQUEST_MODEL] = model
            if stream is not None:
                attributes[names.REQUEST_STREAM] = stream
        span: Span = trace.INVALID_SPAN
        try:
            span = self._tracer.start_span(name, kind=kind, attributes=attributes)
        except Exception:
            logger.debug("telemetry failed in start", exc_info=True)
        return CallTelemetry(span, head)


def _provider(host: str) -> str:
    registered = ".".join(host.rsplit(".", 2)[-2:])
    return names.PROVIDERS.get(registered, host)


class CallTelemetry:
    """The telemetry of one call: its span, and its lines in the log `cline_transport`."""

    __slots__ = ("_ended", "_head", "_span")

    def __init__(self, span: Span, head: RequestHead) -> None:
        self._span = span
        self._head = head
        self._ended = False

    @property
    def traced(self) -> bool:
        """Whether there is a trace at all: then attempts get HTTP spans and trace headers."""
        return self._span.get_span_context().is_valid

    @contextmanager
    def current(self) -> Generator[None, None, None]:
        """Make the call's span the parent of what is started within."""
        if not self.traced:
            yield
            return
        token = context.attach(trace.set_span_in_context(self._span))
        try:
            yield
        finally:
            context.detach(token)

    @_harmless
    def on_attempt(self, attempt: Attempt) -> None:
        """An attempt ended: mark its HTTP span, which is the current one, if there is one."""
        if not self.traced:
            return
        span = trace.get_current_span()
        if span is self._span or not span.is_recording():
            return
        if attempt.number > 1:
            span.set_attribute(names.RESEND_COUNT, attempt.number - 1)
        if attempt.request_id is not None:
            span.set_attribute(names.RESPONSE_HEADER_REQUEST_ID, [attempt.request_id])
            span.set_attribute(names.REQUEST_ID, attempt.request_id)
        if attempt.error is not None:
            span.set_attribute(names.ERROR_TYPE, error_type(attempt.error))
            span.set_attribute(names.ERROR_CODE, str(attempt.error.code))
            if attempt.status_code is not None and attempt.status_code < 400:
                span.set_status(Status(StatusCode.ERROR))

    @_harmless
    def on_retry(self, record: CallRecord, error: ErrorInfo, wait: float) -> None:
        """A failed attempt will be followed by another."""
        logger.info(
            "retry %d of %s %s in %.2f s: %s (request ID %s)",
            len(record.attempts),
            self._head.method,
            self._head.host,
            wait,
            error.code,
            error.request_id or "none",
        )

    @_harmless
    def end(
        self,
        record: CallRecord,
        *,
        stream: bool,
        inspected: bool | None,
        reason: str | None,
        cancelled: str | None,
    ) -> None:
        """The call is over: describe it, set the status once, end the span once.

        Args:
            record: What became of it.
            stream: Whether an event stream came.
            inspected: Whether it could be looked into.
            reason: Why an error was not retried (again).
            cancelled: The name of the exception that cancelled it.
        """
        if self._ended:
            return
        self._ended = True
        error = record.error
        if error is not None:
            logger.warning(
                "%s %s failed after %d attempt(s): %s: %s (request ID %s, %s%s)",
                self._head.method,
                self._head.host,
                len(record.attempts),
                error.code,
                clip(error.message),
                error.request_id or "none",
                error.phase,
                f", not retried: {reason}" if reason else "",
            )
        span = self._span
        try:
            if span.is_recording():
                span.set_attributes(self._outcome(record, stream=stream, inspected=inspected))
                if error is not None:
                    span.set_status(Status(StatusCode.ERROR, clip(error.message)))
                elif cancelled is not None:
                    span.set_attribute(names.ERROR_TYPE, cancelled)
                    span.set_status(Status(StatusCode.ERROR, "cancelled"))
        finally:
            span.end()

    def _outcome(
        self, record: CallRecord, *, stream: bool, inspected: bool | None
    ) -> dict[str, AttributeValue]:
        usage, error = record.usage, record.error
        values: dict[str, AttributeValue | None] = {
            names.RESPONSE_ID: record.response_id,
            names.RESPONSE_MODEL: record.response_model,
            names.FINISH_REASONS: [record.finish_reason] if record.finish_reason else None,
            names.TIME_TO_FIRST_CHUNK: record.time_to_first_chunk,
            names.INPUT_TOKENS: usage.input_tokens,
            names.OUTPUT_TOKENS: usage.output_tokens,
            names.CACHED_TOKENS: usage.cached_tokens,
            names.USAGE_COST: usage.cost,
            names.REQUEST_ID: record.request_id,
            names.RETRY_COUNT: record.retries,
            names.STREAM_COMPLETED: record.completed if stream else None,
            names.STREAM_INSPECTED: False if inspected is False else None,
        }
        if error is not None:
            values[names.ERROR_TYPE] = error_type(error)
            values[names.ERROR_CODE] = str(error.code)
            values[names.ERROR_MESSAGE] = clip(error.message)
            values[names.ERROR_PHASE] = error.phase
        return {name: value for name, value in values.items() if value is not None}
