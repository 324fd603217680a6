# SPDX-License-Identifier: Apache-2.0
"""A client that speaks HTTP/2 frame by frame."""

from __future__ import annotations

import json
import socket
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from .support import CHAT, PATIENCE, ask


class Peer:
    """An HTTP/2 client that shows each frame's event."""

    def __init__(self, port: int, window: int = 65535) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        # What a well-behaved client must not send is to be tried too.
        config = h2.config.H2Configuration(
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(
            initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, *extra: tuple[str, str], method: str = "POST", body: bytes | None = None) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "simulator"),
            (":path", f"{CHAT}?q=1"),
            *extra,
        ]
        self.h2.send_headers(stream, fields)
        self.h2.send_data(stream, json.dumps(ask()).encode() if body is None else body, True)
        self.flush()
        return stream

    def until(self, kind: type[h2.events.Event], stream: int | None = None) -> Any:
        """The next event of this kind (on this stream); those before it are forgotten."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind) and stream in {None, getattr(event, "stream_id", None)}:
                    return event
            data = self.sock.recv(65536)
            assert data, "closed"
            self.events += self.h2.receive_data(data)

    def silent(self) -> bool:
        """Whether nothing comes that is about a stream."""
        self.h2.ping(b"12345678")
        self.flush()
        before: list[h2.events.Event] = []
        while not any(isinstance(e, h2.events.PingAckReceived) for e in before):
            data = self.sock.recv(65536)
            assert data, "closed"
            before += self.h2.receive_data(data)
        return not any(hasattr(event, "stream_id") for event in before)
