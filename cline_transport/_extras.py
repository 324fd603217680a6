# SPDX-License-Identifier: Apache-2.0
"""What is optional: the extra that brings a package, and how its absence is told."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["EXTRAS", "absent", "command_for"]

EXTRAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "backports.zstd": "zstd",
        "brotli": "brotli",
        "h11": "simulator",
        "h2": "http2",
        "httpx2": "httpx2",
        "limits": "redis",
        "openai": "openai",
        "opentelemetry.sdk": "demo",
        "redis": "redis",
        "rich": "demo",
        "valkey": "valkey",
    }
)
"""The extra of each package that is imported where it is needed, by the name of its module."""

_SINCE: Final[Mapping[str, tuple[int, int]]] = MappingProxyType({"httpx2": (3, 11)})
"""The Python that a package needs, where it is newer than ours."""


def command_for(package: str) -> str:
    """What to type to get a package: the extra that brings it, or else the package itself."""
    extra = EXTRAS.get(package)
    wanted = package if extra is None else f"cline-transport[{extra}]"
    return f"pip install '{wanted}'"


def absent(package: str, user: str, because: ImportError | None = None) -> ModuleNotFoundError:
    """The error to raise where a package cannot be imported.

    Args:
        package: The module that was to be imported.
        user: What needs it.
        because: What its import raised: perhaps it is there, and lacks something itself.

    Example:
        >>> str(absent("h2", "the simulator"))
        "the simulator needs the package 'h2': pip install 'cline-transport[http2]'"
    """
    missing = package if because is None or because.name is None else because.name
    since = _SINCE.get(package, (3, 10))
    if missing.partition(".")[0] != package.partition(".")[0]:
        said = f"{user} cannot import {package!r}: {because}"
    elif sys.version_info < since:
        said = f"{user} needs the package {package!r}, and that Python {since[0]}.{since[1]}"
    else:
        said = f"{user} needs the package {package!r}: {command_for(package)}"
    return ModuleNotFoundError(said, name=missing)
