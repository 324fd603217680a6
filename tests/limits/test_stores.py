# SPDX-License-Identifier: Apache-2.0
"""The same scenarios in this process and in Redis; and one, step by step, against the other."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from cline_transport._stores.redis import RedisStore
from cline_transport.limits import PATIENCE, LimitSettings, LimitState, Report, Rules

from .conftest import Store, needs_redis
from .redis_server import RedisServer

OPENSSL = shutil.which("openssl")
SHARED = LimitSettings(max_concurrency=3, storage="redis://h", lease=5)


def rules(**settings: Any) -> Rules:
    return Rules.of(LimitSettings(storage="redis://h", **settings))


# --- scenarios ---


def test_workers_share_a_pace(store: Store) -> None:
    pace, now, went = rules(requests_per_second=10, burst=2), 1_000.0, {"a": 0, "b": 0, "c": 0}
    for _ in range(3_000):  # three seconds, each worker asking every three milliseconds
        now += 0.001
        worker = "abc"[round(now * 1000) % 3]
        report = Report(worker, waiting=5)
        went[worker] += store.sync(pace, report, now=now, random=0.5).granted
    assert sum(went.values()) in (31, 32)
    assert min(went.values()) >= 9


def test_workers_take_turns_at_permits(store: Store) -> None:
    limit, now = rules(max_concurrency=4), 1_000.0
    held: dict[str, list[float]] = {name: [] for name in "abcdefgh"}
    went = dict.fromkeys(held, 0)
    for _ in range(4_000):
        now += 0.001
        for worker in (list(held)[round(now * 1000) % 8],):
            held[worker] = [end for end in held[worker] if end > now]
            report = Report(worker, held=len(held[worker]), waiting=20)
            granted = store.sync(limit, report, now=now, random=0.5).granted
            held[worker] += [now + 0.1] * granted
            went[worker] += granted
        assert (
            sum(len(ends) for ends in held.values()) <= 4 + 8
        )  # those that ended and said nothing
    assert sum(went.values()) >= 130  # 4 at once, 100 ms each, 4 s: 160 at the most
    assert min(went.values()) >= 0.7 * sum(went.values()) / 8


def test_the_permits_of_a_dead_worker_are_back_after_its_lease(store: Store) -> None:
    limit = Rules.of(SHARED)
    assert store.sync(limit, Report("dead", waiting=3), now=10.0, random=0.5).granted == 3
    assert store.sync(limit, Report("b", waiting=3), now=14.9, random=0.5).granted == 0
    assert store.sync(limit, Report("b", waiting=3), now=15.1, random=0.5).granted == 3


def test_a_cooldown_holds_all_workers(store: Store) -> None:
    limit = rules()
    store.sync(limit, Report("a", cooldown=4.0), now=10.0, random=0.5)
    held = store.sync(limit, Report("b", waiting=1), now=11.0, random=0.5)
    assert (held.granted, held.reason, held.wait) == (0, "cooldown", 3.0)
    assert store.sync(limit, Report("b", waiting=1), now=14.0, random=0.5).granted == 1


def test_workers_share_what_an_adaptive_limit_has_learnt(store: Store) -> None:
    limit = rules(max_concurrency="adaptive")
    store.sync(limit, Report("a", waiting=9), now=10.0, random=0.5)
    store.sync(limit, Report("b", waiting=9), now=10.1, random=0.5)
    grown = store.sync(limit, Report("a", held=4, waiting=9, accepted=8), now=11.0, random=0.5)
    assert grown.limit == 12
    refused = Report("b", waiting=9, refused=1, age=0.01)
    assert store.sync(limit, refused, now=12.0, random=0.5).limit < 12


# --- one against the other ---

REPORTS = st.builds(
    Report,
    st.sampled_from("abc"),
    held=st.integers(0, 5),
    waiting=st.integers(0, 6),
    cooldown=st.sampled_from([0.0] * 8 + [0.3, 2.0, 1e5]),
    accepted=st.sampled_from([0, 1, 2, 50]),
    refused=st.sampled_from([0] * 5 + [1, 3]),
    overloaded=st.sampled_from([0] * 5 + [1, 3]),
    age=st.floats(0, 5),
)
RULES = st.builds(
    Rules,
    interval=st.sampled_from([0.0, 0.1, 1 / 3, 7.0]),
    burst=st.integers(1, 5),
    concurrency=st.integers(0, 5),
    adaptive=st.booleans(),
    lease=st.sampled_from([0.0, 1.0, 10.0]),
)
STEPS = st.tuples(st.sampled_from([0.0, 1e-7, 0.01, 0.3, 2.0, 20.0, -0.5, -100.0]), REPORTS)


@needs_redis
@given(limit=RULES, steps=st.lists(STEPS, max_size=30), random=st.floats(0, 0.999))
def test_redis_and_this_process_say_the_same(
    shared_redis: RedisServer, limit: Rules, steps: list[tuple[float, Report]], random: float
) -> None:
    state, there, now = LimitState(), Store(shared_redis.url), 1_700_000_000.0
    try:
        for pause, report in steps:
            now += pause
            here = state.sync(limit, report, now=now, random=random)
            assert there.sync(limit, report, now=now, random=random) == here
    finally:
        there.close()


# --- Redis itself ---


def test_by_its_own_clock(shared_redis: RedisServer) -> None:
    store = RedisStore(shared_redis.url)
    try:
        slow = rules(requests_per_minute=1, burst=1)
        assert store.sync("clock", slow, Report("a", waiting=1), random=0.5).granted == 1
        held = store.sync("clock", slow, Report("a", waiting=1), random=0.5)
        assert held.reason == "pace"
        assert 0 < held.wait <= 60
    finally:
        store.close()


def test_nothing_stays_for_longer_than_it_is_needed(shared_redis: RedisServer) -> None:
    store = RedisStore(shared_redis.url)
    store.sync("stays", rules(), Report("a", cooldown=100.0), random=0.5)
    store.close()
    client: Any = redis.Redis(port=shared_redis.port)
    assert 700 <= client.ttl("cline_transport:{stays}") <= 711
    client.close()


@pytest.mark.parametrize("paused", [False, True], ids=["gone", "paused"])
def test_a_redis_that_does_not_answer_is_an_error_soon(
    own_redis: RedisServer, *, paused: bool
) -> None:
    store = RedisStore(own_redis.url)
    store.sync("k", rules(), Report("a"), random=0.5)
    if paused:
        own_redis.pause()
    else:
        own_redis.stop()
    began = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)timeout|refused|closed|reset"):
        store.sync("k", rules(), Report("a"), random=0.5)
    assert time.monotonic() - began < 20 * PATIENCE  # the client's own retries would take longer
    if paused:
        own_redis.resume()
    else:
        own_redis.start()
    store.sync("k", rules(), Report("a"), random=0.5)
    store.close()


def test_a_redis_that_was_flushed_knows_the_script_again(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url)
    store.sync("k", rules(), Report("a"), random=0.5)
    client: Any = redis.Redis(port=own_redis.port)
    client.flushall()
    client.script_flush()
    client.close()
    store.sync("k", rules(), Report("a"), random=0.5)
    store.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    path = tmp_path / "both.pem"
    subprocess.run(  # noqa: S603 -- our own arguments
        [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(path), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


@needs_redis
def test_rediss(tmp_path: Path, certificate: Path) -> None:
    own = RedisServer(tmp_path)
    options = ("--port", "0", "--tls-port", str(own.port), "--tls-cert-file", str(certificate),
               "--tls-key-file", str(certificate), "--tls-ca-cert-file", str(certificate),
               "--tls-auth-clients", "no", "--save", "", "--bind", "127.0.0.1")  # fmt: skip
    with RedisServer(tmp_path, *options):
        url = f"rediss://127.0.0.1:{own.port}?ssl_ca_certs={certificate}"
        store = RedisStore(url)
        assert store.sync("k", rules(), Report("a", waiting=1), random=0.5).granted == 1
        store.close()


@needs_redis
def test_a_cluster(tmp_path: Path) -> None:
    # By default ten thousand above its own, which may be more than a port can be.
    bus = str(RedisServer(tmp_path).port)
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
               "--cluster-port", bus)  # fmt: skip
    with RedisServer(tmp_path, *options) as server:
        client: Any = redis.Redis(port=server.port)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            pass  # a moment, in which it looks at itself
        client.close()
        store = RedisStore(f"redis+cluster://127.0.0.1:{server.port}")
        limit = rules(max_concurrency=1)
        assert store.sync("k", limit, Report("a", waiting=1), random=0.5).granted == 1
        assert store.sync("k", limit, Report("b", waiting=1), random=0.5).granted == 0
        store.close()


@needs_redis
def test_a_sentinel(tmp_path: Path, own_redis: RedisServer) -> None:
    sentinel = RedisServer(tmp_path)
    (tmp_path / "sentinel.conf").write_text(
        f"port {sentinel.port}\nbind 127.0.0.1\n"
        f"sentinel monitor primary 127.0.0.1 {own_redis.port} 1\n"
    )
    with RedisServer(tmp_path, "sentinel.conf", "--sentinel", ready="+monitor"):
        store = RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/primary")
        assert store.sync("k", rules(), Report("a", waiting=1), random=0.5).granted == 1
        store.close()
