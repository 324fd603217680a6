# SPDX-License-Identifier: Apache-2.0
"""Scenarios by model id, so that a client in any language can choose how the API misbehaves.

A scenario with `-once` or `-twice` fails the first attempts, is good for one, and begins
again: a simulator that runs for hours shows the same to every call.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

from cline_transport.simulator._documented import HTTP_ERRORS, STREAM_ERRORS
from cline_transport.simulator._encoding import Encoding
from cline_transport.simulator._reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cline_transport.simulator._answer import ErrorShape


class Scenario(NamedTuple):
    """What a model id stands for."""

    description: str
    reply: Callable[[int], Reply]
    """From the number of the attempt, counted from 1 for each model and key, to its reply."""


def failing_first(times: int, failure: Reply) -> Callable[[int], Reply]:
    """Fail the first `times` attempts with `failure`, answer one well, and so on round.

    Example: `Scenario("HTTP 500, then good", failing_first(1, Reply.error(500)))`.
    """
    return lambda attempt: Reply.ok() if attempt % (times + 1) == 0 else failure


def always(reply: Reply) -> Callable[[int], Reply]:
    """Give the same reply to each attempt.

    Example: `Scenario("HTTP 500", always(Reply.error(500)))`.
    """
    return lambda _: reply


def _mid_stream(code: str, shape: ErrorShape, after: int) -> Callable[[int], Reply]:
    return always(Reply.ok(error=code, error_shape=shape, error_after=after))


def _encoded(encoding: Encoding) -> Callable[[int], Reply]:
    def reply(_: int) -> Reply:
        try:
            return Reply.ok(encoding=encoding)
        except ImportError as error:  # in the server the answer alone can say what is missing
            return Reply.error(501, message=str(error))

    return reply


def _table() -> dict[str, Scenario]:
    table = {
        "cline/ok": Scenario("a good answer", always(Reply.ok())),
        "anthropic/claude-sonnet-4.6": Scenario("a good answer", always(Reply.ok())),
        "openai/gpt-5": Scenario("a good answer", always(Reply.ok())),
    }
    for status, cause in HTTP_ERRORS.items():
        table[f"sim/{status}"] = Scenario(f"HTTP {status}: {cause}", always(Reply.error(status)))
    table |= {
        "sim/429-once": Scenario(
            "HTTP 429 with Retry-After: 1, then good",
            failing_first(1, Reply.error(429, retry_after=1)),
        ),
        "sim/500-once": Scenario("HTTP 500, then good", failing_first(1, Reply.error(500))),
        "sim/502-twice": Scenario("HTTP 502 twice, then good", failing_first(2, Reply.error(502))),
    }
    suffixes: dict[str, ErrorShape] = {"": "cline", "/openrouter": "openrouter", "/bare": "bare"}
    for code, meaning in STREAM_ERRORS.items():
        for suffix, shape in suffixes.items():
            table[f"sim/mid-stream/{code}{suffix}"] = Scenario(
                f"{code} after two words ({shape} shape): {meaning}", _mid_stream(code, shape, 2)
            )
        table[f"sim/early/{code}"] = Scenario(
            f"{code} in the stream before any content: {meaning}", _mid_stream(code, "cline", 0)
        )
    table |= {
        "sim/early/server_error-once": Scenario(
            "server_error in the stream before any content, then good",
            failing_first(1, Reply.ok(error="server_error", error_after=0)),
        ),
        "sim/truncated": Scenario(
            "a stream that ends after two words without a finish reason",
            always(Reply.stream(cut_after=2)),
        ),
        "sim/truncated-once": Scenario(
            "a stream that ends before any content, then good",
            failing_first(1, Reply.stream(cut_after=0)),
        ),
        "sim/cut": Scenario(
            "a stream whose connection is closed after two words",
            always(Reply.stream(cut_after=2, then="close")),
        ),
        "sim/error-in-200": Scenario(
            "HTTP 200 with a JSON error", always(Reply.json_error_in_200())
        ),
        "sim/html-502": Scenario("HTTP 502 with a proxy's page", always(Reply.html(502))),
        "sim/close": Scenario("the connection is closed without an answer", always(Reply.close())),
        "sim/reset": Scenario("the connection is reset without an answer", always(Reply.reset())),
        "sim/stall": Scenario("no answer, ever", always(Reply.stall())),
        "sim/comments": Scenario("ten keep-alive comments first", always(Reply.ok(comments=10))),
        "sim/drip": Scenario("64 bytes every 50 ms", always(Reply.ok(drip=(64, 0.05)))),
    }
    for encoding in get_args(Encoding):
        table[f"sim/encoding/{encoding}"] = Scenario(
            f"a good answer in the content encoding {encoding}, accepted or not", _encoded(encoding)
        )
    return table


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(_table())
"""Model id → scenario. Example: `SCENARIOS["sim/429-once"].description`."""
