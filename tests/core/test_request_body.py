# SPDX-License-Identifier: Apache-2.0
"""What a request asks for, read from its body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cline_transport._request_body import RequestFacts, read_request


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b'{"model":"a/b","stream":true}', RequestFacts("a/b", stream=True)),
        (b'{"stream" : false, "model" : "a\\"b"}', RequestFacts('a"b', stream=False)),
        (b'{"messages":[]}', RequestFacts(None, None)),
        (b'{"x":{"model":"no"},"model":"yes"}', RequestFacts("yes", None)),
        (b'{"messages":[{"content":"\\"model\\": \\"no\\""}],"model":"yes"}', RequestFacts("yes")),
        (b'{"model":"a","x":[{"model":"b"', RequestFacts(None, None)),
        (b'[{"model":"a"},{"model":"b"}]', RequestFacts(None, None)),
        (b'{"model":7,"x":{"stream":true},"stream":"no","y":{"stream":true}}', RequestFacts()),
        (b"", RequestFacts()),
        (b"\xff\xfe", RequestFacts()),
    ],
)
def test_model_and_stream_are_read_from_the_request(body: bytes, facts: RequestFacts) -> None:
    assert read_request(body) == facts


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "user", "x"]),
        st.recursive(
            st.text() | st.booleans(),
            lambda inner: st.dictionaries(
                st.sampled_from(["model", "stream", "a"]), inner, max_size=3
            ),
            max_leaves=6,
        ),
    ),
    st.text(),
    st.sampled_from([True, False]),
)
def test_they_are_the_requests_own_whatever_is_nested_in_it(
    others: dict[str, Any], model: str, stream: Any
) -> None:
    body = json.dumps({**others, "model": model, "stream": stream}).encode()
    assert read_request(body) == RequestFacts(model, stream)
