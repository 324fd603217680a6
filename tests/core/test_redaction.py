# SPDX-License-Identifier: Apache-2.0
"""What an error's text may not repeat of its request."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport._protocols import RequestHead
from cline_transport._redaction import hide_query, redact


def head(
    headers: dict[str, str] | None = None, body: object = None, query: bytes = b""
) -> RequestHead:
    sent = None if body is None else json.dumps(body).encode()
    return RequestHead("POST", "https", "host", None, "/", headers or {}, sent, query)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("authorization", "Bearer abcdefg-1", "abcdefg-1"),
        ("authorization", "Basic YWJjZGVmZw==", "YWJjZGVmZw=="),
        ("proxy-authorization", "Basic YWJjZGVmZw==", "YWJjZGVmZw=="),
        ("cookie", "session=abcdefg; other=1", "abcdefg"),
        ("x-api-key", "abcdefg", "abcdefg"),
        ("api-key", "abcdefg", "abcdefg"),
        ("x-goog-api-key", "abcdefg", "abcdefg"),
        ("x-auth-token", "abcdefg", "abcdefg"),
        ("client-secret", "abcdefg", "abcdefg"),
        ("helicone-auth", "Bearer abcdefg", "abcdefg"),
        ("ocp-apim-subscription-key", "abcdefg", "abcdefg"),
        ("x-auth-key", "abcdefg", "abcdefg"),
        ("x-access-key", "abcdefg", "abcdefg"),
    ],
)
def test_a_secret_of_a_header_is_taken_out(name: str, value: str, secret: str) -> None:
    assert redact(f"unknown: {secret}!", head({name: value})) == "unknown: [redacted]!"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-ratelimit-limit-tokens", "1234567"),
        ("user-agent", "OpenAI/Python"),
        ("authorization", "Key 123"),
    ],
)
def test_what_is_no_secret_stays(name: str, value: str) -> None:
    assert redact(f"about {value}", head({name: value})) == f"about {value}"


def test_a_value_of_the_query_is_taken_out_as_it_is_and_as_it_means() -> None:
    told = redact("no key abc def1 or abc+def1 here", head(query=b"a=1&key=abc+def1"))
    assert told == "no key [redacted] or [redacted] here"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "Tell me a story"}]},
        {"messages": [{"content": [{"type": "text", "text": "Tell me a story"}]}]},
        {"prompt": "Tell me a story"},
        {"input": ["Tell me a story", {"content": "x"}]},
        {"messages": [{"tool_calls": [{"function": {"arguments": "Tell me a story"}}]}]},
        {"messages": [{"content": "  Tell me a story\n"}]},
    ],
)
def test_a_prompt_is_taken_out(body: object) -> None:
    assert redact("bad: Tell me a story.", head(body=body)) == "bad: [redacted]."


def test_so_is_one_that_is_quoted_as_json() -> None:
    prompt = 'Say "hi"\nand é'
    quoted = json.dumps(prompt)
    assert redact(f"bad: {quoted}", head(body={"prompt": prompt})) == 'bad: "[redacted]"'


def test_a_long_prompt_goes_before_one_that_is_part_of_it() -> None:
    body = {"input": ["Tell me a", "Tell me a story"]}
    assert redact("Tell me a story", head(body=body)) == "[redacted]"


@pytest.mark.parametrize(
    "word", ["json_schema", "assistant", "cline/model-name", "Hi", "a or b", "requests"]
)
def test_the_apis_own_words_stay(word: str) -> None:
    body = {
        "model": "cline/model-name",
        "response_format": {"type": "json_schema"},
        "messages": [
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "a or b"},
            {"role": "user", "content": "requests"},
        ],
    }
    assert redact(f"unsupported {word}", head(body=body)) == f"unsupported {word}"


@pytest.mark.parametrize(
    "key", ["sk-0123456789abcdefghij", "sk-or-v1-0123456789abcdef", "Bearer abcdef0123456"]
)
def test_what_looks_like_a_key_is_taken_out_though_it_is_another(key: str) -> None:
    assert redact(f"not {key}.", head()) in ("not [redacted].", "not [redacted]")


@pytest.mark.parametrize("text", ["Bearer authentication required", "risk-free", "sk-1", "no key"])
def test_words_do_not_look_like_one(text: str) -> None:
    assert redact(text, head()) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.text(),
)
def test_any_request_and_any_text_will_do(body: object, text: str) -> None:
    assert isinstance(redact(text, head(body=body)), str)


def test_a_body_that_is_no_json_will_do() -> None:
    request = RequestHead("POST", "https", "host", None, "/", {}, b"\xff{")
    assert redact("bad \xff{ body", request) == "bad \xff{ body"


@pytest.mark.parametrize(
    ("query", "hidden"),
    [
        (b"", b""),
        (b"a=1", b"a=REDACTED"),
        (b"secret", b"REDACTED"),
        (b"&".join(b"a=1" for _ in range(2000)), b"REDACTED"),
        (b"a=1&b=&c&=d&&e=f=g", b"a=REDACTED&b=REDACTED&REDACTED&=REDACTED&&e=REDACTED"),
    ],
)
def test_a_query_keeps_its_names(query: bytes, hidden: bytes) -> None:
    assert hide_query(query) == hidden
