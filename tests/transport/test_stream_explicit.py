# SPDX-License-Identifier: Apache-2.0
"""`stream.explicit`: a call that says nothing of streaming is sent with `"stream": false`."""

from __future__ import annotations

import pytest

from cline_transport.simulator import Reply, Simulator

from .events import client
from .rig import Rig


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m"}', b'{"stream":false,"model":"m"}'),
        (b"{}", b'{"stream":false}'),
        (b' {"a":{"stream":1}}', b' {"stream":false,"a":{"stream":1}}'),
        (b'{"stream":null}', b'{"stream":null}'),
        (b'{"stream":true}', b'{"stream":true}'),
        (b"[1]", b"[1]"),
        (b"{no json}", b"{no json}"),
        ('{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-16")),
        (b"", b""),
    ],
)
def test_a_call_that_says_nothing_of_streaming_is_sent_without_it(
    rig: Rig, api: Simulator, url: str, body: bytes, sent: bytes
) -> None:
    api.enqueue(Reply.error(503), Reply.completion("x"))
    rig.client().post(url, content=body, headers={"accept": "application/json"})
    for request in api.requests:
        assert request.body == sent
        assert request.headers["content-length"] == str(len(sent))
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("path", "accept", "explicit"),
    [
        ("chat/completions", "text/event-stream", True),
        ("chat/completions", "*/*", True),
        ("embeddings", "application/json", True),
        ("chat/completions", "application/json", False),
    ],
)
def test_it_is_only_for_chat_that_wants_json_and_a_setting(
    rig: Rig, api: Simulator, path: str, accept: str, *, explicit: bool
) -> None:
    api.enqueue(Reply.completion("x"))
    subject = client(rig, explicit=explicit)
    subject.post(f"{api.base_url}/{path}", content=b'{"a":1}', headers={"accept": accept})
    assert api.requests[0].body == b'{"a":1}'
