# SPDX-License-Identifier: Apache-2.0
"""What is said of settings that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cline_transport import Settings, SettingsError

KEY = "sk-abcdefghijklmnopqrstuvwx"
HOSTS = "must be host names, such as 'api.cline.bot', '*.example.com' or 'localhost:8080'"


def message(make: Callable[..., object] = Settings, **arguments: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        make(**arguments)
    assert caught.value.__cause__ is None
    assert str(caught.value) == "; ".join(map(str, caught.value.problems))
    return str(caught.value)


def unreadable(path: Path, rule: str) -> str:
    return f"CLINE_TRANSPORT_CONFIG must name a {rule} (got {str(path)!r}, from the environment)"
