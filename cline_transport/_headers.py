# SPDX-License-Identifier: Apache-2.0
"""A message's headers as the core looks at them: few of them, by names in lower case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LowerHeaders"]


class LowerHeaders(Mapping[str, str]):
    """The headers of a request or response of either family, looked up in lower case.

    The libraries' own decode all of them and look through them for each name.

    Args:
        headers: The library's.

    Example:
        ```python
        LowerHeaders(response.headers).get("x-request-id")
        ```
    """

    __slots__ = ("_headers", "_values")

    def __init__(self, headers: Any) -> None:
        self._headers = headers
        self._values: dict[bytes, bytes] | None = None

    def _read(self) -> dict[bytes, bytes]:
        raw: list[tuple[bytes, bytes]] = self._headers.raw
        values = {name.lower(): value for name, value in raw}
        if len(values) < len(raw):  # RFC 9110, section 5.3: one of several lines is their list
            values.clear()
            for key, value in raw:
                name = key.lower()
                values[name] = values[name] + b", " + value if name in values else value
        self._values = values
        return values

    def __getitem__(self, name: str) -> str:
        return _text((self._values or self._read())[name.encode()])

    def get(self, name: str, default: Any = None, /) -> Any:
        """A header's value; without the exception that a missing one costs."""
        value = (self._values or self._read()).get(name.encode())
        return default if value is None else _text(value)

    def __iter__(self) -> Iterator[str]:
        return map(_text, self._values or self._read())

    def __len__(self) -> int:
        return len(self._values or self._read())


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
