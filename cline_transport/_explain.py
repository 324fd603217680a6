# SPDX-License-Identifier: Apache-2.0
"""What an attempt failed with, as an `ErrorInfo`: without secrets, with what the call knows."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Final

from cline_transport._protocols import RequestHead, ResponseHead
from cline_transport._redaction import redact
from cline_transport.errors import ErrorInfo, connection_error
from cline_transport.limits import Reason
from cline_transport.wire import (
    KNOWN_CODES,
    Code,
    WireError,
    clip,
    code_of,
    describe,
    is_transient,
)

__all__ = ["Explainer"]

_MAX_REDACTED: Final = 64 * 1024
"""Characters of a message that are searched for each text of the request."""

_WHY: Final[dict[Reason, str]] = {
    "cooldown": "the API asked to wait",
    "pace": "the rate limit that is set is reached",
    "concurrency": "as many calls as may be are under way",
}


class Explainer:
    """Makes the `ErrorInfo` of one call's failures.

    Args:
        head: The request.
        rules: The codes that are configured: ruled on by their names, and so no secrets.
        model: The model that the request asks for.
    """

    __slots__ = ("_head", "_model", "_rules")

    def __init__(self, head: RequestHead, rules: Container[Code], model: str | None) -> None:
        self._head = head
        self._rules = rules
        self._model = model

    def of_response(
        self, found: WireError, head: ResponseHead, status: int, attempts: int
    ) -> ErrorInfo:
        """An error in a response, which is delivered under `status`."""
        code = code_of(found)
        error = ErrorInfo(
            code=code,
            message=found.message,
            metadata=found.metadata,
            status_code=status,
            request_id=self.request_id(head),
            retryable=is_transient(code, head.status_code),
        )
        return self._explained(error, attempts)

    def of_stream(self, found: WireError, attempts: int) -> ErrorInfo:
        """An error in a stream."""
        code = code_of(found)
        error = ErrorInfo(
            code=code,
            message=found.message,
            metadata=found.metadata,
            phase="mid_stream",
            retryable=is_transient(code, None),
        )
        return self._explained(error, attempts)

    def of_exception(self, exc: BaseException, attempts: int) -> ErrorInfo:
        """An exception of the wire."""
        return self._explained(connection_error(exc), attempts)

    def of_limit(self, reason: Reason | None, attempts: int, last: ErrorInfo | None) -> ErrorInfo:
        """A call that limits held back past its deadline; `last`: its last attempt's error."""
        why = _WHY[reason or "concurrency"]
        before = "" if last is None else f"; the last attempt failed with {last.code}"
        error = ErrorInfo(
            code="limit_timeout",
            message=f"Not sent before the call's deadline: {why}{before}",
            metadata={} if reason is None else {"limit": reason},
            status_code=429,
            phase="connection",
        )
        return self._explained(error, attempts)

    def request_id(self, head: ResponseHead) -> str | None:
        """A response's `x-request-id`, as it may be told."""
        given = head.headers.get("x-request-id")
        if given is None or (len(given) <= 128 and given.isprintable() and not self._tells(given)):
            return given
        return clip(redact(given, self._head), 256)

    def _explained(self, error: ErrorInfo, attempts: int) -> ErrorInfo:
        code = error.code
        if isinstance(code, str) and not self._is_known(error):
            code = clip(redact(code, self._head), 64)
        return replace(
            error,
            code=code,
            message=self._message(error),
            model=self._model,
            attempts=attempts,
        )

    def _message(self, error: ErrorInfo) -> str:
        if len(error.message) > _MAX_REDACTED:
            return f"{describe(error.code, error.status_code)} (with a message too long to be told)"
        return redact(error.message, self._head)

    def _is_known(self, error: ErrorInfo) -> bool:
        """Whether a code is documented, ours or configured: no secret, and ruled on by its name."""
        known = error.code in KNOWN_CODES or error.code in self._rules
        return known or error.phase == "connection"

    def _tells(self, text: str) -> bool:
        """Whether a short text could hold the key: one look, as each answer has such a text."""
        for name in ("authorization", "x-api-key"):
            key = self._head.headers.get(name)
            if key and key[-7:] in text:
                return True
        return False
