# SPDX-License-Identifier: Apache-2.0
"""A real Redis for each test that wants one."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.limits.redis_server import COMMAND, RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer, None, None]:
    if COMMAND is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield server
