"""What a call tells: its span, its metrics, its lines in the log.

The span starts with the call and ends with its body. It is current only while an attempt is being
sent or a line is being logged, never across a `yield`. Nothing here fails a call: what a tracer,
processor, reader or exporter raises is logged at DEBUG and forgotten. Without an OpenTelemetry SDK
none of it runs but the log lines.
"""

from __future__ import annotations

import functools
import logging
import re
import traceback
from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Concatenate, Final, NamedTuple, ParamSpec

from opentelemetry import context, metrics, propagate, trace
from opentelemetry._logs import LoggerProvider, get_logger_provider
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from cline_transport import _names as names
from cline_transport._enclosing import recorded_around
from cline_transport._events import Events, opted_in
from cline_transport._metrics import Metrics
from cline_transport._protocols import RequestHead
from cline_transport._redaction import redact
from cline_transport._version import __version__
from cline_transport.errors import ErrorInfo
from cline_transport.record import Attempt, CallRecord
from cline_transport.settings import TelemetrySettings
from cline_transport.wire import clip

__all__ = ["CallTelemetry", "Ending", "Telemetry", "error_type"]

logger: Final = logging.getLogger("cline_transport")

Attributes = Mapping[str, AttributeValue]

_P = ParamSpec("_P")
_LOW_CARDINALITY: Final = re.compile(r"[A-Za-z][A-Za-z_.\-]{0,63}")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_STACK: Final = 16 * 1024


def error_type(error: ErrorInfo) -> str:
    """`error.type`: the code, or `_OTHER` where a server's code is no identifier.

    Example:
        >>> error_type(ErrorInfo(code="rate_limit", message=""))
        'rate_limit'
    """
    if isinstance(error.code, int):
        return str(error.code) if 100 <= error.code <= 599 else "_OTHER"
    return error.code if _LOW_CARDINALITY.fullmatch(error.code) else "_OTHER"


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


def _records(provider: object) -> bool:
    """Whether a provider may record: those of the API itself do nothing, or stand for none yet."""
    module = type(provider).__module__
    return not module.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


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
        self._tracers = tracer_provider
        self._meters = meter_provider
        self._logs = logger_provider
        self._tracer = trace.get_tracer(names.SCOPE, __version__, tracer_provider, names.SCHEMA_URL)
        self.metrics = Metrics(meter_provider)
        self.events = Events(logger_provider)

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
        call = CallTelemetry(head)
        if not settings.enabled:
            return call
        tracing = _records(self._tracers or trace.get_tracer_provider())
        metering = _records(self._meters or metrics.get_meter_provider())
        if (tracing or metering) and is_instrumentation_enabled():
            try:
                chat = chat and settings.genai
                self._start(
                    call,
                    chat=chat,
                    model=model,
                    stream=stream,
                    tracing=tracing,
                    metering=metering,
                )
            except Exception:
                logger.debug("telemetry failed in start", exc_info=True)
        return call

    def _start(
        self,
        call: CallTelemetry,
        *,
        chat: bool,
        model: str | None,
        stream: bool | None,
        tracing: bool,
        metering: bool,
    ) -> None:
        head = call.head
        attributes = call.attributes = _server(head)
        call.reports = self
        name, kind, own = head.method, SpanKind.INTERNAL, dict(attributes)
        if chat:
            attributes[names.OPERATION_NAME] = names.CHAT
            attributes[names.PROVIDER_NAME] = _provider(head.host)
            if model is not None:
                attributes[names.REQUEST_MODEL] = model
            call.recorded = recorded_around(head, stream=stream)
            call.chat = True
            name = names.CHAT if model is None else f"{names.CHAT} {model}"
            own = dict(attributes)
            if stream is not None:
                own[names.REQUEST_STREAM] = stream
            if call.recorded is None:
                kind = SpanKind.CLIENT
            else:
                del own[names.OPERATION_NAME]  # theirs is the inference: it is counted by this
        call.metered = metering
        if tracing:
            call.span = self._tracer.start_span(name, kind=kind, attributes=own)

    @property
    def wants_events(self) -> bool:
        """Whether failures are to be told as log events."""
        provider = self._logs or get_logger_provider()
        return opted_in() and not type(provider).__module__.startswith("opentelemetry._logs")


def _server(head: RequestHead) -> dict[str, AttributeValue]:
    port = head.port or _DEFAULT_PORTS.get(head.scheme)
    attributes: dict[str, AttributeValue] = {names.SERVER_ADDRESS: head.host}
    if port is not None:
        attributes[names.SERVER_PORT] = port
    return attributes


def _provider(host: str) -> str:
    registered = ".".join(host.rsplit(".", 2)[-2:])
    return names.PROVIDERS.get(registered, host)


class CallTelemetry:
    """The telemetry of one call, as far as there is any.

    Attributes:
        head: The request.
        reports: The transport's telemetry; `None` where only lines are logged.
        span: The call's span.
        attributes: What identifies the call, on its metrics and its span.
        chat: Whether the GenAI conventions apply.
        recorded: The metrics that an instrumentation around the call records; `None` without one.
        metered: Whether metrics are recorded.
        retries: Attempts after the first.
        ended: Whether the call is over.
    """

    __slots__ = (
        "attributes",
        "chat",
        "ended",
        "head",
        "metered",
        "recorded",
        "reports",
        "retries",
        "span",
    )

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.reports: Telemetry | None = None
        self.span: Span = trace.INVALID_SPAN
        self.attributes: dict[str, AttributeValue] = {}
        self.chat = False
        self.recorded: frozenset[str] | None = None
        self.metered = False
        self.retries = 0
        self.ended = False

    @property
    def traced(self) -> bool:
        """Whether there is a trace at all: then attempts get HTTP spans and trace headers."""
        return self.span.get_span_context().is_valid

    @property
    def unrecorded(self) -> bool:
        """Whether nothing of the attempts would be recorded: neither spans nor metrics."""
        return not self.metered and not self.span.is_recording()

    @_harmless
    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Send the trace on with a request that has no HTTP span to do it."""
        if self.traced:
            propagate.inject(headers, trace.set_span_in_context(self.span))

    @contextmanager
    def current(self) -> Generator[None, None, None]:
        """Make the call's span the parent of what is started, or logged, within."""
        if not self.traced:
            yield
            return
        token = context.attach(trace.set_span_in_context(self.span))
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
        if span is self.span or not span.is_recording():
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
                extra=_fields(error),
            )

    @_harmless
    def on_retry(self, error: ErrorInfo) -> None:
        """An attempt after the first begins, because of this error."""
        self.retries += 1
        if self.reports is not None:
            self.reports.metrics.on_retry(self._failed(error), self._context())

    @_harmless
    def end(self, record: CallRecord, ending: Ending) -> None:
        """The call is over: describe it, set the status once, end the span once."""
        if self.ended:
            return
        self.ended = True
        error = record.error
        if error is not None:
            self._log_failure(record, error, ending.reason)
        if self.reports is None:
            return
        self._count(record, ending)
        if error is not None:
            self._tell_exception(error, ending.exception)
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
                extra=_fields(error),
            )

    @_harmless
    def _count(self, record: CallRecord, ending: Ending) -> None:
        if self.reports is None:
            return
        counted, where = self.reports.metrics, self._context()
        if record.error is not None and ending.reason == "throttled":
            counted.on_throttled(self._failed(record.error), where)
        if self.chat:
            attributes = dict(self.attributes)
            if record.response_model is not None:
                attributes[names.RESPONSE_MODEL] = record.response_model
            failed = _failure(record.error, ending)
            recorded = self.recorded or frozenset()
            counted.on_chat(
                record, attributes, failed, where, duration=ending.duration, recorded=recorded
            )

    @_harmless
    def _tell_exception(self, error: ErrorInfo, exception: BaseException | None) -> None:
        if self.reports is None or not self.reports.wants_events:
            return
        # An error status is no exception by the HTTP conventions; by those of GenAI it is.
        if exception is None and not self.chat:
            return
        attributes: dict[str, AttributeValue] = {
            **self._failed(error),
            names.EXCEPTION_MESSAGE: clip(error.message),
        }
        if exception is not None:
            kind = type(exception)
            stack = "".join(traceback.format_exception(exception))
            attributes[names.EXCEPTION_TYPE] = f"{kind.__module__}.{kind.__qualname__}"
            attributes[names.EXCEPTION_STACKTRACE] = redact(stack, self.head)[-_MAX_STACK:]
        name = names.CHAT_EXCEPTION if self.chat else names.HTTP_EXCEPTION
        self.reports.events.emit(name, attributes, self._context())

    @_harmless
    def _end_span(self, record: CallRecord, ending: Ending) -> None:
        span, error = self.span, record.error
        try:
            if span.is_recording():
                span.set_attributes(self._outcome(record, ending))
                if error is not None:
                    span.set_status(Status(StatusCode.ERROR, clip(error.message)))
                elif ending.cancelled is not None:
                    span.set_status(Status(StatusCode.ERROR, "cancelled"))
        finally:
            span.end()

    def _outcome(self, record: CallRecord, ending: Ending) -> dict[str, AttributeValue]:
        usage, error = record.usage, record.error
        values: dict[str, AttributeValue | None] = {
            names.USAGE_COST: usage.cost,
            names.REQUEST_ID: record.request_id,
            names.RETRY_COUNT: self.retries,
            names.STREAM_COMPLETED: record.completed if ending.stream else None,
            names.STREAM_INSPECTED: None if ending.inspected else False,
            **_failure(error, ending),
        }
        if self.chat:
            values |= {
                names.RESPONSE_ID: record.response_id,
                names.RESPONSE_MODEL: record.response_model,
                names.FINISH_REASONS: [record.finish_reason] if record.finish_reason else None,
                names.TIME_TO_FIRST_CHUNK: record.time_to_first_chunk,
            }
        if self.chat and self.recorded is None:  # else the tokens stand on the span around
            values |= {
                names.INPUT_TOKENS: usage.input_tokens,
                names.OUTPUT_TOKENS: usage.output_tokens,
                names.CACHED_TOKENS: usage.cached_tokens,
            }
        if error is not None:
            values[names.ERROR_CODE] = str(error.code)
            values[names.ERROR_MESSAGE] = clip(error.message)
            values[names.ERROR_PHASE] = error.phase
        return {name: value for name, value in values.items() if value is not None}

    def _context(self) -> context.Context:
        return trace.set_span_in_context(self.span) if self.traced else context.get_current()

    def _failed(self, error: ErrorInfo) -> dict[str, AttributeValue]:
        return {**self.attributes, names.ERROR_TYPE: error_type(error)}


def _failure(error: ErrorInfo | None, ending: Ending) -> dict[str, str]:
    """`error.type`, the same on span and metric; nothing for a call that did not fail."""
    if error is not None:
        return {names.ERROR_TYPE: error_type(error)}
    return {} if ending.cancelled is None else {names.ERROR_TYPE: ending.cancelled}


def _fields(error: ErrorInfo) -> dict[str, str]:
    """A log line's attributes, for handlers that export them."""
    fields = {names.ERROR_TYPE: error_type(error), names.ERROR_CODE: str(error.code)}
    if error.request_id is not None:
        fields[names.REQUEST_ID] = error.request_id
    return fields
