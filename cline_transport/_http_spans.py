# SPDX-License-Identifier: Apache-2.0
"""The HTTP span of each attempt: made by opentelemetry-instrumentation-httpx, never doubled.

Three ways in, decided anew for each attempt, so the order in which things are loaded is of no
account:

* The application has instrumented the transport beneath (globally, or its client, before or after):
  its own wrapper is called, with its tracer and hooks, around our part of the attempt.
* The transport beneath is one of OpenTelemetry's: a copy of it is used, around our part.
* Neither: a transport of OpenTelemetry's is put around our part.

"Our part" runs beneath the HTTP span. It reads an error's body there, so the span can say what the
body says before it ends with the headers. What lies further down makes no HTTP span of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import Any, Final

from opentelemetry.instrumentation.utils import unwrap
from wrapt import FunctionWrapper  # what opentelemetry-instrumentation patches with

from cline_transport._family import shallow
from cline_transport._redaction import HEADER_PATTERNS, hide_query

__all__ = ["AttemptSpans", "AttemptView", "Instrumentable", "link", "unlink"]

_INSTRUMENTATION: Final = "opentelemetry.instrumentation.httpx"
_TRANSPORTS: Final = {
    ("httpx", "handle_request"): "SyncOpenTelemetryTransport",
    ("httpx", "handle_async_request"): "AsyncOpenTelemetryTransport",
    ("httpx2", "handle_request"): "SyncOpenTelemetryTransportHttpx2",
    ("httpx2", "handle_async_request"): "AsyncOpenTelemetryTransportHttpx2",
}

_METHODS: Final = ("handle_request", "handle_async_request")
# wrapt keeps attributes of this prefix on the proxy itself.
_ADOPTED: Final = "_self_cline_adopted"
_BENEATH: Final = "_self_cline_beneath"

Send = Callable[[Any], Any]
"""`handle_request` of a transport, or `handle_async_request`, which returns an awaitable."""

AttemptHandler = Callable[[Send, Any], Any]
"""Our part of an attempt: given the transport's own `Send` and the request, the response."""


class AttemptSpans:
    """Puts an HTTP span around each attempt of one transport.

    Args:
        family: `httpx` or `httpx2`.
        method: `handle_request` or `handle_async_request`.
        transport: The transport beneath.
        exchange: What runs beneath the span.
        tracer_provider: Where spans go that no application's instrumentation makes.
        meter_provider: The same for its metrics.
    """

    __slots__ = (
        "_exchange", "_family", "_own", "_own_reads", "_providers", "_transport", "above", "method",
    )  # fmt: skip

    def __init__(
        self,
        family: str,
        method: str,
        transport: object,
        exchange: AttemptHandler,
        *,
        tracer_provider: Any = None,
        meter_provider: Any = None,
    ) -> None:
        self._family = family
        self.method = method
        self._transport = transport
        self._exchange = exchange
        self._providers = (tracer_provider, meter_provider)
        self._own: Send | None = None
        self._own_reads = True
        self.above: dict[str, Any] = {}
        """The attributes of our own transport, which `instrument_client()` patches."""

    @property
    def adopted(self) -> Callable[..., Any] | None:
        """The wrapper that `instrument_client()` meant for our own transport."""
        patch = self.above.get(self.method)
        while patch is not None:
            wrapper: Callable[..., Any] | None = getattr(patch, _ADOPTED, None)
            if wrapper is not None:
                return wrapper
            patch = getattr(patch, "__wrapped__", None)
        return None

    @property
    def instrumented(self) -> bool:
        """Whether the application makes the HTTP spans."""
        if self.adopted is not None or type(self._transport).__module__ == _INSTRUMENTATION:
            return True
        return _application_wrapper(getattr(self._transport, self.method)) is not None

    @property
    def send(self) -> Send:
        """Send one request in a span of its own."""
        beneath: Any = getattr(self._transport, self.method)
        application = self.adopted
        if application is None:
            application = _application_wrapper(beneath)
            if application is None:
                if self._own is None:
                    self._own = self._make()
                return self._own
            beneath = beneath.__wrapped__
        return self._wrapped(_redacting(application), partial(self._exchange, beneath))

    @property
    def reads_headers(self) -> bool:
        """Whether an HTTP span, or a hook, may look at headers: one of ours only where asked."""
        return self._own_reads or self.instrumented

    @property
    def plain(self) -> Send:
        """Send one request as if we were not there."""
        beneath: Send = getattr(self._transport, self.method)
        application = self.adopted
        return beneath if application is None else self._wrapped(application, beneath)

    def _wrapped(self, application: Callable[..., Any], send: Send) -> Send:
        return lambda request: application(send, self._transport, (request,), {})

    def _make(self) -> Send:
        # Loaded late: it imports every family that is installed.
        from opentelemetry.instrumentation import httpx as instrumentation  # noqa: PLC0415

        wrapper: Any = getattr(instrumentation, _TRANSPORTS[self._family, self.method])
        transport: Any = self._transport
        # A method of the instance's own (somebody's patch) is bound to the original, not to a copy.
        theirs = isinstance(transport, wrapper) and self.method not in vars(transport)
        send: Send = getattr(transport._transport if theirs else transport, self.method)
        beneath = _Beneath(self.method, partial(self._exchange, send))
        if theirs:
            spans: Any = copy.copy(transport)
            spans._transport = beneath
        else:
            spans = wrapper(beneath, *self._providers)
            captured = ("_captured_request_headers", "_captured_response_headers")
            self._own_reads = any(getattr(spans, name, True) for name in captured)
        spans._sensitive_headers = _sensitive(getattr(spans, "_sensitive_headers", None))
        traced: Send = getattr(spans, self.method)
        return traced


class AttemptView:
    """What the HTTP span of an attempt gets to see of it, while it looks.

    A URL without the values of its query. And no headers where it has no use for them:
    OpenTelemetry's instrumentation takes all of them apart before it asks whether any is wanted,
    at a cost of a tenth of a call.

    Args:
        request: The attempt's.
        headers: Whether its headers are shown.
    """

    __slots__ = ("_request_headers", "_url")

    def __init__(self, request: Any, *, headers: bool) -> None:
        url = self._url = request.url
        if url.query or url.fragment:
            request.url = url.copy_with(query=hide_query(url.query) or None, fragment=None)
        self._request_headers = None if headers else request.headers
        if not headers:
            request.headers = type(request.headers)()

    def lift(self, request: Any) -> None:
        """Beneath the span: give the request its own back, with the headers of the trace."""
        request.url = self._url
        if self._request_headers is not None:
            added, request.headers = request.headers, self._request_headers
            for name, value in added.raw:
                request.headers[name.decode()] = value.decode()

    def lower(self, response: Any) -> Any:
        """What the span sees in the place of the response."""
        if self._request_headers is None:
            return response
        shown = shallow(response)
        shown.headers = type(response.headers)()
        return shown


def _redacting(application: Callable[..., Any]) -> Callable[..., Any]:
    """An application's wrapper, with our list of headers that are not to be told added to its own.

    Which headers are captured stays as it was set.
    """
    options: dict[str, Any] = getattr(application, "keywords", {})
    return partial(application, sensitive_headers=_sensitive(options.get("sensitive_headers")))


def _sensitive(given: Sequence[str] | None) -> list[str]:
    return [*(given or ()), *HEADER_PATTERNS]


class _Beneath:
    """The transport that OpenTelemetry's one calls."""

    def __init__(self, method: str, send: Send) -> None:
        setattr(self, method, send)


def _application_wrapper(send: object) -> Callable[..., Any] | None:
    """OpenTelemetry's wrapper around a transport's method, where an application has put one."""
    if type(send) is MethodType:  # wrapt's pass for one by `isinstance`
        return None
    wrapper: Any = getattr(send, "_self_wrapper", None)  # wrapt's name for it
    function = getattr(wrapper, "func", None)
    return wrapper if getattr(function, "__module__", None) == _INSTRUMENTATION else None


class Instrumentable:
    """Makes `instrument_client()` of OpenTelemetry reach the attempts instead of the call.

    It replaces `handle_request` of the client's transport, which is ours: the span would be around
    the call. The wrapper is taken over for the attempts, and given back to `uninstrument_client()`.
    """

    _spans: AttemptSpans

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _METHODS:
            wrapper = _application_wrapper(value)
            if wrapper is not None:
                value = FunctionWrapper(value.__wrapped__, _call_through)
                setattr(value, _ADOPTED, wrapper)
            elif hasattr(self.__dict__.get(name), _BENEATH):
                # uninstrument_client(), of a client that was instrumented before attach().
                unwrap(getattr(self.__dict__[name], _BENEATH), name)
        object.__setattr__(self, name, value)


def link(client_transport: object, ours: Instrumentable) -> None:
    """Let `uninstrument_client()` find what `instrument_client()` put on the transport beneath.

    It looks at the client's transport, which is ours now.
    """
    for method in _METHODS:
        patched = getattr(client_transport, "__dict__", {}).get(method)
        if _application_wrapper(patched) is not None and hasattr(ours, method):
            stand_in = FunctionWrapper(getattr(ours, method), _call_through)
            setattr(stand_in, _BENEATH, client_transport)
            object.__setattr__(ours, method, stand_in)


def unlink(ours: Any) -> Any:
    """The transport beneath, with what `instrument_client()` put on ours since."""
    beneath = ours._transport
    application = ours._spans.adopted
    if application is not None:
        method = ours._spans.method
        setattr(beneath, method, FunctionWrapper(getattr(beneath, method), application))
    return beneath


def _call_through(wrapped: Callable[..., Any], _instance: object, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)
