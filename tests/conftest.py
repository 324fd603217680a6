# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cline_transport._limiter import LINES
from tests.limits.redis_server import COMMAND, RedisServer

# No test depends on wall time. HYPOTHESIS_EXAMPLES raises the count for a longer run.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    database=None,
)
settings.load_profile("project")


def pytest_collection_finish() -> None:
    """Take what is there for good, modules and tests, out of each later look of the collector.

    Many tests call it, to be told of what they left behind.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no setting, but a test's own."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.upper().startswith("CLINE_TRANSPORT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `CLINE_TRANSPORT_CONFIG` names; a test writes it."""
    path = tmp_path / "cline_transport.toml"
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", str(path))
    return path


@pytest.fixture(autouse=True)
def no_lines() -> Generator[None, None, None]:
    """What a process remembers of its limits is forgotten after each test."""
    yield
    for sharing in LINES._sharing.values():
        sharing.stop()
    LINES.reset()


@pytest.fixture
def own_redis(tmp_path: Path) -> Generator[RedisServer, None, None]:
    """A Redis to be stopped and paused."""
    if COMMAND is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield server


@contextmanager
def handled(handler: logging.Handler) -> Generator[None, None, None]:
    """Our log lines go to a handler meanwhile."""
    logger = logging.getLogger("cline_transport")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
