# SPDX-License-Identifier: Apache-2.0
"""A process's lines: who shares one, and when it is forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from cline_transport import Settings, SettingsError
from cline_transport._limiter import LINES, Limiter
from cline_transport._line import Line, Waiter
from cline_transport._protocols import Clock, RequestHead
from cline_transport.limits import LimitSettings

from .conftest import HEAD, needs_redis
from .redis_server import RedisServer


def limiter(**limits: Any) -> Limiter:
    return Limiter(LimitSettings(**limits))


def line_of(made: Limiter, head: RequestHead = HEAD) -> Line:
    found = made._line(head, Clock())
    assert found is not None
    return found


def test_transports_with_the_same_limits_share_a_line(shared_redis: RedisServer) -> None:
    local = line_of(limiter(max_concurrency=1))
    assert line_of(limiter(max_concurrency=1)) is local
    assert line_of(limiter(max_concurrency=2)) is not local
    there = line_of(limiter(max_concurrency=1, storage=shared_redis.url))
    assert there is not local
    assert len(LINES._sharing) == 1


def test_lines_of_many_keys_are_forgotten_when_they_are_idle(shared_redis: RedisServer) -> None:
    made = limiter(max_concurrency=1, storage=shared_redis.url)
    for number in range(600):
        line_of(made, HEAD._replace(headers={"x-api-key": str(number)}))
    assert len(LINES._lines) <= 256
    [sharing] = LINES._sharing.values()
    assert len(sharing._keys) == len(LINES._lines)


def test_those_that_are_busy_are_kept() -> None:
    made = limiter(max_concurrency=1)
    busy = line_of(made)
    busy.join(Waiter(0.0, float("inf")))
    for number in range(300):
        line_of(made, HEAD._replace(headers={"x-api-key": str(number)}))
    assert line_of(made) is busy
    assert len(LINES._lines) <= 256


def test_two_that_come_at_once_get_one_line() -> None:
    made, found = limiter(max_concurrency=1), list[Line]()
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(line_of(made))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_what_is_not_installed_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "limits.storage", None)
    with pytest.raises(SettingsError) as raised:
        limiter(storage="redis://me:hunter2@host:6379/1?a=b")
    assert str(raised.value) == (
        "limits.storage needs the package 'limits': pip install 'cline-transport[redis]' "
        "(got 'redis://[redacted]@host:6379/1?a=[redacted]', from the settings)"
    )


def test_so_is_a_package_of_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkey", None)
    with pytest.raises(SettingsError, match=r"'valkey': pip install 'cline-transport\[valkey\]'"):
        limiter(storage="valkey://host:6379")


@needs_redis
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_process_that_forks_reports_for_itself(shared_redis: RedisServer) -> None:
    script = f"""
import os
from cline_transport._limiter import LINES
from cline_transport._protocols import Clock, RequestHead
from cline_transport._limiter import Limiter
from cline_transport.limits import LimitSettings, Rules
limiter = Limiter(LimitSettings(max_concurrency=1, storage={shared_redis.url!r}))
head = RequestHead("POST", "https", "fork.example", None, "/", {{}})
before = limiter._line(head, Clock())
pid = os.fork()
if pid == 0:
    after = limiter._line(head, Clock())
    os._exit(0 if after is not before and after.worker != before.worker else 1)
_, status = os.waitpid(pid, 0)
assert status == 0
assert limiter._line(head, Clock()) is before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)  # noqa: S603


def test_it_is_on_by_default_and_holds_nobody() -> None:
    assert Settings().limits.cooldown
    assert limiter()._line(HEAD, Clock()) is None
    assert not LINES
