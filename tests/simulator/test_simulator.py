# SPDX-License-Identifier: Apache-2.0
"""The simulator's life: start, stop, waiting, the command, the pytest plugin, the imports."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

import cline_transport.simulator
from cline_transport.simulator import Gate, ReceivedRequest, Reply, Simulator, serve_forever

from .support import PATIENCE, ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def get_models(api: Simulator) -> int:
    headers = {"authorization": f"Bearer {api.api_key}"}
    return httpx.get(
        f"{api.base_url}/models", headers=headers, trust_env=False, timeout=PATIENCE
    ).status_code


def test_it_can_be_started_again_and_keeps_its_record() -> None:
    api = Simulator()
    for times in (1, 2):
        assert api.start() is api
        assert get_models(api) == 200
        api.stop()
        assert len(api.requests) == times
        assert (api.connections_open, api.connections_accepted) == (0, 1)


def test_it_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with Simulator() as api:
        assert get_models(api) == 200
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) <= before


def test_what_is_stopped_refuses_connections() -> None:
    with Simulator() as api:
        url = api.base_url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_it_says_when_it_is_not_started() -> None:
    api = Simulator()
    uses: list[Callable[[], object]] = [
        lambda: api.base_url,
        lambda: api.port,
        lambda: api.refusing().__enter__(),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="the simulator is not started"):
            use()
    api.stop()
    assert (api.connections_open, api.connections_accepted) == (0, 0)


def test_it_starts_once(cline_api: Simulator) -> None:
    with pytest.raises(RuntimeError, match="the simulator is started already"):
        cline_api.start()
    assert get_models(cline_api) == 200


def test_a_port_that_is_taken_is_an_error(cline_api: Simulator) -> None:
    with pytest.raises(OSError, match=r"in use|permitted"):
        Simulator(port=cline_api.port).start()


def test_the_address_can_be_chosen() -> None:
    try:
        with Simulator(host="::1") as api:
            assert api.base_url == f"http://[::1]:{api.port}/api/v1"
            assert get_models(api) == 200
    except OSError:
        pytest.skip("no IPv6 loopback here")


def test_it_refuses_once_at_a_time(cline_api: Simulator) -> None:
    with (
        cline_api.refusing(),
        pytest.raises(RuntimeError, match="refuses connections already"),
        cline_api.refusing(),
    ):
        pass
    assert get_models(cline_api) == 200


def test_it_can_be_stopped_while_it_refuses() -> None:
    with Simulator() as api, api.refusing():
        api.stop()
        api.start()
        assert get_models(api) == 200
    assert len(api.requests) == 1


def test_replies_are_served_in_order_and_forgotten_by_a_reset(cline_api: Simulator) -> None:
    cline_api.enqueue(Reply.error(500), Reply.error(503))
    cline_api.enqueue(Reply.error(429))
    assert [get_models(cline_api) for _ in range(4)] == [500, 503, 429, 200]
    seen = cline_api.requests
    cline_api.enqueue(Reply.error(500))
    cline_api.reset()
    assert get_models(cline_api) == 200
    assert (len(seen), len(cline_api.requests)) == (4, 1)
    assert seen[0].time <= seen[-1].time <= time.monotonic()


def test_a_request_can_be_answered_by_a_function(caplog: pytest.LogCaptureFixture) -> None:
    def respond(request: ReceivedRequest) -> Reply | None:
        # Whatever a test may ask in it: no lock is held.
        seen.append((request.path, request.request_id, len(api.requests)))
        wanted = request.headers.get("x-status")
        return None if wanted is None else Reply.error(int(wanted))

    def status(wanted: str = "") -> int:
        headers = {"authorization": f"Bearer {api.api_key}"}
        headers |= {"x-status": wanted} if wanted else {}
        url = f"{api.base_url}/models"
        return httpx.get(url, headers=headers, trust_env=False, timeout=PATIENCE).status_code

    seen: list[tuple[str, str | None, int]] = []
    with Simulator(respond=respond) as api:
        api.enqueue(Reply.error(503))
        assert [status("418"), status(), status()] == [418, 503, 200]
        assert seen == [("/api/v1/models", None, count) for count in range(3)]
        with pytest.raises(httpx.TransportError):
            status("no number")
        assert "invalid literal for int()" in caplog.text
        api.respond = lambda _: Reply.error(402)
        assert status() == 402
        api.respond = None
        assert status() == 200
    assert len(seen) == 4


def test_waiting_for_what_does_not_come_is_an_error(cline_api: Simulator) -> None:
    with pytest.raises(TimeoutError, match="saw no such thing in 0 s"):
        cline_api.wait_for(lambda: False, timeout=0)


def test_many_threads_may_use_it(cline_api: Simulator) -> None:
    def use() -> None:
        cline_api.enqueue(Reply.error(500))
        statuses.append(get_models(cline_api))

    statuses: list[int] = []
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [500] * 8
    assert {request.connection for request in cline_api.requests} == set(range(1, 9))


def test_it_stops_with_connections_that_are_just_being_made() -> None:
    for _ in range(20):
        with Simulator() as api:
            socks = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(4)]
        for sock in socks:
            with sock, suppress(ConnectionResetError):
                sock.settimeout(PATIENCE)
                assert sock.recv(1) == b""


def test_serving_forever_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def ctrl_c(seconds: float) -> None:
        assert seconds > 0
        statuses.append(get_models(ready[0]))
        raise KeyboardInterrupt

    ready: list[Simulator] = []
    statuses: list[int] = []
    monkeypatch.setattr(time, "sleep", ctrl_c)
    serve_forever(0, on_ready=ready.append)
    assert statuses == [200]
    with pytest.raises(RuntimeError, match="not started"):
        _ = ready[0].port


def test_serving_forever_needs_no_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", ctrl_c)
    serve_forever(0)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_a_process_that_serves_forever_ends_cleanly_with_sigint() -> None:
    code = (
        "from cline_transport.simulator import serve_forever\n"
        "serve_forever(0, on_ready=lambda api: print(api.base_url, flush=True))"
    )
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.post(f"{url}/x", json=ask(), trust_env=False).status_code == 404
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")


PLUGIN_TEST = """
import httpx, pytest

@pytest.mark.parametrize("n", [1, 2])
def test_it(cline_api, n):
    assert httpx.get(cline_api.base_url, trust_env=False).status_code == 404
    assert len(cline_api.requests) == 1
"""


def test_the_plugin_gives_each_test_its_own_simulator(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PLUGIN_TEST, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert (result.returncode, "2 passed" in result.stdout) == (0, True), result.stdout


def test_the_plugin_is_cheap_to_load() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import cline_transport.simulator.pytest_plugin\n"
        "new = set(sys.modules) - before\n"
        "print({n for n in new if not n.startswith('cline_transport')})\n"
        "print({n for n in new if n.startswith('cline_transport.simulator.')})"
    )
    result = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert result.stdout.splitlines() == [
        "set()",
        "{'cline_transport.simulator.pytest_plugin'}",
    ]


def test_the_package_exports_its_names_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cline_transport.simulator.__all__:
        # As it was before anybody asked for it.
        monkeypatch.delattr(cline_transport.simulator, name, raising=False)
        assert getattr(cline_transport.simulator, name).__name__ == name
        assert name in dir(cline_transport.simulator)
    assert cline_transport.simulator.Simulator is Simulator
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = cline_transport.simulator.Nothing


def test_without_h11_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "cline_transport.simulator._http1"
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "h11", None)
    with pytest.raises(ImportError, match=r"pip install 'cline-transport\[simulator\]'"):
        importlib.import_module(module)


def test_a_gate_counts_from_zero_upwards() -> None:
    with pytest.raises(ValueError, match=r"permits must be >= 0 \(got -1\)"):
        Gate(-1)
    with pytest.raises(ValueError, match=r"n must be >= 1 \(got 0\)"):
        Gate().release(0)
