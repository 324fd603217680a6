# SPDX-License-Identifier: Apache-2.0
"""The log event of a call that failed, for those who opted in to exceptions as logs.

OpenTelemetry is moving exceptions from span events to logs; `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`
is the switch of that move (semantic conventions, "Exceptions"). Span events were never recorded
here, so `logs` and `logs/dup` mean the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue

from cline_transport import _names as names
from cline_transport._version import __version__

__all__ = ["Events", "opted_in"]

_OPT_IN: Final = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"


def opted_in() -> bool:
    """Whether exceptions are wanted as logs; read for each failure, so it can be set late."""
    return os.environ.get(_OPT_IN, "").strip().lower() in ("logs", "logs/dup")


class Events:
    """The logger of one transport's events.

    Args:
        logger_provider: Where they go; the global provider by default.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger_provider: LoggerProvider | None = None) -> None:
        self._logger = get_logger(names.SCOPE, __version__, logger_provider, names.SCHEMA_URL)

    def emit(self, name: str, attributes: Mapping[str, AttributeValue], context: Context) -> None:
        """Emit one event, at WARN as the conventions have it, in the context of the call's span."""
        record = LogRecord(
            event_name=name,
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            attributes=attributes,
            context=context,
        )
        self._logger.emit(record)
