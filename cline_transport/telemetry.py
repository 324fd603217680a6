# SPDX-License-Identifier: Apache-2.0
"""What a call tells: its span, its metrics, its lines in the log.

The span starts with the call and ends with its body. It is current only while an attempt is being
sent or a line is being logged, never across a `yield`. Nothing here fails a call: what a tracer,
processor, reader or exporter raises is logged at DEBUG and forgotten. Without an OpenTelemetry SDK
none of it runs but the log lines.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Concatenate, Final, NamedTuple, ParamSpec

from opentelemetry import context, metrics, propagate, trace
from opentelemetry._logs import LoggerProvider, NoOpLoggerProvider, get_logger_provider
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from cline_transport import _names as names
from cline_transport._attributes import (
    Attributes,
    error_type,
    failure,
    identity,
    log_fields,
    outcome,
)
from cline_transport._current import Current
from cline_transport._enclosing import recorded_around
from cline_transport._events import Events, opted_in
from cline_transport._limiter import Turn
from cline_transport._metrics import Metrics
from cline_transport._protocols import RequestHead
from cline_transport._providers import given, global_meters, global_tracers, records
from cline_transport._redaction import redact
from cline_transport._version import __version__
from cline_transport.errors import ErrorInfo
from cline_transport.record import Attempt, CallRecord
from cline_transport.settings import TelemetrySettings
from cline_transport.wire import clip

__all__ = ["CallTelemetry", "Ending", "Telemetry"]

logger: Final = logging.getLogger("cline_transport")

_P = ParamSpec("_P")
_MAX_STACK: Final = 16 * 1024
_NOT_TRACED: Final = nullcontext()


class Ending(NamedTuple):
    """How a call ended, beside what its record says.

    Attributes:
        duration: Seconds since it began.
        stream: Whether an event stream came.
        inspected: Whether it could be looked into.
        reason: Why an error was not retried (again).
        cancelled: The name of the exception that cancelled it.
        exception: The exception that it ended in.
    """

    duration: float
    stream: bool = False
    inspected: bool = True
    reason: str | None = None
    cancelled: str | None = None
    exception: BaseException | None = None


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
    """Tracer, instruments and event logger of one transport.

    Args:
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: The same for metrics.
        logger_provider: The same for log events.
    """

    __slots__ = ("_logs", "_meters", "_tracer", "_tracers", "events", "metrics")

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        self._tracers = given(tracer_provider)
        self._meters = given(meter_provider)
        self._logs = given(logger_provider)
        self._tracer: Tracer = trace.NoOpTracer()
        try:
            self._tracer = trace.get_tracer(
                names.SCOPE, __version__, self._tracers, names.SCHEMA_URL
            )
            self.metrics = Metrics(self._meters)
            self.events = Events(self._logs)
        except Exception:
            logger.debug("telemetry failed in a provider", exc_info=True)
            self.metrics = Metrics(metrics.NoOpMeterProvider())
            self.events = Events(NoOpLoggerProvider())

    def start(
        self,
        head: RequestHead,
        settings: TelemetrySettings,
        *,
        chat: bool,
        model: str | None,
        stream: bool | None,
    ) -> CallTelemetry:
        """Start the span of a call: `chat {model}`, or `{METHOD}` for any other endpoint.

        Without it (`enabled=False`, suppressed, or no SDK) the log lines stay.
        """
        call = CallTelemetry(head, model)
        if not settings.enabled:
            return call
        tracing = records(self._tracers or global_tracers())
        metered = records(self._meters or global_meters())
        # Without either there are events of failures only, which ask for themselves.
        if (tracing or metered) and not is_instrumentation_enabled():
            return call
        call.reports, call.attempt_spans = self, settings.attempt_spans
        call.chat = chat and settings.genai
        call.metered = metered
        if tracing or call.metered:
            try:
                self._start(call, stream=stream, tracing=tracing)
            except Exception:
                logger.debug("telemetry failed in start", exc_info=True)
        return call

    def _start(self, call: CallTelemetry, *, stream: bool | None, tracing: bool) -> None:
        attributes = call.attributes
        name, kind = call.head.method, SpanKind.INTERNAL
        if call.chat:
            with suppress(Exception):  # somebody's span is asked what it is
                call.recorded = recorded_around(call.head, stream=stream)
            name = names.CHAT if call.model is None else f"{names.CHAT} {call.model}"
            if stream is not None:
                attributes[names.REQUEST_STREAM] = stream
            if call.recorded is None:
                kind = SpanKind.CLIENT
            else:
                del attributes[names.OPERATION_NAME]  # theirs is the inference that is counted
        if tracing:
            span = self._tracer.start_span(name, kind=kind, attributes=attributes)
            # Asked once, here, where it may fail.
            call.traced, call.recording = span.get_span_context().is_valid, span.is_recording()
            call.span = span

    @property
    def wants_events(self) -> bool:
        """Whether failures are to be told as log events."""
        wanted = opted_in() and records(self._logs or get_logger_provider())
        return wanted and is_instrumentation_enabled()


class CallTelemetry:
    """The telemetry of one call, as far as there is any.

    Attributes:
        head: The request.
        model: The model that it asks for.
        reports: The transport's telemetry; `None` where only lines are logged.
        span: The call's span.
        chat: Whether the GenAI conventions apply.
        recorded: The metrics that an instrumentation around the call records; `None` without one.
        traced: Whether there is a trace at all: then trace headers are sent.
        recording: Whether the call's span is recorded.
        metered: Whether metrics are recorded.
        attempt_spans: Whether attempts are to get HTTP spans.
        retries: Attempts after the first.
        held_back: What held it last of the limits.
        ended: Whether the call is over.
    """

    __slots__ = (
        "attempt_spans", "chat", "ended", "head", "held_back", "metered", "model", "recorded",
        "recording", "reports", "retries", "span", "traced",
    )  # fmt: skip

    def __init__(self, head: RequestHead, model: str | None) -> None:
        self.head = head
        self.model = model
        self.reports: Telemetry | None = None
        self.span: Span = trace.INVALID_SPAN
        self.chat = False
        self.recorded: frozenset[str] | None = None
        self.traced = False
        self.recording = False
        self.metered = False
        self.attempt_spans = False
        self.retries = 0
        self.held_back: str | None = None
        self.ended = False

    @property
    def attributes(self) -> Attributes:
        """What identifies the call, anew each time: a call without telemetry has no use for it."""
        return identity(self.head, self.model, chat=self.chat)

    @property
    def enabled(self) -> bool:
        """Whether anything is to be told but lines in the log."""
        return self.reports is not None

    @property
    def wants_attempts(self) -> bool:
        """Whether attempts get HTTP spans, and anything of them would be recorded."""
        return self.attempt_spans and (self.recording or self.metered)

    @_harmless
    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Send the trace on with a request that has no HTTP span to do it."""
        if self.traced:
            propagate.inject(headers, trace.set_span_in_context(self.span))

    def inject_beneath(self, headers: MutableMapping[str, str]) -> None:
        """The same where an HTTP span should be: it may have been left out (an excluded URL)."""
        if self.traced and trace.get_current_span() is self.span:
            self.inject(headers)

    def current(self) -> AbstractContextManager[None]:
        """Make the call's span the parent of what is started, or logged, within."""
        return Current(self.span) if self.traced else _NOT_TRACED

    @_harmless
    def on_attempt(self, attempt: Attempt) -> None:
        """An attempt ended: mark its HTTP span, which is the current one, if there is one."""
        if not self.traced:
            return
        span = trace.get_current_span()
        if span is self.span or not span.is_recording():
            return
        told: Attributes = {}
        if attempt.number > 1:
            told[names.RESEND_COUNT] = attempt.number - 1
        if attempt.request_id is not None:
            told[names.RESPONSE_HEADER_REQUEST_ID] = (attempt.request_id,)
            told[names.REQUEST_ID] = attempt.request_id
        if attempt.error is not None:
            told[names.ERROR_TYPE] = error_type(attempt.error)
            told[names.ERROR_CODE] = str(attempt.error.code)
            if attempt.status_code is not None and attempt.status_code < 400:
                span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(told)

    @_harmless
    def on_wait(self, record: CallRecord, error: ErrorInfo, wait: float) -> None:
        """A failed attempt will be followed by another."""
        with self.current():
            logger.info(
                "retry %d of %s %s in %.2f s: %s (request ID %s)",
                len(record.attempts),
                self.head.method,
                self.head.host,
                wait,
                error.code,
                error.request_id or "none",
                extra=log_fields(error),
            )

    @_harmless
    def on_turn(self, turn: Turn) -> None:
        """Limits let an attempt go, or will not before the deadline."""
        if turn.reason is not None:
            self.held_back = turn.reason
        if self.reports is None or not self.metered:
            return
        counted, where = self.reports.metrics, self._context()
        attributes = identity(self.head, None, chat=False)
        if turn.reason is not None:
            counted.on_held_back(
                turn.waited, {**attributes, names.LIMIT_REASON: turn.reason}, where
            )
        if turn.alone:
            counted.on_fallback(attributes, where)
        if turn.granted and turn.line.rules.counts:
            turn.counted = True
            counted.on_permits(1, turn.line.limit, attributes, where)

    @_harmless
    def on_given_back(self, turn: Turn | None, cooldown: float) -> None:
        """An attempt that limits let go is over; all calls with its key wait for the cooldown."""
        if turn is not None and turn.counted and self.reports is not None:
            attributes, limit = identity(self.head, None, chat=False), turn.line.limit
            self.reports.metrics.on_permits(-1, limit, attributes, self._context())
        if cooldown:
            with self.current():
                host = self.head.host
                logger.info(
                    "cooldown of %.2f s for %s: calls with the same key wait", cooldown, host
                )

    @_harmless
    def on_retry(self, error: ErrorInfo) -> None:
        """An attempt after the first begins, because of this error."""
        self.retries += 1
        if self.reports is not None and self.metered:
            attributes = {**self.attributes, **failure(error)}
            self.reports.metrics.on_retry(attributes, self._context())

    @_harmless
    def end(self, record: CallRecord, ending: Ending) -> None:
        """The call is over: describe it, set the status, end the span."""
        error = record.error
        if error is not None:
            self._log_failure(record, error, ending.reason)
        reports = self.reports
        if reports is None:
            return
        if self.metered:
            self._count(reports.metrics, record, ending)
        if error is not None and reports.wants_events:
            self._tell_exception(reports.events, error, ending.exception)
        if self.traced:
            self._end_span(record, ending)

    # --- the parts ---

    @_harmless
    def _log_failure(self, record: CallRecord, error: ErrorInfo, reason: str | None) -> None:
        with self.current():
            logger.warning(
                "%s %s failed after %d attempt(s): %s: %s (request ID %s, %s%s)",
                self.head.method,
                self.head.host,
                len(record.attempts),
                error.code,
                clip(error.message),
                error.request_id or "none",
                error.phase,
                f", not retried: {reason}" if reason else "",
                extra=log_fields(error),
            )

    @_harmless
    def _count(self, counted: Metrics, record: CallRecord, ending: Ending) -> None:
        attributes, where = self.attributes, self._context()
        failed = failure(record.error, ending.cancelled)
        if record.error is not None and ending.reason == "throttled":
            counted.on_throttled({**attributes, **failed}, where)
        if self.chat:
            if record.response_model is not None:
                attributes[names.RESPONSE_MODEL] = record.response_model
            recorded = self.recorded or frozenset()
            counted.on_chat(
                record, attributes, failed, where, duration=ending.duration, recorded=recorded
            )
        counted.on_cost(record.usage.cost, attributes, where)

    @_harmless
    def _tell_exception(
        self, events: Events, error: ErrorInfo, exception: BaseException | None
    ) -> None:
        # An error status is no exception by the HTTP conventions; by those of GenAI it is.
        if exception is None and not self.chat:
            return
        attributes = {
            **self.attributes,
            **failure(error),
            names.EXCEPTION_MESSAGE: clip(error.message),
        }
        if exception is not None:
            kind = type(exception)
            stack = "".join(traceback.format_exception(exception))
            attributes[names.EXCEPTION_TYPE] = f"{kind.__module__}.{kind.__qualname__}"
            attributes[names.EXCEPTION_STACKTRACE] = redact(stack, self.head)[-_MAX_STACK:]
        name = names.CHAT_EXCEPTION if self.chat else names.HTTP_EXCEPTION
        events.emit(name, attributes, self._context())

    @_harmless
    def _end_span(self, record: CallRecord, ending: Ending) -> None:
        span, error = self.span, record.error
        try:
            if span.is_recording():
                nested = self.recorded is not None
                told = outcome(record, chat=self.chat, nested=nested, stream=ending.stream)
                told[names.RETRY_COUNT] = self.retries
                if self.held_back is not None:
                    told[names.LIMIT_WAIT] = record.limit_wait
                    told[names.LIMIT_REASON] = self.held_back
                if not ending.inspected:
                    told[names.STREAM_INSPECTED] = False
                span.set_attributes({**told, **failure(error, ending.cancelled)})
                if error is not None:
                    span.set_status(Status(StatusCode.ERROR, clip(error.message)))
                elif ending.cancelled is not None:
                    span.set_status(Status(StatusCode.ERROR, "cancelled"))
        finally:
            span.end()

    def _context(self) -> context.Context:
        return trace.set_span_in_context(self.span) if self.traced else context.get_current()
