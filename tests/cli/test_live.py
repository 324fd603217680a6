# SPDX-License-Identifier: Apache-2.0
"""`cline-transport demo --live`, against the simulator."""

from __future__ import annotations

import io

import pytest

from cline_transport._demo.live import BASE_URL, LiveOptions, read_live_options, run_live
from cline_transport._demo.stage import make_console
from cline_transport.cli import main
from cline_transport.simulator import Reply, Simulator

KEY = "sk-simulator"


@pytest.fixture
def live(cline_api: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    monkeypatch.setenv("CLINE_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("CLINE_BASE_URL", cline_api.base_url)
    return cline_api


def test_a_good_call(live: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--live"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "One call to 127.0.0.1" in out
    assert '"Hello from the simulator."' in out
    assert "chat anthropic/claude-sonnet-4.6" in out
    assert "the call succeeded" in out
    assert KEY not in out
    (request,) = live.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_a_failed_call_of_another_model(
    live: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINE_MODEL", "sim/402")
    assert main(["demo", "--live", "--no-color"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "openai.APIStatusError" in out
    assert "1. Error code and message: 402: Insufficient account credits" in out
    assert "the call failed" in out


def test_the_key_is_not_shown_where_the_server_repeats_it(
    live: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    live.enqueue(Reply.error(401, message=f"Unknown key {KEY}", code=KEY, request_id=KEY))
    assert main(["demo", "--live"]) == 1
    out, err = capsys.readouterr()
    assert "Unknown key [redacted]" in out
    assert KEY not in out + err


def test_a_connection_that_breaks_in_the_middle(
    live: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    live.enqueue(Reply.stream("one two three", cut_after=2, then="close"))
    assert main(["demo", "--live"]) == 1
    out = capsys.readouterr().out
    assert '"one two"' in out
    # openai 3 wraps what the wire raises, openai 2 hands it on.
    assert any(name in out for name in ("openai.APIConnectionError", "httpx.RemoteProtocolError"))
    assert "code        connection_closed" in out


def test_no_server() -> None:
    slept: list[float] = []
    out = io.StringIO()
    with Simulator() as api, api.refusing():
        options = LiveOptions(api_key=KEY, base_url=api.base_url)
        assert run_live(make_console(file=out), options, sleep=slept.append) == 1
    assert "openai.APIConnectionError" in out.getvalue()
    assert "connect_error" in out.getvalue()
    assert len(slept) >= 3


def test_through_a_proxy_of_the_environment(
    cline_api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The simulator takes any path: it stands for the proxy, and sees the whole URL.
    monkeypatch.setenv("HTTP_PROXY", cline_api.base_url.removesuffix("/api/v1"))
    cline_api.enqueue(Reply.error(503), Reply.stream("Hello"))
    slept: list[float] = []
    options = LiveOptions(api_key=KEY, base_url="http://gateway.example/v1")
    assert run_live(make_console(file=io.StringIO()), options, sleep=slept.append) == 0
    assert [request.target for request in cline_api.requests] == [
        "http://gateway.example/v1/chat/completions"
    ] * 2
    assert len(slept) == 1


def test_a_key_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--live"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "cline-transport: demo --live needs an API key in the environment variable CLINE_API_KEY\n"
    )


def test_defaults() -> None:
    options = read_live_options({"CLINE_API_KEY": KEY, "CLINE_MODEL": " "})
    assert options == LiveOptions(api_key=KEY)
    assert (options.base_url, options.model) == (BASE_URL, "anthropic/claude-sonnet-4.6")
    assert KEY not in repr(options)


@pytest.mark.parametrize("key", ["  ", "two words", "schl\u00fcssel", "a\nb"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="CLINE_API_KEY") as caught:
        read_live_options({"CLINE_API_KEY": key})
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize("url", ["api.cline.bot", "ftp://x/", "http://", "http://x:y/", "http://["])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="CLINE_BASE_URL"):
        read_live_options({"CLINE_API_KEY": KEY, "CLINE_BASE_URL": url})


def test_a_wrong_setting_is_told_not_traced(
    live: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__DEADLINE", "-1")
    assert main(["demo", "--live"]) == 1
    assert "retry" in capsys.readouterr().err
    monkeypatch.delenv("CLINE_TRANSPORT_RETRY__DEADLINE")
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", "no-such-file.toml")
    assert main(["demo", "--live"]) == 1
    assert "no-such-file.toml" in capsys.readouterr().err
