# SPDX-License-Identifier: Apache-2.0
"""`httpx2.alias_httpx()`: `import httpx` gives httpx2, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("httpx2")

BEFORE = """
import httpx2
httpx2.alias_httpx()
"""
SETUP = """
import httpx
from cline_transport import RetryPolicy, RetryRule, Settings, attach, detach
from cline_transport.simulator import Reply, Simulator

SETTINGS = Settings(
    hosts=("127.0.0.1",),
    retry=RetryPolicy(rules={503: RetryRule(max_retries=1, initial=0)}, jitter=0),
)

def attempts(client):
    with Simulator() as api, client:
        api.enqueue(*[Reply.error(503)] * 9)
        client.post(f"{api.base_url}/chat/completions", json={"model": "cline/ok"})
        return len(api.requests)
"""


def run(program: str) -> None:
    """Run a program that asserts; warnings are errors."""
    done = subprocess.run(  # noqa: S603 -- our own interpreter, our own code
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_it_there_are_two_libraries() -> None:
    pytest.importorskip("httpx")
    run("""
import httpx, httpx2, cline_transport.httpx, cline_transport.httpx2
assert httpx is not httpx2
assert cline_transport.httpx.ClineTransport is not cline_transport.httpx2.ClineTransport
""")


@pytest.mark.parametrize("first", ["httpx", "httpx2"])
def test_both_pages_are_one(first: str) -> None:
    run(f"""
{BEFORE}
import cline_transport.{first}
import cline_transport.httpx, cline_transport.httpx2
from cline_transport import ClineTransport, httpx as by_from
assert cline_transport.httpx is cline_transport.httpx2 is by_from
assert ClineTransport is cline_transport.httpx2.ClineTransport
assert ClineTransport.__module__ == "cline_transport.httpx2"
assert issubclass(ClineTransport, httpx2.BaseTransport)
""")


@pytest.mark.parametrize("page", ["httpx", "httpx2"])
def test_a_client_gets_no_second_transport(page: str) -> None:
    run(f"""
{BEFORE}
{SETUP}
from cline_transport.{page} import ClineTransport
assert attempts(httpx.Client(transport=ClineTransport(settings=SETTINGS))) == 2
client = attach(httpx.Client(transport=ClineTransport(settings=SETTINGS)), settings=SETTINGS)
assert type(client._transport._transport) is httpx2.HTTPTransport
assert attempts(client) == 2
""")


@pytest.mark.parametrize("page", ["httpx", "httpx2"])
def test_detach_finds_it(page: str) -> None:
    run(f"""
{BEFORE}
{SETUP}
from cline_transport.{page} import ClineTransport
client = detach(httpx.Client(transport=ClineTransport(settings=SETTINGS)))
assert type(client._transport) is httpx2.HTTPTransport
assert attempts(client) == 1
""")


def test_an_error_in_a_stream_is_caught_by_either_name() -> None:
    run(f"""
{BEFORE}
{SETUP}
import cline_transport.httpx, cline_transport.httpx2
from cline_transport import StreamSettings, error_info
for page in (cline_transport.httpx, cline_transport.httpx2):
    client = attach(httpx.Client(), settings=Settings(stream=StreamSettings(on_error="raise")))
    with Simulator() as api, client:
        api.enqueue(Reply.stream("one two", error="rate_limit"))
        try:
            client.post(f"{{api.base_url}}/chat/completions", json={{"model": "cline/ok"}})
        except page.StreamError as exc:
            assert error_info(exc).code == "rate_limit"
        else:
            raise AssertionError
""")


@pytest.mark.parametrize("instrumented", ["before the alias", "after it", "after both imports"])
def test_the_instrumentor_patches_the_one_library_once_and_restores_it(instrumented: str) -> None:
    before, after = ("", "instrument()") if instrumented != "before the alias" else ("i()", "")
    imports = "import httpx, httpx2" if instrumented == "after both imports" else ""
    run(f"""
from cline_transport.instrumentor import ClineTransportInstrumentor
def instrument():
    from cline_transport import RetryPolicy, RetryRule, Settings
    rules = {{503: RetryRule(max_retries=1, initial=0)}}
    settings = Settings(hosts=("127.0.0.1",), retry=RetryPolicy(rules=rules, jitter=0))
    ClineTransportInstrumentor().instrument(settings=settings)
{before.replace("i()", "instrument()")}
{BEFORE}
{imports}
{after}
{SETUP}
assert attempts(httpx.Client()) == 2
ClineTransportInstrumentor().uninstrument()
for client in (httpx2.Client, httpx2.AsyncClient):
    assert client._transport_for_url.__module__ == "httpx2._client"
    assert not hasattr(client._transport_for_url, "__wrapped__")
assert attempts(httpx.Client()) == 1
""")


@pytest.mark.parametrize(
    "kinds",
    [
        ("HTTPXClientInstrumentor",),
        ("HTTPX2ClientInstrumentor",),
        ("HTTPXClientInstrumentor", "HTTPX2ClientInstrumentor"),
    ],
    ids=" ".join,
)
def test_each_attempt_has_one_http_span_whoever_makes_it(kinds: tuple[str, ...]) -> None:
    run(f"""
{BEFORE}
{SETUP}
from opentelemetry.instrumentation import httpx as instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
for kind in {kinds}:
    getattr(instrumentation, kind)().instrument(tracer_provider=provider)
assert attempts(attach(httpx.Client(), settings=SETTINGS, tracer_provider=provider)) == 2
assert sorted(span.name for span in spans.get_finished_spans()) == ["POST", "POST", "chat cline/ok"]
""")


def test_ours_may_be_imported_before_it_and_httpx_not() -> None:
    run("""
import httpx2
import cline_transport, cline_transport.instrumentor, cline_transport.simulator
from cline_transport import Settings, error_info, attach
httpx2.alias_httpx()
import cline_transport.httpx
assert cline_transport.httpx.ClineTransport.__module__ == "cline_transport.httpx2"
""")
    pytest.importorskip("httpx")
    run("""
import httpx2
import cline_transport.httpx
try:
    httpx2.alias_httpx()
except RuntimeError as exc:
    assert str(exc).startswith("httpx was already imported; call `alias_httpx()` before")
else:
    raise AssertionError
""")
