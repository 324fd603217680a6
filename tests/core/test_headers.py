# SPDX-License-Identifier: Apache-2.0
"""Headers as the core looks at them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import httpx
import pytest

from cline_transport._headers import LowerHeaders


@pytest.fixture(params=[name for name in ("httpx", "httpx2") if find_spec(name)])
def headers(request: pytest.FixtureRequest) -> LowerHeaders:
    library = import_module(request.param)
    return LowerHeaders(library.Headers({"X-Request-ID": "req-1", "A": "b"}))


def test_they_are_looked_up_in_lower_case(headers: LowerHeaders) -> None:
    assert headers["x-request-id"] == headers.get("x-request-id") == "req-1"
    assert "x-request-id" in headers
    assert headers.get("missing") is None
    assert headers.get("missing", "none") == "none"
    with pytest.raises(KeyError):
        headers["missing"]


def test_they_are_a_mapping(headers: LowerHeaders) -> None:
    assert dict(headers) == {"x-request-id": "req-1", "a": "b"}
    assert len(headers) == 2
    assert dict(LowerHeaders(httpx.Headers())) == {}


def test_what_is_no_utf_8_is_read_as_latin_1() -> None:
    raw = [(b"a", "é".encode()), (b"b", b"\xe9"), (b"\xe9", b"c")]
    headers = LowerHeaders(httpx.Headers(raw))
    assert headers["a"] == headers["b"] == "é"
    assert list(headers) == ["a", "b", "é"]


def test_several_lines_of_one_name_are_a_list() -> None:
    """RFC 9110, section 5.3."""
    headers = LowerHeaders(httpx.Headers([("A", "1"), ("b", "2"), ("a", "3")]))
    assert dict(headers) == {"a": "1, 3", "b": "2"}
