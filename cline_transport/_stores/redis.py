# SPDX-License-Identifier: Apache-2.0
"""Limits in Redis: one script, one key, one round trip for each report."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import Any, Final, cast

from cline_transport.limits import PATIENCE, Answer, Reason, Report, Rules

__all__ = ["RedisStore"]

_PREFIX: Final = "cline_transport"
_SCRIPT: Final = files("cline_transport._stores").joinpath("sync.lua")


class RedisStore:
    """The states of all keys in one Redis, Sentinel, Cluster or Valkey.

    It connects when it is first asked, and again after each failure: a cluster is asked for its
    nodes, and a sentinel for its primary, as they are then. One thread may use it.

    Args:
        url: As `limits.storage` says; the scheme chooses the client (of the library `limits`).

    Raises:
        ImportError: The extra `redis` is not installed.
    """

    def __init__(self, url: str) -> None:
        # Its own extra; and it is told at the start, not at the first call.
        from limits.storage import storage_from_string  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        self._url = url
        self._open = cast("Callable[..., Any]", storage_from_string)
        self._options: dict[str, Any] = {
            "socket_timeout": PATIENCE,
            "socket_connect_timeout": PATIENCE,
        }
        if url.startswith("valkey"):
            import_module("valkey")  # a package of its own, with a Retry of its own
        else:
            self._options["retry"] = Retry(NoBackoff(), 0)
        self._script: Callable[..., list[Any]] | None = None
        self._close: Callable[[], object] = lambda: None

    def sync(
        self, key: str, rules: Rules, report: Report, *, random: float, now: float | None = None
    ) -> Answer:
        """`LimitState.sync` for one key, at Redis's own time (`now` is for tests).

        Raises:
            Exception: Whatever the client raises where Redis is slow, gone or refuses.
        """
        script = self._script or self.connect()
        told = (
            rules.interval, rules.burst, rules.concurrency, int(rules.adaptive), rules.lease,
            *report, random, "" if now is None else now,
        )  # fmt: skip
        try:
            values = script([f"{_PREFIX}:{{{key}}}"], [_exact(value) for value in told])
        except Exception as exc:
            if self.is_lost(exc):
                self.close()
            raise
        granted, wait, reason, ahead, limit, held, cooldown, workers = values
        return Answer(
            granted=granted,
            wait=float(wait),
            reason=cast("Reason", _text(reason)) or None,
            ahead=ahead,
            limit=limit,
            held=held,
            cooldown=float(cooldown),
            workers=workers,
        )

    def connect(self) -> Callable[..., list[Any]]:
        """Connect, and leave the script there, so that the first report takes one round trip.

        Raises:
            Exception: The same.
        """
        storage = self._open(self._url, **self._options)
        client = storage.get_connection()
        self._close = client.close
        script = cast(
            "Callable[..., list[Any]]", client.register_script(_SCRIPT.read_text("utf-8"))
        )
        client.script_load(_SCRIPT.read_text("utf-8"))
        self._script = script
        return script

    def is_lost(self, exc: Exception) -> bool:
        """Whether Redis cannot be reached; a cluster without the key's node, or one that is read
        only, can.
        """
        lost = ("ConnectionError", "TimeoutError", "OSError", "ConfigurationError")
        return any(kind.__name__ in lost for kind in type(exc).__mro__)

    def close(self) -> None:
        """Forget the connection; the next report makes another."""
        self._script = None
        close, self._close = self._close, lambda: None
        close()


def _exact(value: object) -> str:
    """A number that Lua reads back as the same one."""
    return repr(value) if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
