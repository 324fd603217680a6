# SPDX-License-Identifier: Apache-2.0
"""The transports for httpx. `cline_transport.httpx2` is the same page for httpx2."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from typing_extensions import Self

from cline_transport._async import AsyncBody, AsyncLoop
from cline_transport._extras import absent
from cline_transport._family import check_transport, follow_alias, shallow
from cline_transport._http_spans import Instrumentable
from cline_transport._sync import SyncBody, SyncLoop
from cline_transport.errors import ErrorInfo
from cline_transport.settings import Settings

try:
    import httpx
except ImportError as error:
    raise absent("httpx", __name__, error) from error

__all__ = ["AsyncClineTransport", "ClineTransport", "StreamError"]


class StreamError(httpx.TransportError):
    """An error inside a 200 stream, raised from the body iterator under `stream.on_error="raise"`.

    Attributes:
        info: The `ErrorInfo`.
    """

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(f"{info.code}: {info.message}")
        self.info = info

    def __reduce__(self) -> tuple[type[StreamError], tuple[ErrorInfo]]:
        return type(self), (self.info,)


class _Body(SyncBody, httpx.SyncByteStream): ...


class _AsyncBody(AsyncBody, httpx.AsyncByteStream): ...


class _Family:
    name = "httpx"
    transport_error: type[Exception] = httpx.TransportError
    decoding_error: type[Exception] = httpx.DecodingError

    def attempt_request(
        self, request: httpx.Request, extensions: dict[str, Any], body: bytes | None
    ) -> httpx.Request:
        attempt = shallow(request)
        vars(attempt).pop("_content", None)  # somebody may have put another stream in its place
        attempt.headers = httpx.Headers(request.headers)
        attempt.extensions = extensions
        if body is not None:
            attempt.headers["content-length"] = str(len(body))
            attempt.stream = httpx.ByteStream(body)
        return attempt

    def body_of(self, request: httpx.Request) -> bytes | None:
        return request.read() if isinstance(request.stream, httpx.ByteStream) else None

    def decoder(self, encoding: str) -> Any:
        response = httpx.Response(200, headers={"content-encoding": encoding})
        return response._get_content_decoder()  # the one that the client would use

    def edit(
        self,
        response: httpx.Response,
        status: int,
        headers: list[tuple[bytes, bytes]] | None,
        stream: Any,
    ) -> httpx.Response:
        if response.is_closed:  # read already, as a mock's is: nobody would read it again
            return httpx.Response(
                status,
                headers=response.headers if headers is None else headers,
                stream=stream,
                extensions=response.extensions,
            )
        # Not the response itself: the stream beneath may refer to it, and would then to ours too.
        edited = shallow(response)
        if response.status_code != status:
            edited.extensions.pop("reason_phrase", None)  # it is the other status's
            edited.status_code = status
        if headers is not None:
            edited.headers = httpx.Headers(headers)
        edited.stream = stream
        return edited

    def response(self, status: int) -> httpx.Response:
        return httpx.Response(status, headers={}, stream=self.byte_stream(b""))

    def byte_stream(self, body: bytes) -> httpx.ByteStream:
        return httpx.ByteStream(body)

    def stream_error(self, info: ErrorInfo) -> StreamError:
        return StreamError(info)


class ClineTransport(Instrumentable, httpx.BaseTransport):
    """A transport that retries, normalises and traces what passes through the one beneath.

    Args:
        transport: The transport beneath; a plain `httpx.HTTPTransport` by default. It is closed
            with this one.
        settings: The policies; read from the environment by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: The same for metrics.
        logger_provider: The same for log events.

    Raises:
        TypeError: `transport` is of another family or colour.
        SettingsError: A setting from the environment or the file is wrong.

    Example:
        ```python
        client = httpx.Client(transport=ClineTransport(httpx.HTTPTransport(http2=True)))
        ```

    A client made with `transport=` ignores environment proxies, `verify`, `http2` and `limits`:
    give those to the transport beneath, or use `cline_transport.attach(client)`.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        *,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        inner = httpx.HTTPTransport() if transport is None else transport
        check_transport(
            inner,
            httpx.BaseTransport,
            httpx.AsyncBaseTransport,
            family="httpx",
            use="AsyncClineTransport",
        )
        self._transport = inner
        self._loop = SyncLoop(
            _Family(),
            inner,
            _Body,
            settings=settings,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
        )
        self._spans = self._loop.spans
        self._spans.above = self.__dict__

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and again where the policy says so.

        Raises:
            httpx.TransportError: What the transport beneath raised, once retries are spent.
        """
        return self._loop.handle(request)

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """Close the transport beneath."""
        self._transport.close()


class AsyncClineTransport(Instrumentable, httpx.AsyncBaseTransport):
    """`ClineTransport` for asynchronous clients, on asyncio and trio.

    Args:
        transport: The transport beneath; a plain `httpx.AsyncHTTPTransport` by default. It is
            closed with this one.
        settings: The policies; read from the environment by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: The same for metrics.
        logger_provider: The same for log events.

    Raises:
        TypeError: `transport` is of another family or colour.
        SettingsError: A setting from the environment or the file is wrong.

    Example:
        ```python
        client = httpx.AsyncClient(transport=AsyncClineTransport())
        ```
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        inner = httpx.AsyncHTTPTransport() if transport is None else transport
        check_transport(
            inner,
            httpx.AsyncBaseTransport,
            httpx.BaseTransport,
            family="httpx",
            use="ClineTransport",
        )
        self._transport = inner
        self._loop = AsyncLoop(
            _Family(),
            inner,
            _AsyncBody,
            settings=settings,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
        )
        self._spans = self._loop.spans
        self._spans.above = self.__dict__

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and again where the policy says so.

        Raises:
            httpx.TransportError: What the transport beneath raised, once retries are spent.
        """
        return await self._loop.handle(request)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the transport beneath."""
        await self._transport.aclose()


follow_alias(__name__, httpx.__name__)
