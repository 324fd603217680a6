# SPDX-License-Identifier: Apache-2.0
"""Calls to the Cline API that survive and can be explained: a transport for httpx and httpx2.

Example:
    ```python
    from openai import OpenAI
    from cline_transport.openai import http_client

    client = OpenAI(base_url="https://api.cline.bot/api/v1", http_client=http_client())
    ```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cline_transport._version import __version__

if TYPE_CHECKING:
    from cline_transport._attach import attach, detach
    from cline_transport._overrides import override
    from cline_transport._settings_errors import SettingsError
    from cline_transport.errors import ErrorInfo, error_info
    from cline_transport.httpx import AsyncClineTransport, ClineTransport
    from cline_transport.limits import LimitSettings
    from cline_transport.record import Attempt, CallRecord, call_record
    from cline_transport.retry import DEFAULT_RULES, RetryPolicy, RetryRule
    from cline_transport.settings import ErrorSettings, Settings, StreamSettings, TelemetrySettings

__all__ = [
    "DEFAULT_RULES",
    "AsyncClineTransport",
    "Attempt",
    "CallRecord",
    "ClineTransport",
    "ErrorInfo",
    "ErrorSettings",
    "LimitSettings",
    "RetryPolicy",
    "RetryRule",
    "Settings",
    "SettingsError",
    "StreamSettings",
    "TelemetrySettings",
    "__version__",
    "attach",
    "call_record",
    "detach",
    "error_info",
    "override",
]

# Loaded when asked for: importing the package loads neither a client library nor pydantic.
_HOME = {
    "DEFAULT_RULES": "retry",
    "AsyncClineTransport": "httpx",
    "Attempt": "record",
    "CallRecord": "record",
    "ClineTransport": "httpx",
    "ErrorInfo": "errors",
    "ErrorSettings": "settings",
    "LimitSettings": "limits",
    "RetryPolicy": "retry",
    "RetryRule": "retry",
    "Settings": "settings",
    "SettingsError": "_settings_errors",
    "StreamSettings": "settings",
    "TelemetrySettings": "settings",
    "attach": "_attach",
    "call_record": "record",
    "detach": "_attach",
    "error_info": "errors",
    "override": "_overrides",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
