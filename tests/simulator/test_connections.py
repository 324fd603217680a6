# SPDX-License-Identifier: Apache-2.0
"""Below HTTP: what happens to the connection, and when bytes leave."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Literal

import httpx
import pytest

from cline_transport.simulator import Gate, Reply, Simulator

from .support import CHAT, PATIENCE, ask, on_the_wire, read_all, read_until

if TYPE_CHECKING:
    from collections.abc import Callable

    Dial = Callable[[bytes], socket.socket]


def events_until_it_fails(http: httpx.Client, expected: type[httpx.TransportError]) -> bytes:
    body = bytearray()
    with (  # noqa: PT012 - it fails while it is read
        http.stream("POST", "chat/completions", json=ask()) as response,
        pytest.raises(expected),
    ):
        assert response.status_code == 200
        for piece in response.iter_raw():
            body += piece
    return bytes(body)


def test_a_connection_is_used_again(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(Reply.ok(), Reply.error(500), Reply.raw(body=[]), Reply.completion())
    for _ in range(4):
        http.post("chat/completions", json=ask())
    assert [request.connection for request in cline_api.requests] == [1, 1, 1, 1]
    assert cline_api.connections_accepted == cline_api.connections_open == 1
    http.close()
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert cline_api.connections_accepted == 1


def test_close_gives_no_response(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(Reply.close())
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        http.post("chat/completions", json=ask())
    assert http.post("chat/completions", json=ask()).status_code == 200
    first, second = cline_api.requests
    assert first.request_id is None
    assert first.json() == ask()
    assert (first.connection, second.connection) == (1, 2)


def test_reset_gives_a_connection_reset(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.reset())
    with pytest.raises(ConnectionResetError):
        dial(on_the_wire(ask())).recv(1)
    assert cline_api.requests[0].request_id is None


def test_stall_holds_the_connection_until_the_client_goes(
    cline_api: Simulator, http: httpx.Client
) -> None:
    cline_api.enqueue(Reply.stall())
    with pytest.raises(httpx.ReadTimeout):
        http.post("chat/completions", json=ask(), timeout=httpx.Timeout(PATIENCE, read=0.01))
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert len(cline_api.requests) == 1


def test_stopping_ends_a_stall(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.stall())
    sock = dial(on_the_wire(ask()))
    cline_api.wait_for(lambda: bool(cline_api.requests))
    cline_api.stop()
    assert read_all(sock) == b""


@pytest.mark.parametrize(
    ("then", "expected"), [("close", httpx.RemoteProtocolError), ("reset", httpx.ReadError)]
)
def test_a_stream_can_break_off_after_some_content(
    cline_api: Simulator,
    http: httpx.Client,
    then: Literal["close", "reset"],
    expected: type[httpx.TransportError],
) -> None:
    cline_api.enqueue(Reply.stream("one two three", cut_after=2, then=then))
    body = events_until_it_fails(http, expected)
    assert body.count(b"data: ") == 3
    assert b'" two"' in body
    assert b'"three"' not in body


def test_a_stream_can_end_after_some_content(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(Reply.stream("one two three", cut_after=1), Reply.stream(cut_after=0))
    first, second = (http.post("chat/completions", json=ask()).text for _ in range(2))
    assert (first.count("data: "), second.count("data: ")) == (2, 1)
    assert "[DONE]" not in first
    assert [request.connection for request in cline_api.requests] == [1, 1]


def test_a_stream_can_be_nothing_but_comments(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(Reply.stream(comments=2, role=False, cut_after=0))
    text = http.post("chat/completions", json=ask()).text
    assert text == ": OPENROUTER PROCESSING\n\n" * 2


def test_a_stream_can_stall_after_some_content(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.stream("one two", cut_after=1, then="stall"))
    sock = dial(on_the_wire(ask()))
    received = read_until(sock, b"\n\n\r\n")
    received += read_until(sock, b"\n\n\r\n")
    assert b'"one"' in received
    assert cline_api.connections_open == 1
    cline_api.stop()
    assert read_all(sock) == b""


def test_a_stream_can_break_off_after_its_error(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(
        Reply.stream("one two", error="server_error", error_after=1, done=False, then="close")
    )
    body = events_until_it_fails(http, httpx.RemoteProtocolError)
    assert body.count(b"data: ") == 3
    assert body.endswith(b'"Upstream provider failed during generation."}}]}\n\n')


def test_a_body_can_be_shorter_than_its_length(cline_api: Simulator, http: httpx.Client) -> None:
    cline_api.enqueue(Reply.raw(headers={"Content-Length": "9"}, body=b"{}", then="close"))
    assert events_until_it_fails(http, httpx.RemoteProtocolError) == b"{}"


def test_connections_are_refused_meanwhile(cline_api: Simulator, http: httpx.Client) -> None:
    assert http.get("models").status_code == 200
    port = cline_api.port
    with cline_api.refusing():
        assert cline_api.connections_open == 0
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                http.get("models")
    assert cline_api.port == port
    assert http.get("models").status_code == 200
    assert [request.connection for request in cline_api.requests] == [1, 2]


def test_refusing_drops_a_stalled_request(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.stall())
    sock = dial(on_the_wire(ask()))
    cline_api.wait_for(lambda: bool(cline_api.requests))
    with cline_api.refusing():
        assert read_all(sock) == b""


def test_a_gate_lets_one_event_go_for_each_permit(cline_api: Simulator, dial: Dial) -> None:
    gate = Gate()
    cline_api.enqueue(Reply.stream("one two", comments=1, gate=gate))
    sock = dial(on_the_wire(ask()))
    assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    for expected in (b": OPENROUTER", b'"role"', b'"one"', b'" two"', b'"stop"', b"[DONE]"):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(PATIENCE)
        gate.release()
        assert expected in read_until(sock, b"\n\n\r\n")
    assert read_until(sock, b"0\r\n\r\n") == b"0\r\n\r\n"


def test_a_permit_is_kept_if_the_client_goes_before_it(cline_api: Simulator, dial: Dial) -> None:
    gate = Gate(permits=1)
    reply = Reply.raw(body=[b"a", b"b"], gate=gate)
    cline_api.enqueue(reply, reply)
    sock = dial(on_the_wire(ask()))
    read_until(sock, b"\r\n\r\n")
    assert read_until(sock, b"a\r\n") == b"1\r\na\r\n"
    sock.close()
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    gate.release(2)
    sock = dial(on_the_wire(ask()))
    read_until(sock, b"\r\n\r\n")
    assert read_until(sock, b"0\r\n\r\n") == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


def test_a_gate_may_be_shared(cline_api: Simulator, dial: Dial) -> None:
    gate = Gate()
    reply = Reply.raw(body=b"x", gate=gate)
    cline_api.enqueue(reply, reply)
    socks = [dial(on_the_wire(ask())) for _ in range(2)]
    for sock in socks:
        read_until(sock, b"\r\n\r\n")
    gate.release()
    gate.release()
    assert [read_until(sock, b"x") for sock in socks] == [b"x", b"x"]


def test_a_client_that_reads_late_gets_everything(cline_api: Simulator) -> None:
    size = 1 << 25
    cline_api.enqueue(Reply.raw(body=b"x" * size))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", cline_api.port))
        sock.sendall(on_the_wire(ask(), "connection: close"))
        cline_api.wait_for(lambda: bool(cline_api.requests))
        assert len(read_all(sock).partition(b"\r\n\r\n")[2]) == size


def test_stopping_does_not_wait_for_a_client_that_does_not_read(
    cline_api: Simulator, dial: Dial
) -> None:
    cline_api.enqueue(Reply.raw(body=b"x" * (1 << 25)))
    dial(on_the_wire(ask()))
    cline_api.wait_for(lambda: bool(cline_api.requests))
    cline_api.stop()
    assert cline_api.connections_open == 0


def test_what_is_not_http_is_answered_with_400(cline_api: Simulator, dial: Dial) -> None:
    received = read_all(dial(b"HELLO\r\n\r\n"))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'{"error": {"code": 400, ' in received
    assert b"connection: close" in received.lower()
    assert cline_api.requests == []


def test_a_client_may_ask_before_it_sends_the_body(cline_api: Simulator, dial: Dial) -> None:
    head, _, body = on_the_wire(ask(False), "expect: 100-continue").partition(b"\r\n\r\n")
    sock = dial(head + b"\r\n\r\n")
    assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
    sock.sendall(body)
    assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert cline_api.requests[0].json() == ask(False)


def test_a_head_request_gets_no_body(cline_api: Simulator, http: httpx.Client) -> None:
    response = http.head("models")
    assert (response.status_code, response.content) == (404, b"")
    assert http.get("models").status_code == 200
    assert cline_api.connections_accepted == 1


def test_an_http_1_0_client_is_answered_and_disconnected(cline_api: Simulator, dial: Dial) -> None:
    received = read_all(dial(on_the_wire(ask(), version="1.0")))
    assert received.endswith(b"data: [DONE]\n\n")
    assert b"transfer-encoding" not in received.lower()


def test_requests_may_come_before_their_turn(cline_api: Simulator, dial: Dial) -> None:
    cline_api.enqueue(Reply.raw(body=b"first."), Reply.raw(body=b"second."))
    sock = dial(on_the_wire(ask()) * 2)
    assert read_until(sock, b"second.").count(b"first.") == 1
    assert [request.connection for request in cline_api.requests] == [1, 1]


def test_a_client_that_goes_in_the_middle_of_a_request_is_forgotten(
    cline_api: Simulator, dial: Dial
) -> None:
    sock = dial(on_the_wire(ask())[:-1])
    cline_api.wait_for(lambda: cline_api.connections_open == 1)
    sock.close()
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    assert cline_api.requests == []


def test_a_reply_that_http_forbids_is_logged_and_drops_the_connection(
    cline_api: Simulator, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    cline_api.enqueue(Reply.raw(headers={"content-length": "1"}, body=b"too long"))
    with pytest.raises(httpx.TransportError):
        http.post("chat/completions", json=ask())
    cline_api.wait_for(lambda: cline_api.connections_open == 0)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "cline_transport.simulator._connection")
    assert record.exc_info is not None
    assert "Too much data" in str(record.exc_info[1])


def test_the_record_of_a_request_is_complete_and_does_not_show_the_key(
    cline_api: Simulator, dial: Dial
) -> None:
    body = on_the_wire(b"\x00\xff", "x-a: 1", "X-A: 2").replace(
        b"/completions", b"/completions?q=1"
    )
    read_until(dial(body), b"\r\n\r\n")
    (request,) = cline_api.requests
    assert (request.method, request.path, request.target) == ("POST", CHAT, f"{CHAT}?q=1")
    assert request.headers["x-a"] == "1, 2"
    assert request.headers["authorization"] == "Bearer sk-simulator"
    assert (request.body, request.connection) == (b"\x00\xff", 1)
    assert request.time > 0
    assert "sk-simulator" not in repr(request)
    with pytest.raises(ValueError, match="Expecting value"):
        request.json()


def test_a_client_may_take_it_for_a_proxy(cline_api: Simulator) -> None:
    with httpx.Client(proxy=f"http://127.0.0.1:{cline_api.port}", trust_env=False) as client:
        response = client.post(
            f"http://api.test{CHAT}",
            json=ask(),
            headers={"authorization": f"Bearer {cline_api.api_key}"},
        )
    assert response.status_code == 200
    assert cline_api.requests[0].target == f"http://api.test{CHAT}"
    assert cline_api.requests[0].path == CHAT
