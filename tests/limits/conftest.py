# SPDX-License-Identifier: Apache-2.0
"""Limits, in this process and in a real Redis."""

from __future__ import annotations

from collections.abc import Generator
from uuid import uuid4

import pytest

from cline_transport._protocols import RequestHead
from cline_transport._stores.redis import RedisStore
from cline_transport.limits import Answer, LimitState, Report, Rules

from .redis_server import COMMAND, RedisServer

HEAD = RequestHead("POST", "https", "api.cline.bot", None, "/", {"authorization": "Bearer k"})
needs_redis = pytest.mark.skipif(COMMAND is None, reason="redis-server is not installed")


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer, None, None]:
    """One Redis for all tests that do not stop it."""
    if COMMAND is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Store:
    """One key's state, wherever it is kept, at the test's own time."""

    def __init__(self, url: str | None) -> None:
        self._state = LimitState()
        self._key = uuid4().hex
        self._redis = None
        if url is not None:
            self._redis = RedisStore(url)

    def sync(self, rules: Rules, report: Report, *, now: float, random: float) -> Answer:
        if self._redis is None:
            return self._state.sync(rules, report, now=now, random=random)
        return self._redis.sync(self._key, rules, report, now=now, random=random)

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()


@pytest.fixture(params=["in process", "in Redis"])
def store(request: pytest.FixtureRequest) -> Generator[Store, None, None]:
    """The same state in either place."""
    url = None
    if request.param == "in Redis":
        url = request.getfixturevalue("shared_redis").url
    made = Store(url)
    yield made
    made.close()
