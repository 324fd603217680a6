# SPDX-License-Identifier: Apache-2.0
"""The transports as httpx's users know transports: what they wrap, forward and refuse."""

from __future__ import annotations

import ast
import importlib
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import cline_transport
from cline_transport import (
    ErrorInfo,
    ErrorSettings,
    RetryPolicy,
    Settings,
    StreamSettings,
    TelemetrySettings,
    attach,
)
from cline_transport.simulator import Reply, Simulator

from .rig import CHAT, FAMILIES, Rig

PAGES = Path(cline_transport.__file__).parent


def test_the_pages_of_the_families_are_equal_after_renaming() -> None:
    pages = [(PAGES / f"{name}.py").read_text() for name in ("httpx", "httpx2")]
    first, second = (ast.dump(ast.parse(re.sub(r"httpx2?", "F", page))) for page in pages)
    assert first == second


def test_ours_is_a_transport_of_its_family(rig: Rig) -> None:
    base = "BaseTransport" if rig.is_sync else "AsyncBaseTransport"
    assert isinstance(rig.transport(), getattr(rig.library, base))


def test_without_a_transport_it_has_a_plain_one(rig: Rig, api: Simulator, url: str) -> None:
    kind = "ClineTransport" if rig.is_sync else "AsyncClineTransport"
    transport = getattr(rig.ours, kind)()
    api.enqueue(Reply.completion("x"))
    assert rig.client(transport).post(url, json=CHAT).status == 200


def test_a_transport_of_the_other_colour_is_refused(rig: Rig) -> None:
    ours, other, colour = ("ClineTransport", "AsyncHTTPTransport", "asynchronous")
    use, base = ("AsyncClineTransport", "BaseTransport")
    if not rig.is_sync:
        ours, other, colour = ("AsyncClineTransport", "HTTPTransport", "synchronous")
        use, base = ("ClineTransport", "AsyncBaseTransport")
    with pytest.raises(TypeError) as caught:
        getattr(rig.ours, ours)(getattr(rig.library, other)())
    assert str(caught.value) == (
        f"transport must be an instance of {rig.library.__name__}.{base} "
        f"(got {rig.library.__name__}.{other}; it is {colour}: use {use})"
    )


@pytest.mark.skipif(
    len({importlib.import_module(name) for name in FAMILIES}) < 2, reason="needs both families"
)
def test_a_transport_of_the_other_family_is_refused(rig: Rig) -> None:
    other = importlib.import_module({"httpx": "httpx2", "httpx2": "httpx"}[rig.family])
    ours, theirs = ("ClineTransport", "HTTPTransport")
    if not rig.is_sync:
        ours, theirs = ("AsyncClineTransport", "AsyncHTTPTransport")
    with pytest.raises(TypeError) as caught:
        getattr(rig.ours, ours)(getattr(other, theirs)())
    assert "cline_transport.httpx is for httpx, cline_transport.httpx2 for httpx2" in str(
        caught.value
    )


def test_what_is_no_transport_is_refused(rig: Rig) -> None:
    ours: Any = getattr(rig.ours, "ClineTransport" if rig.is_sync else "AsyncClineTransport")
    with pytest.raises(TypeError, match=r"got builtins\.str"):
        ours("https://api.cline.bot")


def test_opening_and_closing_are_forwarded(rig: Rig) -> None:
    calls: list[str] = []
    base = rig.library.BaseTransport if rig.is_sync else rig.library.AsyncBaseTransport

    class Noting(base):  # type: ignore[misc,valid-type]
        def __enter__(self) -> Any:
            calls.append("enter")
            return self

        def __exit__(self, *_: object) -> None:
            calls.append("exit")

        def close(self) -> None:
            calls.append("close")

        async def __aenter__(self) -> Any:
            return self.__enter__()

        async def __aexit__(self, *_: object) -> None:
            self.__exit__()

        async def aclose(self) -> None:
            self.close()

    transport = rig.transport(Noting())

    async def go_async() -> None:
        async with transport as entered:
            assert entered is transport
        await transport.aclose()

    if rig.portal is not None:
        rig.portal.call(go_async)
    else:
        with transport as entered:
            assert entered is transport
        transport.close()
    assert calls == ["enter", "exit", "close"]


def test_an_application_behind_a_mock_is_called_like_any_other(rig: Rig) -> None:
    calls: list[str] = []

    def handler(request: Any) -> Any:
        calls.append(request.url.path)
        status = 503 if len(calls) == 1 else 200
        return rig.library.Response(status, json={"choices": []})

    client = rig.client(rig.transport(rig.library.MockTransport(handler)))
    assert client.post("http://127.0.0.1/chat/completions", json=CHAT).status == 200
    assert calls == ["/chat/completions"] * 2


def test_what_a_mock_answers_is_looked_at_like_any_other(rig: Rig) -> None:
    error = b'data: {"choices":[{"finish_reason":"error","error":{"code":"rate_limit"}}]}\n\n'
    answers = {
        "/page": rig.library.Response(403, html="<h1>Forbidden</h1>"),
        "/chat/completions": rig.library.Response(
            200, json={"error": {"code": 402, "message": "broke"}}
        ),
        "/stream": rig.library.Response(
            200, content=error, headers={"content-type": "text/event-stream"}
        ),
    }

    def handler(request: Any) -> Any:
        return answers[request.url.path]

    client = rig.client(rig.transport(rig.library.MockTransport(handler)))
    page = client.post("http://127.0.0.1/page")
    assert page.json()["error"]["message"] == "Forbidden"
    assert client.post("http://127.0.0.1/chat/completions").status == 402
    assert client.post("http://127.0.0.1/stream").status == 429


def test_its_exception_crosses_a_process_boundary(rig: Rig) -> None:
    info = ErrorInfo(code="rate_limit", message="m")
    raised = pickle.loads(pickle.dumps(rig.ours.StreamError(info)))  # noqa: S301 -- our own bytes
    assert raised.info == info


def test_the_response_belongs_to_the_callers_request(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.completion("x"))
    client = rig.client()
    request = client.raw.build_request("POST", url, json=CHAT)
    response = client.run(lambda: client.raw.send(request))
    assert response.request is request
    assert response.extensions["http_version"] == b"HTTP/1.1"
    assert "traceparent" not in request.headers


# --- attach ---


def test_attach_puts_it_under_a_client_and_its_proxies(rig: Rig) -> None:
    kind = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    mounts = {"http://a.test": rig.inner(), "http://b.test": None}
    client = kind(proxy="http://127.0.0.1:9", mounts=mounts)
    before = (client._transport, list(client._mounts.values()))
    assert attach(client) is client
    ours = rig.ours.ClineTransport if rig.is_sync else rig.ours.AsyncClineTransport
    assert isinstance(client._transport, ours)
    assert client._transport._transport is before[0]
    wrapped = list(client._mounts.values())
    assert [w if w is None else w._transport for w in wrapped] == before[1]
    close(rig, client)


def test_attach_again_changes_nothing(rig: Rig) -> None:
    kind = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    client = attach(kind(proxy="http://127.0.0.1:9"))
    before = (client._transport, dict(client._mounts))
    attach(client)
    assert (client._transport, client._mounts) == before
    close(rig, client)


def test_one_transport_for_several_mounts_gets_one_wrapper(rig: Rig) -> None:
    kind = rig.library.Client if rig.is_sync else rig.library.AsyncClient
    shared = rig.inner()
    client = attach(kind(transport=shared, mounts={"http://a.test": shared}))
    assert set(map(id, client._mounts.values())) == {id(client._transport)}
    close(rig, client)


def close(rig: Rig, client: Any) -> None:
    if rig.portal is None:
        client.close()
    else:
        rig.portal.call(client.aclose)


@pytest.mark.parametrize("thing", [None, 7, object(), "client"])
def test_attach_refuses_anything_else(thing: object) -> None:
    with pytest.raises(TypeError, match=r"attach\(\) takes an httpx or httpx2 client"):
        attach(thing)


# --- everything switched off ---

OFF = Settings(enabled=False)
EACH_OFF = Settings(
    retry=RetryPolicy(enabled=False),
    errors=ErrorSettings(normalize=False),
    stream=StreamSettings(on_error="observe"),
    telemetry=TelemetrySettings(enabled=False),
)


@pytest.mark.parametrize("settings", [OFF, EACH_OFF], ids=["disabled", "each off"])
@pytest.mark.parametrize(
    "reply",
    [
        Reply.completion("x", request_id="r", response_id="g"),
        Reply.stream("one two", error="rate_limit", request_id="r", response_id="g"),
        Reply.stream("one two", cut_after=1, then="close", request_id="r", response_id="g"),
        Reply.json_error_in_200("server_error", request_id="r"),
        Reply.error(429, retry_after=1, request_id="r"),
        Reply.html(502, request_id="r"),
        Reply.raw(500, headers=[("content-encoding", "gzip")], body=b"broken"),
        Reply.close(),
    ],
)
def test_it_is_transparent(
    rig: Rig, api: Simulator, url: str, settings: Settings, reply: Reply
) -> None:
    api.enqueue(reply, reply)
    ours = rig.client(rig.transport(settings=settings)).post(url, json=CHAT)
    plain = rig.plain().post(url, json=CHAT)
    assert len(api.requests) == 2
    assert ours.status == plain.status
    assert stable(ours.body) == stable(plain.body)
    assert headers(ours.raw_headers) == headers(plain.raw_headers)
    assert type(ours.exception) is type(plain.exception)
    assert str(ours.exception) == str(plain.exception)
    first, second = api.requests
    assert (first.headers, first.body) == (second.headers, second.body)


def stable(body: bytes) -> bytes:
    return re.sub(rb'"created":\s*\d+', b"", body)


def headers(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(n, v) for n, v in raw if n.lower() not in (b"date", b"x-request-id")]
