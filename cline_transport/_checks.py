# SPDX-License-Identifier: Apache-2.0
"""What a policy checks when it is made; each message gives the setting, the rule and the value.

A URL is shown without what could be a password.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

__all__ = [
    "FORBID_UNKNOWN",
    "HIDDEN",
    "check_bytes",
    "check_choice",
    "check_flags",
    "check_number",
    "shown_url",
]

FORBID_UNKNOWN: Final[Mapping[str, str]] = {"extra": "forbid"}
"""Pydantic's configuration of a policy that `Settings` reads: a misspelt name is an error."""


def check_number(
    owner: str, name: str, value: object, *, least: float, most: float = math.inf
) -> None:
    """Refuse what is no number, or out of range; the message gives the rule and the value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        allowed = f">= {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise ValueError(f"{owner}.{name} must be a number {allowed} (got {value!r})")


def check_flags(owner: object, *names: str) -> None:
    """Refuse what is neither `True` nor `False`."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, bool):
            raise ValueError(f"{type(owner).__name__}.{name} must be True or False (got {value!r})")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse what is none of these."""
    if value not in allowed:
        *most, last = map(repr, allowed)
        raise ValueError(f"{name} must be {', '.join(most)} or {last} (got {value!r})")


def check_bytes(name: str, value: object) -> None:
    """Refuse what is no number of bytes."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number of bytes >= 1 (got {value!r})")


HIDDEN: Final = "[redacted]"
"""What stands for a secret."""


def shown_url(url: str) -> str:
    """A URL without what could be a password, wherever in it; any other text as it is.

    Examples:
        >>> shown_url("redis://me:1234@host:6379/0?password=1234")
        'redis://[redacted]@host:6379/0?password=[redacted]'
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    before, mark, query = rest.partition("?")
    _, at, host = before.rpartition("@")
    if "@" in query or "#" in host + query:  # where a password begins and ends is a guess
        return f"{scheme}{separator}{HIDDEN}"
    values = re.sub(r"(?<==)[^&]+|(?<![^&])[^&=]+(?![^&])", HIDDEN, query)
    return f"{scheme}{separator}{HIDDEN if at else ''}{at}{host}{mark}{values}"
