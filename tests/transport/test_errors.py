# SPDX-License-Identifier: Apache-2.0
"""Errors out: every HTTP error ends as the documented format."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from cline_transport import ErrorSettings, RetryPolicy, Settings, error_info
from cline_transport.simulator import Gate, Reply, Simulator

from .rig import CHAT, Rig, unread

ONCE = Settings(retry=RetryPolicy(enabled=False))
JSON = [("content-type", "application/json")]


def raw(status: int, body: bytes, *headers: tuple[str, str]) -> Reply:
    return Reply.raw(status, headers=[("content-length", str(len(body))), *headers], body=body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"code": 401, "message": "Invalid API key", "metadata": {}}}',
        b'{ "error" : {"message":"no code"}, "extra": 1 }',
        b'{"error": "invalid_client", "error_description": "Unknown client"}',
    ],
)
def test_what_callers_read_today_passes_byte_for_byte(
    rig: Rig, api: Simulator, url: str, body: bytes
) -> None:
    api.enqueue(
        raw(401, body, *JSON, ("x-extra", "kept")), raw(401, body, *JSON, ("x-extra", "kept"))
    )
    ours = rig.client().post(url, json=CHAT)
    assert ours.body == body
    plain = rig.plain().post(url, json=CHAT)
    rest = [h for h in ours.raw_headers if h[0] != b"x-should-retry"]
    assert without_id(rest) == without_id(plain.raw_headers)


def without_id(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(n, v) for n, v in headers if n.lower() not in (b"x-request-id", b"date")]


def test_another_object_gains_the_error_and_true_headers(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(raw(422, b'{"detail": "field required"}', *JSON, ("x-extra", "kept")))
    answer = rig.client().post(url, json=CHAT)
    assert answer.json() == {
        "detail": "field required",
        "error": {"code": 422, "message": "field required", "metadata": {}},
    }
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-extra"] == "kept"


def test_a_proxys_page_is_replaced_and_kept_in_the_metadata(
    rig: Rig, api: Simulator, url: str
) -> None:
    page = "<html><head><title>403 Forbidden</title></head><body>Squid</body></html>"
    api.enqueue(Reply.html(403, html=page))
    answer = rig.client().post(url, json=CHAT)
    assert answer.json() == {
        "error": {
            "code": 403,
            "message": "403 Forbidden",
            "metadata": {"raw": page, "content_type": answer_type(answer.json())},
        }
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))


def answer_type(body: Any) -> str:
    found: str = body["error"]["metadata"]["content_type"]
    assert found.startswith("text/html")
    return found


def test_a_page_for_a_body_that_cannot_be_sent_twice_leaves_the_retry_to_others(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.html(503))
    answer = rig.client().post(url, files={"file": b"content"})
    assert answer.json()["error"]["code"] == 503
    assert "x-should-retry" not in answer.headers


def test_an_empty_error_gets_a_body(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(raw(404, b""))
    assert rig.client().post(url, json=CHAT).json()["error"]["code"] == 404


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_an_encoded_body_is_looked_into(
    rig: Rig, api: Simulator, url: str, encoding: str, encode: Any
) -> None:
    documented = b'{"error": {"code": 400, "message": "m", "metadata": {}}}'
    header = ("content-encoding", encoding)
    encoded = encode(documented)
    api.enqueue(
        raw(400, encoded, *JSON, header),
        raw(400, encode(b"<h1>Nope</h1>"), ("content-type", "text/html"), header),
    )
    client = rig.client()
    kept = client.post(url, json=CHAT)
    assert kept.headers["content-encoding"] == encoding
    assert kept.body == encoded
    replaced = client.post(url, json=CHAT)
    assert "content-encoding" not in replaced.headers
    assert replaced.json()["error"]["message"] == "Nope"


def test_a_body_that_is_not_what_its_encoding_says_is_an_error_all_the_same(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(raw(400, b"not gzip at all", *JSON, ("content-encoding", "gzip")))
    answer = rig.client().post(url, json=CHAT)
    assert answer.json()["error"]["message"] == "Bad Request"
    assert "content-encoding" not in answer.headers


def test_a_body_that_grows_beyond_the_bound_when_decoded_is_cut(
    rig: Rig, api: Simulator, url: str
) -> None:
    bomb = gzip.compress(b"a" * 50_000_000)
    api.enqueue(raw(400, bomb, ("content-type", "text/plain"), ("content-encoding", "gzip")))
    answer = rig.client().post(url, json=CHAT)
    assert len(answer.json()["error"]["metadata"]["raw"]) == 4096


@unread
def test_at_most_a_mebibyte_of_an_error_is_read(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(
        Reply.raw(400, headers=[("content-type", "text/plain")], body=[b"x" * 100_000] * 30)
    )
    answer = rig.client().post(url, json=CHAT)
    assert len(answer.body) < 10_000
    assert answer.json()["error"]["code"] == 400


@unread
def test_it_is_a_setting(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(400, message="long enough to be cut"))
    settings = Settings(errors=ErrorSettings(max_body_bytes=10))
    answer = rig.client(rig.transport(settings=settings)).post(url, json=CHAT)
    assert len(answer.json()["error"]["metadata"]["raw"]) == 10


def test_an_error_whose_body_breaks_off_keeps_its_status(
    rig: Rig, api: Simulator, url: str
) -> None:
    broken = Reply.raw(
        403, headers=[("content-type", "text/plain")], body=[b"no ent"], then="close"
    )
    api.enqueue(broken)
    answer = rig.client().post(url, json=CHAT)
    assert answer.json()["error"]["message"] == "no ent"


def test_without_normalisation_every_byte_stays(rig: Rig, api: Simulator, url: str) -> None:
    settings = Settings(errors=ErrorSettings(normalize=False, max_body_bytes=1000))
    client = rig.client(rig.transport(settings=settings))
    short, long = b"<h1>no</h1>", b"x" * 5000
    html = ("content-type", "text/html")
    api.enqueue(raw(403, short, html), raw(403, long, html))
    for body in (short, long):
        answer = client.post(url, json=CHAT)
        assert answer.body == body
        assert answer.headers["content-length"] == str(len(body))


def test_and_the_wires_own_exception(rig: Rig, api: Simulator, url: str) -> None:
    settings = Settings(errors=ErrorSettings(normalize=False))
    broken = Reply.raw(
        403, headers=[("content-type", "text/plain")], body=[b"no ent"], then="close"
    )
    api.enqueue(broken)
    answer = rig.client(rig.transport(settings=settings)).post(url, json=CHAT)
    assert answer.body == b"no ent"
    assert isinstance(answer.exception, rig.exception("RemoteProtocolError"))


# --- a 2xx that is an error ---


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        ("rate_limit", 429, 4),
        ("server_error", 502, 4),
        ("context_length_exceeded", 400, 1),
        ("content_filter", 400, 1),
        ("unknown_thing", 502, 1),
        (503, 503, 4),
        (402, 402, 1),
    ],
)
@pytest.mark.parametrize("shape", ["cline", "openrouter"])
def test_a_json_answer_that_is_an_error_becomes_one(
    rig: Rig, api: Simulator, url: str, shape: Any, code: Any, status: int, attempts: int
) -> None:
    api.enqueue(*[Reply.json_error_in_200(code, shape=shape, message="said so")] * 5)
    answer = rig.client().post(url, json={**CHAT, "stream": False})
    assert answer.status == status
    assert len(api.requests) == attempts
    assert answer.json()["error"]["message"] == "said so"
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-should-retry"] == "false"
    info = error_info(answer.response)
    assert info is not None
    assert (info.code, info.status_code, info.attempts) == (code, status, attempts)


def test_its_bytes_stay_where_it_has_the_documented_format(
    rig: Rig, api: Simulator, url: str
) -> None:
    body = b'{ "error": {"code": 402, "message": "broke"} }'
    api.enqueue(raw(200, body, *JSON))
    answer = rig.client().post(url, json=CHAT)
    assert (answer.status, answer.body) == (402, body)


def test_without_normalisation_it_is_retried_and_stays_a_200(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(*[Reply.json_error_in_200("server_error")] * 4)
    settings = Settings(errors=ErrorSettings(normalize=False))
    answer = rig.client(rig.transport(settings=settings)).post(url, json=CHAT)
    assert answer.status == 200
    assert len(api.requests) == 4
    assert error_info(answer.response) is not None


@pytest.mark.parametrize(
    "body",
    [
        {
            "object": "response",
            "status": "failed",
            "error": {"code": "server_error", "message": "m"},
        },
        {"object": "list", "data": []},
        {"choices": [{"message": {"content": 'an "error"'}, "finish_reason": "stop"}]},
        {"error": None, "status": "completed"},
        ["error"],
    ],
)
def test_a_good_json_answer_passes_byte_for_byte(
    rig: Rig, api: Simulator, url: str, body: object
) -> None:
    sent = json.dumps(body, indent=1).encode()
    api.enqueue(raw(200, sent, *JSON))
    answer = rig.client().post(f"{api.base_url}/chat/completions", json=CHAT)
    assert (answer.status, answer.body) == (200, sent)
    assert answer.headers["content-length"] == str(len(sent))
    assert answer.record.completed


@pytest.mark.parametrize("then", ["length", "chunks"])
def test_a_json_answer_that_is_cut_where_http_cannot_tell_passes(
    rig: Rig, api: Simulator, url: str, then: str
) -> None:
    sent = b'{"choices":[{"message":{"content":"two wo'
    body: bytes | list[bytes] = sent if then == "length" else [sent]
    api.enqueue(Reply.raw(200, headers=JSON, body=body))
    answer = rig.client().post(url, json=CHAT)
    assert (answer.status, answer.body) == (200, sent)
    assert answer.record.completed
    assert len(answer.record.attempts) == 1


@unread
def test_a_long_json_answer_is_passed_on_as_it_comes(rig: Rig, api: Simulator, url: str) -> None:
    parts = [b'{"data": "', *[b"y" * 100_000] * 30, b'"}']
    api.enqueue(Reply.raw(200, headers=JSON, body=parts))
    client = rig.client()
    answer = client.post(url, json=CHAT)
    assert answer.body == b"".join(parts)
    assert answer.record.completed
    api.enqueue(Reply.raw(200, headers=JSON, body=parts))
    client.close(client.open("POST", url, json=CHAT))


def test_a_redirect_and_an_empty_answer_pass(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(raw(307, b"", ("location", "/elsewhere")), Reply.raw(204, headers=[], body=b""))
    client = rig.client()
    assert client.post(url, json=CHAT).status == 307
    assert client.post(url, json=CHAT).status == 204


# --- what is somebody else's ---


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no such method"}},
        {"status": "failed", "error": "out of disk"},
        {"choices": [{"finish_reason": "error"}]},
    ],
)
def test_an_error_field_of_another_endpoint_is_its_own(
    rig: Rig, api: Simulator, body: object
) -> None:
    sent = json.dumps(body).encode()
    api.enqueue(raw(200, sent, *JSON))
    answer = rig.client().post(f"{api.base_url}/mcp", json={})
    assert (answer.status, answer.body, len(api.requests)) == (200, sent, 1)


def test_json_of_another_endpoint_passes_piece_by_piece(rig: Rig, api: Simulator) -> None:
    gate = Gate(1)
    parts = [b'{"event":1}\n', b'{"event":2}\n']
    api.enqueue(Reply.raw(200, headers=JSON, body=parts, gate=gate))
    client = rig.client()
    response = client.open("GET", f"{api.base_url}/watch")
    chunks = client.chunks(response)
    assert next(chunks) == parts[0]
    gate.release()
    assert b"".join(chunks) == parts[1]
    client.close(response)


def test_a_good_answer_with_an_empty_error_is_good(rig: Rig, api: Simulator, url: str) -> None:
    body = {"choices": [{"finish_reason": "stop"}], "error": {"message": "", "code": None}}
    api.enqueue(raw(200, json.dumps(body).encode(), *JSON))
    assert rig.client().post(url, json=CHAT).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[],"usage":{"cost":1' + b"0" * 400 + b"}}",
        b'{"choices":[],"usage":{"prompt_tokens":1' + b"0" * 40 + b"}}",
        b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_numbers_and_depths_beyond_reason_pass(
    rig: Rig, api: Simulator, url: str, body: bytes
) -> None:
    api.enqueue(raw(200, body, *JSON))
    answer = rig.client().post(url, json=CHAT)
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("status", [200, 503])
def test_an_inspection_that_fails_lets_the_bytes_pass(
    rig: Rig, api: Simulator, url: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr("cline_transport.call.load_json", broken)
    monkeypatch.setattr("cline_transport.call.normalize_error_body", broken)
    api.enqueue(*[raw(status, b"{}", *JSON)] * 4)
    answer = rig.client().post(url, json=CHAT)
    assert (answer.status, answer.body) == (status, b"{}")


def test_an_exception_of_the_applications_own_comes_out_of_the_reading(
    sync_rig: Rig, url: str
) -> None:
    class TimeLimitError(Exception):
        """As a task queue raises it from a signal."""

    sent: list[str] = []

    class Slow(sync_rig.library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Any:
            yield b"{"
            raise TimeLimitError

    def handler(_: Any) -> Any:
        sent.append("sent")
        return sync_rig.library.Response(503, stream=Slow())

    client = sync_rig.client(sync_rig.transport(sync_rig.library.MockTransport(handler)))
    assert isinstance(client.post(url, json=CHAT).exception, TimeLimitError)
    assert sent == ["sent"]


def test_a_status_that_changed_has_its_own_reason_phrase(
    rig: Rig, api: Simulator, url: str
) -> None:
    api.enqueue(Reply.json_error_in_200(402))
    assert rig.client().post(url, json=CHAT).response.reason_phrase == "Payment Required"
