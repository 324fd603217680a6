# SPDX-License-Identifier: Apache-2.0
"""What the core needs of a request, a response and a family: structure, no import of a client."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

__all__ = [
    "DEFAULT_PORTS",
    "FAMILIES",
    "Clock",
    "RequestHead",
    "RequestLike",
    "ResponseHead",
    "ResponseLike",
]

FAMILIES: Final = ("httpx", "httpx2")
"""The client libraries that there are transports for."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class UrlLike(Protocol):
    """The URL of either family."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> bytes: ...


class RequestLike(Protocol):
    """The request of either family."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> UrlLike: ...
    @property
    def headers(self) -> Any: ...
    @property
    def extensions(self) -> Any: ...


class ResponseLike(Protocol):
    """The response of either family."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    @property
    def stream(self) -> Any: ...
    @property
    def extensions(self) -> Any: ...


class RequestHead(NamedTuple):
    """A request as the core sees it. `body` is `None` where it cannot be sent twice."""

    method: str
    scheme: str
    host: str
    port: int | None
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None
    query: bytes = b""


class ResponseHead(NamedTuple):
    """A response's status and headers (looked up in lower case)."""

    status_code: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the loops take time and chance from: injected, so that tests own both.

    Attributes:
        monotonic: Seconds that never go back, for waits and deadlines.
        time: Seconds since the epoch, for HTTP dates.
        random: A number in [0, 1), for jitter.
    """

    monotonic: Callable[[], float] = time.monotonic
    time: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
