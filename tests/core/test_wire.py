# SPDX-License-Identifier: Apache-2.0
"""The wire's error formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport import wire
from cline_transport.wire import (
    WireError,
    clip,
    describe,
    is_transient,
    normalize_error_body,
    read_chunk_error,
    read_json_error,
    status_for,
    write_error,
)

DOCUMENTED = b'{"error": {"code": 401, "message": "Invalid API key", "metadata": {"id": "x"}}}'


def normalized(status: int, content_type: str, body: bytes) -> dict[str, Any]:
    """The delivered body, decoded."""
    found = normalize_error_body(status, content_type, body)
    delivered: dict[str, Any] = json.loads(body if found.rewritten is None else found.rewritten)
    return delivered


def test_the_documented_format_passes_byte_for_byte() -> None:
    error, rewritten = normalize_error_body(401, "application/json", DOCUMENTED)
    assert rewritten is None
    assert error == WireError(401, "Invalid API key", {"id": "x"})


def test_it_passes_without_a_code_which_is_then_the_status() -> None:
    body = b'{"error": {"message": "No such model", "type": "invalid_request_error"}}'
    error, rewritten = normalize_error_body(404, "application/json", body)
    assert rewritten is None
    assert error == WireError(404, "No such model", {})


def test_an_oauth_error_passes_byte_for_byte() -> None:
    body = b'{"error": "invalid_grant", "error_description": "The token has expired"}'
    error, rewritten = normalize_error_body(401, "application/json", body)
    assert rewritten is None
    assert error == WireError("invalid_grant", "The token has expired")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"detail": [{"message": "too long"}]}, "too long"),
        ({"detail": []}, "Bad Request"),
        ({"error": "model is required"}, "model is required"),
        ({"message": "upstream gone"}, "upstream gone"),
        ({"error": {"code": 7}, "message": "outer"}, "outer"),
        ({"error": {"message": ""}, "title": "Teapot"}, "Teapot"),
        ({"error": None, "reason": "nope"}, "nope"),
        ({"status": 400}, "Bad Request"),
        ({}, "Bad Request"),
    ],
)
def test_any_other_object_keeps_its_fields_and_gains_the_error(
    body: dict[str, Any], message: str
) -> None:
    delivered = normalized(400, "application/json", json.dumps(body).encode())
    assert delivered["error"]["message"] == message
    assert {k: v for k, v in delivered.items() if k != "error"} == {
        k: v for k, v in body.items() if k != "error"
    }


def test_its_code_is_its_own_or_the_status() -> None:
    assert normalized(400, "", b'{"code": "bad_model", "message": "m"}')["error"] == {
        "code": "bad_model",
        "message": "m",
        "metadata": {},
    }
    inner = normalized(503, "", b'{"error": {"code": 7, "metadata": {"a": 1}}, "message": "m"}')
    assert inner["error"] == {"code": 7, "message": "m", "metadata": {"a": 1}}
    assert normalized(503, "", b'{"code": true, "message": "m"}')["error"]["code"] == 503
    assert normalized(503, "", b'{"code": 12.0, "message": "m"}')["error"]["code"] == 12


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (
            "text/html",
            b"<html><title>502 Bad Gateway</title><body>x</body></html>",
            "502 Bad Gateway",
        ),
        ("text/html", b"<h1>Service &amp; more</h1>", "Service & more"),
        ("text/html", b"<style>p{}</style><p>Try <b>later</b></p>", "Try later"),
        ("", b"<!doctype html><p>gone", "gone"),
        ("text/plain", b"\n\nupstream connect error\nmore", "upstream connect error"),
        ("text/plain", b"", "Bad Gateway"[:0] + "Upstream provider error"),
        ("text/html", b"<html></html>", "Upstream provider error"),
        ("application/json", b'["not", "an object"]', '["not", "an object"]'),
        ("application/json", b'"text"', '"text"'),
        ("application/json", b'{"cut', '{"cut'),
    ],
)
def test_what_is_not_an_object_is_replaced_and_kept_in_the_metadata(
    content_type: str, body: bytes, message: str
) -> None:
    found = normalize_error_body(502, content_type, body)
    assert found.rewritten is not None
    assert json.loads(found.rewritten) == {
        "error": {
            "code": 502,
            "message": message,
            "metadata": {"raw": body.decode(), "content_type": content_type},
        }
    }


def test_only_the_first_4_kib_of_it_are_kept() -> None:
    found = normalize_error_body(502, "text/plain", b"x" * 10_000)
    assert len(found.error.metadata["raw"]) == 4096
    assert len(found.error.message) <= 200


def test_a_body_that_was_cut_short_is_not_read_as_json() -> None:
    found = normalize_error_body(502, "application/json", DOCUMENTED, complete=False)
    assert found.rewritten is not None
    assert found.error.code == 502


def test_what_can_be_read_and_is_too_deep_to_be_written_loses_its_metadata(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    told: dict[str, Any] = {"error": {"code": 503, "message": "m", "metadata": {}}}
    assert json.loads(write_error(WireError(503, "m", deep))) == told

    def load(_: bytes) -> object:
        return {"message": "m", "error": {"code": 503, "metadata": deep}}

    monkeypatch.setattr(wire, "load_json", load)
    rewritten = normalize_error_body(503, "application/json", b"").rewritten
    assert rewritten is not None
    assert json.loads(rewritten) == told


def test_json_too_deep_to_read_is_text() -> None:
    found = normalize_error_body(500, "application/json", b"[" * 200_000)
    assert found.error.code == 500


@given(st.integers(400, 599), st.sampled_from(["", "text/html", "application/json"]), st.binary())
def test_any_bytes_end_as_the_documented_format(status: int, kind: str, body: bytes) -> None:
    error, rewritten = normalize_error_body(status, kind, body)
    delivered = json.loads(body if rewritten is None else rewritten)
    assert delivered["error"]
    assert error.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "detail", "choices", "metadata", "x"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["error", "message", "detail", "code"]), json_values))
def test_any_object_ends_with_a_message_and_loses_no_field(body: dict[str, Any]) -> None:
    delivered = normalized(500, "application/json", json.dumps(body).encode())
    assert delivered.keys() >= body.keys()
    assert isinstance(delivered["error"], (dict, str))


@given(json_values)
def test_reading_a_chunk_never_raises(chunk: object) -> None:
    read_chunk_error(chunk)
    read_json_error(chunk)


# --- chunks ---

DETAILS = {"code": "rate_limit", "message": "slow down"}


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"finish_reason": "error", "error": DETAILS}]},
        {"error": DETAILS, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]},
        {"error": DETAILS},
        {"choices": [{"error": DETAILS, "finish_reason": None}]},
        {"choices": [{}, {"finish_reason": "error", "error": DETAILS}]},
    ],
)
def test_an_error_chunk_is_seen_in_every_shape(chunk: dict[str, Any]) -> None:
    assert read_chunk_error(chunk) == WireError("rate_limit", "slow down", {})


def test_a_bare_error_chunk_has_no_code_and_a_message_all_the_same() -> None:
    found = read_chunk_error({"choices": [{"finish_reason": "error"}]})
    assert found == WireError(None, "The stream ended with an error")


def test_a_code_without_a_message_gets_the_documented_meaning() -> None:
    found = read_chunk_error(
        {"choices": [{"finish_reason": "error", "error": {"code": "rate_limit"}}]}
    )
    assert found == WireError("rate_limit", "Rate limit hit during generation")


def test_an_error_as_text_is_its_message() -> None:
    assert read_chunk_error({"error": "boom"}) == WireError(None, "boom")


GOOD_CHUNKS: list[Any] = [
    {"choices": [{"delta": {"content": "an error"}, "finish_reason": None}]},
    {"choices": [{"finish_reason": "stop"}], "error": None},
    {"choices": [{"finish_reason": "stop", "error": {}}]},
    {"choices": ["error"]},
    {"choices": {"finish_reason": "error"}},
    {"error": ""},
    ["error"],
    "error",
    None,
]


@pytest.mark.parametrize("chunk", GOOD_CHUNKS)
def test_a_good_chunk_is_none(chunk: object) -> None:
    assert read_chunk_error(chunk) is None


def test_a_2xx_body_with_an_error_is_one() -> None:
    assert read_json_error({"error": DETAILS}) is not None
    assert read_json_error({"object": "chat.completion", "error": DETAILS}) is not None


def test_the_error_field_of_another_resource_is_not() -> None:
    assert read_json_error({"object": "response", "status": "failed", "error": DETAILS}) is None
    assert read_json_error([DETAILS]) is None


# --- codes ---


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("rate_limit", 429),
        ("context_length_exceeded", 400),
        ("content_filter", 400),
        ("insufficient_quota", 429),
        ("server_error", 502),
        ("stream_truncated", 502),
        ("anything_else", 502),
        (None, 502),
        (503, 503),
        ("429", 429),
        (200, 502),
        (700, 502),
        (True, 502),
    ],
)
def test_an_error_inside_a_200_has_a_status(code: Any, status: int) -> None:
    assert status_for(code) == status


def test_transient_is_what_the_documentation_retries() -> None:
    assert is_transient(429, 429)
    assert is_transient("server_error", 200)
    assert is_transient("overloaded", 503)
    assert is_transient("503", 200)
    assert not is_transient("insufficient_quota", 429)
    assert not is_transient(400, 400)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        (None, 502, "Upstream provider error"),
        (None, 418, "I'm a Teapot"),
        (None, 599, "HTTP error 599"),
        ("odd", None, "The stream ended with an error (odd)"),
        (None, None, "The stream ended with an error"),
    ],
)
def test_an_error_without_a_message_gets_one(code: Any, status: int | None, message: str) -> None:
    assert describe(code, status) == message


def test_a_message_is_put_on_one_line_and_cut() -> None:
    assert clip("a\n  b\tc") == "a b c"
    assert clip("x" * 5000) == "x" * 1023 + "…"
    assert len(clip("y " * 5000, 10)) <= 10


def test_the_writer_takes_what_utf_8_cannot() -> None:
    assert json.loads(write_error(WireError(500, "\ud800")))["error"]["message"] == "\ud800"
