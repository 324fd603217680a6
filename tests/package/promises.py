# SPDX-License-Identifier: Apache-2.0
"""What an installation promises with each extra: a program of its own for each.

`python -m tests.package` runs them where only the wheel is installed. Each asserts; the names are
those of the extras, and `nothing` is an installation without.
"""

from __future__ import annotations

from typing import Final

_CALL: Final = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from cline_transport import RetryPolicy, RetryRule, Settings, attach

statuses = [503, 200]

class Api(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status = statuses.pop(0)
        body = {"choices": [], "object": "chat.completion"} if status == 200 else {"error": {}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

def call(client):
    server = HTTPServer(("127.0.0.1", 0), Api)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with client:
            url = f"http://127.0.0.1:{server.server_port}/chat/completions"
            response = client.post(url, json={"model": "m"})
    finally:
        server.shutdown()
        server.server_close()
    assert response.status_code == 200
    assert [a.status_code for a in response.extensions["cline_transport"].attempts] == [503, 200]

rules = {503: RetryRule(max_retries=1, initial=0)}
SETTINGS = Settings(retry=RetryPolicy(rules=rules, jitter=0))
"""

_COMPRESSED: Final = """
from cline_transport.simulator import Reply, Simulator
import httpx
with Simulator() as api:
    api.enqueue(Reply.ok("Hello", encoding={encoding!r}))
    told = httpx.post(f"{{api.base_url}}/chat/completions", json={{"model": "cline/ok"}})
    assert told.headers["content-encoding"] == {encoding!r}
    assert b"Hello" in told.content
"""

_STORAGE: Final = """
import httpx
from cline_transport import ClineTransport, LimitSettings, Settings
limits = LimitSettings(max_concurrency=1, storage={url!r})
httpx.Client(transport=ClineTransport(settings=Settings(limits=limits))).close()
"""

PROGRAMS: Final = {
    "nothing": _CALL
    + """
import httpx
call(attach(httpx.Client(), settings=SETTINGS))
""",
    "httpx2": _CALL
    + """
import httpx2
from cline_transport.httpx2 import ClineTransport
call(httpx2.Client(transport=ClineTransport(settings=SETTINGS)))
""",
    "openai": """
from openai import OpenAI, BadRequestError
from cline_transport import error_info
from cline_transport.openai import async_http_client, http_client
from cline_transport.simulator import Reply, Simulator
with Simulator() as api:
    client = OpenAI(base_url=api.base_url, api_key=api.api_key, http_client=http_client())
    api.enqueue(Reply.error(400))
    try:
        client.chat.completions.create(model="cline/ok", messages=[])
    except BadRequestError as exc:
        assert error_info(exc).code == 400
    else:
        raise AssertionError
""",
    "redis": _STORAGE.format(url="redis://127.0.0.1:1"),
    "valkey": _STORAGE.format(url="valkey://127.0.0.1:1"),
    "brotli": _COMPRESSED.format(encoding="br"),
    "zstd": """
from cline_transport.simulator import Reply
Reply.ok("Hello", encoding="zstd")
""",
    "http2": """
import httpx
from cline_transport import attach
from cline_transport.simulator import Simulator
with Simulator() as api, attach(httpx.Client(http1=False, http2=True)) as client:
    told = client.post(f"{api.base_url}/chat/completions", json={"model": "cline/ok"})
    assert told.http_version == "HTTP/2"
""",
    "simulator": """
from cline_transport.simulator import Reply, Simulator
with Simulator() as api:
    assert api.base_url.startswith("http://127.0.0.1:")
""",
    "demo": """
import sys
from cline_transport.cli import main
assert main(["demo", "--no-color"]) == 0
""",
}

ABSENT: Final = {
    "import cline_transport.httpx2": "httpx2",
    "import cline_transport.openai": "openai",
    "from cline_transport.simulator import Reply; Reply.ok(encoding='br')": "brotli",
    "from cline_transport.simulator import Reply; Reply.ok(encoding='zstd')": "zstd",
    "import cline_transport.simulator._http2": "http2",
    _STORAGE.format(url="redis://127.0.0.1:1"): "redis",
    "import sys; from cline_transport.cli import main; sys.exit(main(['demo']))": "demo",
}
"""What needs an extra, and the one that is named where it is not installed."""

WITHOUT_H11: Final = "from cline_transport.simulator import Simulator; Simulator()"
"""httpx brings h11, so nobody meets this today."""
