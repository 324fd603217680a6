# SPDX-License-Identifier: Apache-2.0
"""A reply is checked when it is made, not when it is served."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cline_transport.simulator import Reply

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reply.error(199), "status must be 200 to 599 (got 199)"),
        (lambda: Reply.raw(600), "status must be 200 to 599 (got 600)"),
        (
            lambda: Reply.stream(then="explode"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            "then must be one of end, close, reset, stall (got 'explode')",
        ),
        (
            lambda: Reply.stream(newline="\v"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            "newline must be LF, CRLF or CR (got '\\x0b')",
        ),
        (
            lambda: Reply.ok(error="x", error_shape="odd"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            "error_shape must be one of cline, openrouter, bare (got 'odd')",
        ),
        (lambda: Reply.stream(split=0), "split must be >= 1 (got 0)"),
        (lambda: Reply.stream(comments=-1), "comments must be >= 0 (got -1)"),
        (lambda: Reply.stream(cut_after=-1), "cut_after must be >= 0 (got -1)"),
        (
            lambda: Reply.stream(error="x", error_after=-1),
            "error_after must be >= 0 (got -1)",
        ),
        (
            lambda: Reply.stream(error_after=1),
            "error_after and error_message need an error (got None)",
        ),
        (lambda: Reply.raw(cut_at=-1), "cut_at must be >= 0 (got -1)"),
        (
            lambda: Reply.raw(drip=(0, 1)),
            "drip must be a number of bytes >= 1 and of seconds >= 0 (got (0, 1))",
        ),
        (
            lambda: Reply.ok(drip=(1, -1)),
            "drip must be a number of bytes >= 1 and of seconds >= 0 (got (1, -1))",
        ),
        (
            lambda: Reply.stream(drip=(1, float("inf"))),
            "drip must be a number of bytes >= 1 and of seconds >= 0 (got (1, inf))",
        ),
        (lambda: Reply.ok(drip=(1, 1), split=1), "split and drip exclude each other (got both)"),
        (
            lambda: Reply.html(encoding="rot13"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            "encoding must be one of gzip, deflate, br, zstd (got 'rot13')",
        ),
        (
            lambda: Reply.stream(error="x", cut_after=1),
            "error and cut_after exclude each other (got both)",
        ),
    ],
)
def test_a_wrong_option_is_a_value_error(make: Callable[[], Reply], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="surprise"):
        Reply.ok(surprise=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_reply_is_a_value() -> None:
    assert Reply.error(429, retry_after=1) == Reply.error(429, retry_after=1)
    assert Reply.stream("Hi") != Reply.completion("Hi")
    with pytest.raises(AttributeError):
        Reply.ok().status = 500  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
