# SPDX-License-Identifier: Apache-2.0
"""The stations of the tour: what the API does, and how the call has to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import openai

from cline_transport.simulator import Gate, Reply

__all__ = ["SCENARIOS", "Expected", "Scenario"]

Way = Literal["complete", "stream", "stream_async"]

_SENTENCE: Final = "Hello there from the simulator."
_PAGE: Final = (
    "<!DOCTYPE html><html><head><title>Access denied by proxy</title></head>"
    "<body><h1>Access denied by proxy</h1></body></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How a scenario has to end.

    Attributes:
        text: What the application has received, also before an error.
        error: The exact class that is raised; `None` for none.
        code: The error's code.
        attempts: Requests on the wire, all layers together.
    """

    text: str = ""
    error: type[Exception] | None = None
    code: int | str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One station of the tour.

    Attributes:
        title: What happens, in a line.
        point: Why it is worth a look, in a line.
        way: How the application calls.
        expected: How it has to end.
        replies: What the simulator answers; the gate holds the last stream's events back.
        wrong_key: Whether the client has a key that the API does not know.
    """

    title: str
    point: str
    way: Way
    expected: Expected
    replies: Callable[[Gate], tuple[Reply, ...]] = lambda _: ()
    wrong_key: bool = False


SCENARIOS: Final = (
    Scenario(
        title="A stream that goes well",
        point="The call's span ends with the stream, the HTTP span beneath it with the headers.",
        way="stream",
        replies=lambda gate: (Reply.stream(_SENTENCE, gate=gate),),
        expected=Expected(text=_SENTENCE),
    ),
    Scenario(
        title="A completion that goes well",
        point="The same without a stream: one JSON document.",
        way="complete",
        replies=lambda _: (Reply.completion(_SENTENCE),),
        expected=Expected(text=_SENTENCE),
    ),
    Scenario(
        title="429 with Retry-After: 2, then good",
        point="The server's wait wins over the documented second; the application sees the answer.",
        way="stream",
        replies=lambda gate: (
            Reply.error(429, retry_after=2),
            Reply.stream(_SENTENCE, gate=gate),
        ),
        expected=Expected(text=_SENTENCE, attempts=2),
    ),
    Scenario(
        title="500 once, then good",
        point='Documented: "Retry once after 1s".',
        way="complete",
        replies=lambda _: (Reply.error(500), Reply.completion(_SENTENCE)),
        expected=Expected(text=_SENTENCE, attempts=2),
    ),
    Scenario(
        title="502 until the retries are spent",
        point="Waits of 1, 2 and 4 s. The SDK's own two retries do not make 12 attempts of it.",
        way="complete",
        replies=lambda _: (Reply.error(502),) * 4,
        expected=Expected(error=openai.InternalServerError, code=502, attempts=4),
    ),
    Scenario(
        title="A wrong key",
        point="Nothing that a retry could mend: one attempt, and the error as it came.",
        way="complete",
        wrong_key=True,
        expected=Expected(error=openai.AuthenticationError, code=401),
    ),
    Scenario(
        title="403 as a web page, from a proxy before the API",
        point="The page becomes an error in the documented format: code, message, metadata.",
        way="complete",
        replies=lambda _: (Reply.html(403, html=_PAGE),),
        expected=Expected(error=openai.PermissionDeniedError, code=403),
    ),
    Scenario(
        title="An error in the middle of a stream",
        point='HTTP says 200. The chunk with finish_reason "error" raises and marks the span.',
        way="stream",
        replies=lambda gate: (
            Reply.stream(_SENTENCE, error="server_error", error_after=3, gate=gate),
        ),
        expected=Expected(text="Hello there from", error=openai.APIError, code="server_error"),
    ),
    Scenario(
        title="An error before the first word",
        point="HTTP says 200 here too. Nothing was delivered yet: retried, and never seen.",
        way="stream",
        replies=lambda gate: (
            Reply.stream(_SENTENCE, error="rate_limit", error_after=0, comments=2),
            Reply.stream(_SENTENCE, gate=gate),
        ),
        expected=Expected(text=_SENTENCE, attempts=2),
    ),
    Scenario(
        title="An answer that just stops",
        point="No finish reason, no [DONE], no error: without the transport it looks complete.",
        way="stream",
        replies=lambda gate: (Reply.stream(_SENTENCE, cut_after=3, gate=gate),),
        expected=Expected(text="Hello there from", error=openai.APIError, code="stream_truncated"),
    ),
    Scenario(
        title="503 once, then good, with AsyncOpenAI",
        point="The same policy under asyncio.",
        way="stream_async",
        replies=lambda gate: (Reply.error(503), Reply.stream(_SENTENCE, gate=gate)),
        expected=Expected(text=_SENTENCE, attempts=2),
    ),
)
"""In the order in which they are shown."""
