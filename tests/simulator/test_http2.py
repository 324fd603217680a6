# SPDX-License-Identifier: Apache-2.0
"""The same over HTTP/2, which a client has to know to be spoken here."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sys
from typing import TYPE_CHECKING, Any

import h2.events
import h2.settings
import httpx
import httpx2
import openai
import pytest

from cline_transport.simulator import Gate, ReceivedRequest, Reply, Simulator
from cline_transport.simulator._connection import HTTP2_PREFACE, Connection
from cline_transport.simulator._response import Response, respond

from .peer import Peer
from .support import CHAT, MESSAGES, MODEL, PATIENCE, ask, on_the_wire, read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cline_transport.simulator._request import Incoming


HEAD = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", CHAT)]


@pytest.fixture(params=[httpx, httpx2])
def client(cline_api: Simulator, request: pytest.FixtureRequest) -> Iterator[Any]:
    family = request.param
    with family.Client(
        transport=family.HTTPTransport(http1=False, http2=True),
        base_url=cline_api.base_url,
        headers={"authorization": f"Bearer {cline_api.api_key}"},
        timeout=PATIENCE,
    ) as made:
        yield made


def body_of(client: Any) -> tuple[bytes, str]:
    """The body as far as it comes, and the name of what broke it off."""
    received = bytearray()
    try:
        with client.stream("POST", "chat/completions", json=ask()) as response:
            for piece in response.iter_bytes():
                received += piece
    except (httpx.TransportError, httpx2.TransportError) as error:
        return bytes(received), type(error).__name__
    return bytes(received), ""


def test_replies_are_the_same(cline_api: Simulator, client: Any) -> None:
    cline_api.enqueue(
        Reply.ok("Hi"),
        Reply.completion("Hi"),
        Reply.error(429, retry_after=1),
        Reply.html(),
        Reply.raw(204),
        Reply.raw(body=[]),
        Reply.raw(body=[b"a", b"", b"b"]),
        Reply.stream("Hi", encoding="gzip", split=5, comments=1),
        Reply.stream("Hi", drip=(50, 0.001)),
        Reply.raw(body=b"abc", cut_at=2),
    )
    answers = [client.post("chat/completions", json=ask()) for _ in range(10)]
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert [a.status_code for a in answers] == [200, 200, 429, 502, 204, *[200] * 5]
    assert answers[0].text.endswith("data: [DONE]\n\n")
    assert "transfer-encoding" not in answers[0].headers
    assert answers[1].json()["choices"][0]["message"]["content"] == "Hi"
    assert answers[2].headers["retry-after"] == "1"
    assert [answer.content for answer in answers[4:7]] == [b"", b"", b"ab"]
    assert answers[7].text.startswith(": OPENROUTER PROCESSING\n\n")
    assert answers[8].text.count("data: ") == 4
    assert answers[9].content == b"ab"
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert [request.request_id for request in cline_api.requests] == ids
    assert {request.http_version for request in cline_api.requests} == {"HTTP/2"}
    assert {request.connection for request in cline_api.requests} == {1}


def test_the_gateway_is_the_same(client: Any) -> None:
    assert client.get("models").status_code == 200
    assert client.get("nothing").status_code == 404
    head = client.head("models")
    assert (head.status_code, head.content) == (404, b"")
    assert client.post("chat/completions", json=ask(model="sim/503")).status_code == 503


def test_the_sdk_speaks_it(cline_api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        httpx2.Client(transport=httpx2.HTTPTransport(http1=False, http2=True)) as http_client,
        openai.OpenAI(
            base_url=cline_api.base_url, api_key=cline_api.api_key, http_client=http_client
        ) as sdk,
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream,
    ):
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "Hello from the simulator."


def test_http_1_is_told_from_it(cline_api: Simulator) -> None:
    httpx.post(f"{cline_api.base_url}/x", json={}, trust_env=False)
    with socket.create_connection(("127.0.0.1", cline_api.port), timeout=PATIENCE) as sock:
        sock.sendall(on_the_wire(ask(), version="1.0"))
        read_all(sock)
    assert [r.http_version for r in cline_api.requests] == ["HTTP/1.1", "HTTP/1.0"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply.close(), (b"", "RemoteProtocolError")),
        (Reply.reset(), (b"", "RemoteProtocolError")),
        (Reply.raw(body=[b"a", b"b"], then="close"), (b"ab", "RemoteProtocolError")),
        (Reply.raw(body=[b"a", b"b"], then="reset"), (b"ab", "RemoteProtocolError")),
        (Reply.raw(body=[b"abc"], cut_at=2, then="reset"), (b"ab", "RemoteProtocolError")),
    ],
)
def test_a_response_can_be_lost(
    cline_api: Simulator, client: Any, reply: Reply, expected: tuple[bytes, str]
) -> None:
    cline_api.enqueue(reply)
    assert body_of(client) == expected
    assert client.post("chat/completions", json=ask()).status_code == 200
    # A reset is the stream's alone.
    connections = [request.connection for request in cline_api.requests]
    assert connections == ([1, 1] if reply.then == "reset" else [1, 2])


def test_a_close_ends_the_other_streams_too(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    gate = Gate()
    cline_api.enqueue(Reply.raw(body=[b"a"], gate=gate), Reply.close())
    peer = h2_dial()
    peer.ask()
    peer.until(h2.events.ResponseReceived)
    peer.ask()
    assert read_all(peer.sock) == b""
    # What the client still sends is read, so that it sees an end and no reset, and not answered.
    peer.ask()
    assert read_all(peer.sock) == b""
    peer.sock.close()
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert len(cline_api.requests) == 2
    gate.release()  # which the stream that was lost does not take
    cline_api.enqueue(Reply.raw(body=b"b", gate=gate))
    other = h2_dial()
    other.ask()
    assert other.until(h2.events.DataReceived).data == b"b"


def test_a_stall_holds_the_stream_alone(cline_api: Simulator, h2_dial: Callable[..., Peer]) -> None:
    cline_api.enqueue(Reply.stall(), Reply.raw(body=[b"a"], then="stall"), Reply.raw(body=[b"b"]))
    peer = h2_dial()
    first, second, third = (peer.ask() for _ in range(3))
    assert peer.until(h2.events.DataReceived).stream_id == second
    assert peer.until(h2.events.DataReceived).stream_id == third
    assert peer.until(h2.events.StreamEnded).stream_id == third
    assert peer.silent()
    cline_api.stop()
    assert first == 1
    assert read_all(peer.sock) == b""


@pytest.mark.parametrize("family", [httpx, httpx2])
def test_streams_do_not_wait_for_each_other(cline_api: Simulator, family: Any) -> None:
    gate = Gate()
    reply = Reply.stream("Hi", gate=gate)

    def respond(request: ReceivedRequest) -> Reply:
        if request.method == "GET":
            gate.release(16)  # all four streams are open, and wait
            return Reply.raw(body=b"now")
        return reply

    async def main() -> list[str]:
        transport = family.AsyncHTTPTransport(http1=False, http2=True)
        async with family.AsyncClient(
            transport=transport, base_url=cline_api.base_url, timeout=PATIENCE
        ) as client:
            await client.send(client.build_request("GET", "models"))
            streams = [
                await client.send(
                    client.build_request("POST", "chat/completions", json=ask()), stream=True
                )
                for _ in range(4)
            ]
            assert (await client.get("models")).text == "now"
            return [(await stream.aread()).decode() for stream in streams]

    cline_api.enqueue(Reply.raw())
    cline_api.respond = lambda r: respond(r) if len(cline_api.requests) else None
    assert all(body.endswith("data: [DONE]\n\n") for body in asyncio.run(main()))
    assert [request.connection for request in cline_api.requests] == [1] * 6


def test_a_gate_lets_one_event_go_for_each_permit(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    gate = Gate()
    cline_api.enqueue(Reply.stream("one", gate=gate))
    peer = h2_dial()
    peer.ask()
    peer.until(h2.events.ResponseReceived)
    for expected in (b'"role"', b'"one"', b'"stop"', b"[DONE]"):
        assert peer.silent()
        gate.release()
        assert expected in peer.until(h2.events.DataReceived).data
    peer.until(h2.events.StreamEnded)


def test_a_stream_waits_for_its_window(cline_api: Simulator, h2_dial: Callable[..., Peer]) -> None:
    cline_api.enqueue(Reply.raw(body=b"abcdefgh"), Reply.raw(body=b"xyz"))
    peer = h2_dial(window=3)
    first, second = peer.ask(), peer.ask()
    assert peer.until(h2.events.DataReceived, first).data == b"abc"
    assert peer.until(h2.events.StreamEnded).stream_id == second
    assert peer.silent()
    peer.h2.increment_flow_control_window(4, first)
    peer.flush()
    assert peer.until(h2.events.DataReceived).data == b"defg"
    assert peer.silent()
    # Which any wider setting opens too.
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
    peer.flush()
    assert peer.until(h2.events.DataReceived).data == b"h"
    assert peer.until(h2.events.StreamEnded).stream_id == first


def test_big_bodies_go_both_ways(cline_api: Simulator, client: Any) -> None:
    size = 1 << 22
    cline_api.enqueue(Reply.raw(body=b"x" * size))
    response = client.post("chat/completions", content=b"y" * size)
    assert len(response.content) == size
    assert cline_api.requests[0].body == b"y" * size


def test_a_client_may_give_up_a_stream(cline_api: Simulator, h2_dial: Callable[..., Peer]) -> None:
    gate = Gate()
    cline_api.enqueue(Reply.raw(body=[b"a"], gate=gate), Reply.raw(body=[b"b"], gate=gate))
    peer = h2_dial()
    first, second = peer.ask(), peer.ask()
    peer.until(h2.events.ResponseReceived, second)
    peer.h2.reset_stream(first)
    assert peer.silent()
    gate.release()  # one permit: it is not lost to the first
    assert peer.until(h2.events.DataReceived).data == b"b"
    assert peer.until(h2.events.StreamEnded).stream_id == second


def test_a_client_may_give_up_its_own_request(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    peer = h2_dial()
    peer.h2.send_headers(
        1, [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", CHAT)]
    )
    peer.h2.reset_stream(1)
    assert peer.silent()
    assert cline_api.requests == []
    assert cline_api.connections_open == 1


def test_a_client_may_go_or_say_goodbye(cline_api: Simulator, h2_dial: Callable[..., Peer]) -> None:
    cline_api.enqueue(*[Reply.raw(body=[b"a"], gate=Gate())] * 2)
    peers = [h2_dial(), h2_dial()]
    for peer in peers:
        peer.ask()
        peer.until(h2.events.ResponseReceived)
    peers[0].sock.close()
    peers[1].h2.close_connection()
    peers[1].flush()
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert read_all(peers[1].sock) == b""


def test_what_breaks_the_protocol_is_told_goodbye(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    peer = h2_dial()
    peer.ask(("Upper-Case", "x"))
    goodbye = peer.until(h2.events.ConnectionTerminated)
    assert goodbye.error_code == 1
    assert read_all(peer.sock) == b""
    assert cline_api.requests == []


def test_the_record_of_a_request_is_complete(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    cline_api.enqueue(Reply.raw(headers={"Connection": "close", "Keep-Alive": "x", "X-A": "1"}))
    peer = h2_dial()
    peer.ask(("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("cookie", "b=2"), body=b"\x00")
    headers = dict(peer.until(h2.events.ResponseReceived).headers)
    assert headers.pop("x-request-id").startswith("req_")
    assert headers == {":status": "200", "x-a": "1", "content-length": "0"}
    (request,) = cline_api.requests
    assert (request.method, request.path, request.target) == ("POST", CHAT, f"{CHAT}?q=1")
    assert request.headers == {"host": "simulator", "x-a": "1, 2", "cookie": "a=1; b=2"}
    assert (request.body, request.connection, request.http_version) == (b"\x00", 1, "HTTP/2")


def test_a_client_may_ask_before_it_sends_the_body(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    cline_api.enqueue(Reply.raw(body=b"ok"))
    peer = h2_dial()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", CHAT),
        ("expect", "100-continue"),
    ]
    peer.h2.send_headers(1, fields)
    peer.flush()
    peer.until(h2.events.InformationalResponseReceived)
    peer.h2.send_data(1, b"{}", end_stream=True)
    peer.flush()
    assert peer.until(h2.events.DataReceived).data == b"ok"
    assert cline_api.requests[0].body == b"{}"


def test_trailers_of_a_request_are_passed_over(
    cline_api: Simulator, h2_dial: Callable[..., Peer]
) -> None:
    peer = h2_dial()
    peer.h2.send_headers(1, HEAD)
    peer.h2.send_headers(1, [("x-trailer", "1")], end_stream=True)
    peer.flush()
    assert dict(peer.until(h2.events.ResponseReceived).headers)[":status"] == "401"
    assert cline_api.requests[0].headers == {"host": "x"}


def test_an_answer_that_cannot_be_made_is_logged_and_drops_the_connection(
    cline_api: Simulator, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def respond(request: ReceivedRequest) -> Reply:
        raise LookupError(request.path)

    cline_api.respond = respond
    assert body_of(client)[1] in {"RemoteProtocolError", "ReadError"}
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (
        logging.ERROR,
        "The simulator could not answer a request",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_without_h2_the_package_is_named_when_a_client_speaks_http_2(
    cline_api: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import cline_transport.simulator  # noqa: PLC0415 - its attribute is taken away

    monkeypatch.delitem(sys.modules, "cline_transport.simulator._http2", raising=False)
    monkeypatch.delattr(cline_transport.simulator, "_http2", raising=False)
    monkeypatch.setitem(sys.modules, "h2.config", None)
    with socket.create_connection(("127.0.0.1", cline_api.port), timeout=PATIENCE) as sock:
        sock.sendall(HTTP2_PREFACE)
        assert read_all(sock) == b""
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert (
        "ModuleNotFoundError: the simulator needs the package 'h2': "
        "pip install 'cline-transport[http2]'" in caplog.text
    )
    assert httpx.get(f"{cline_api.base_url}/x", trust_env=False).status_code == 404


class Wire(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def write(self, data: Any) -> None:
        self.written += data


@pytest.mark.parametrize("size", [1, 5, 17])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HTTP2_PREFACE, rb"...\x04\x00"),  # a settings frame
        (b"PRI * HTTP/1.1\r\nhost: x\r\n\r\n", rb"HTTP/1.1 200 "),
        (b"PUT * HTTP/1.1\r\nhost: x\r\n\r\n", rb"HTTP/1.1 200 "),
    ],
)
def test_a_preface_may_come_in_parts(size: int, data: bytes, expected: bytes) -> None:
    def answer(incoming: Incoming) -> Response:
        return respond(Reply.raw(), bytes(incoming.body))

    def ignore(connection: Connection) -> None:
        """Nobody counts here."""

    async def main() -> bytes:
        wire = Wire()
        connection = Connection(answer, ignore, ignore)
        connection.connection_made(wire)
        for at in range(0, len(data), size):
            assert not wire.written
            connection.data_received(data[at : at + size])
            for _ in range(5):  # the connection's turn
                await asyncio.sleep(0)
        connection.connection_lost(None)
        await asyncio.gather(connection.task, return_exceptions=True)
        return bytes(wire.written)

    assert re.match(expected, asyncio.run(main()), re.DOTALL)
