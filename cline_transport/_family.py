# SPDX-License-Identifier: Apache-2.0
"""What a family's page tells the loops of its library."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, TypeVar

from cline_transport._protocols import RequestLike, ResponseLike
from cline_transport.errors import ErrorInfo

__all__ = ["Family", "check_transport", "follow_alias", "network_stream", "shallow"]

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)


class Family(Protocol[RequestT, ResponseT]):
    """What a family's page tells the loops of its library."""

    @property
    def name(self) -> str:
        """`httpx` or `httpx2`."""
        ...

    @property
    def transport_error(self) -> type[Exception]:
        """The base of what the wire raises."""
        ...

    @property
    def decoding_error(self) -> type[Exception]:
        """What the library raises where a body is not what its encoding says."""
        ...

    def attempt_request(
        self, request: RequestT, extensions: dict[str, Any], body: bytes | None
    ) -> RequestT:
        """The request with other extensions, and another body where one is given."""
        ...

    def body_of(self, request: RequestT) -> bytes | None:
        """The body, where it can be sent twice."""
        ...

    def decoder(self, encoding: str) -> Any:
        """The library's own decoder for a content encoding."""
        ...

    def edit(
        self,
        response: ResponseT,
        status: int,
        headers: list[tuple[bytes, bytes]] | None,
        stream: Any,
    ) -> ResponseT:
        """The response with another status, stream, and headers (`None`: its own)."""
        ...

    def response(self, status: int) -> ResponseT:
        """An empty response, where none came."""
        ...

    def byte_stream(self, body: bytes) -> Any:
        """A stream of this body, sync and async."""
        ...

    def stream_error(self, info: ErrorInfo) -> Exception:
        """The family's `StreamError`."""
        ...


def check_transport(
    transport: object, wanted: type, other_colour: type, *, family: str, use: str
) -> None:
    """Refuse a transport of another family or colour.

    Raises:
        TypeError: It names the rule, what was given and which class to use.
    """
    if isinstance(transport, wanted):
        return
    module = type(transport).__module__.partition(".")[0]
    given = f"{module}.{type(transport).__name__}"
    if isinstance(transport, other_colour):
        is_async = wanted.__name__.startswith("Async")
        hint = f"it is {'synchronous' if is_async else 'asynchronous'}: use {use}"
    else:
        hint = "cline_transport.httpx is for httpx, cline_transport.httpx2 for httpx2"
    # Not the class's own __module__: openai writes its name into what it exports of its library.
    raise TypeError(
        f"transport must be an instance of {family}.{wanted.__name__} (got {given}; {hint})"
    )


def follow_alias(page: str, library: str) -> None:
    """Where `httpx2.alias_httpx()` has made one library of the two, make one page of theirs.

    Else there would be two sets of classes for one library: a transport of the one page would not
    be known as ours where the other's is looked for, nor would its `StreamError` be caught.

    Args:
        page: The page's module, which is being loaded.
        library: The name that the library which it imported gives itself.
    """
    package, _, family = page.rpartition(".")
    if library != family:
        sys.modules[page] = import_module(f"{package}.{library}")


def network_stream(extensions: Mapping[str, Any]) -> Any:
    """The connection of an HTTP/1.1 response, where its transport shows it; else `None`."""
    if extensions.get("http_version") != b"HTTP/1.1":
        return None
    return extensions.get("network_stream")


MessageT = TypeVar("MessageT")


def shallow(message: MessageT) -> MessageT:
    """A request or response with the same attributes, which can then be set without touching it.

    Much cheaper than to make one anew, which would parse what is parsed already.
    """
    copied = object.__new__(type(message))
    vars(copied).update(vars(message))
    return copied
