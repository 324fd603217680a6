# SPDX-License-Identifier: Apache-2.0
"""One thread that talks to the storage that processes share, for all calls of this process.

A call never talks to it, whatever its colour: it waits for the thread's answer, 100 ms at most.
Then, and as long as the storage is gone, calls go by the process's own limits.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from contextlib import suppress
from typing import Final, Protocol
from uuid import uuid4

from cline_transport._dropped import settle
from cline_transport._line import Line
from cline_transport._protocols import Clock
from cline_transport.limits import Answer, Report, Rules

__all__ = ["Sharing", "Store"]

logger: Final = logging.getLogger("cline_transport")

_RETRY_SECONDS: Final = 1.0
_GOODBYE_SECONDS: Final = 1.0


class Store(Protocol):
    """Where the state of a key is kept: `LimitState.sync`, beyond this process."""

    def connect(self) -> object:
        """Be ready for the first report.

        Raises:
            Exception: It cannot be reached.
        """
        ...

    def sync(self, key: str, rules: Rules, report: Report, *, random: float) -> Answer:
        """Report, and hear how many may go.

        Raises:
            Exception: It cannot be reached, or is too slow.
        """
        ...

    def is_lost(self, exc: Exception) -> bool:
        """Whether an exception says that it cannot be reached; else it has refused one key."""
        ...

    def close(self) -> None:
        """Forget the connection."""
        ...


class Sharing:
    """The lines of this process that one storage shares with other processes.

    Args:
        store: The storage; only the thread uses it.
        name: What the log calls it, without a password.

    Attributes:
        healthy: Whether the storage answered when it was last asked.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.healthy = True
        self._store = store
        self._name = name
        self._keys: dict[Line, str] = {}
        self._due: dict[Line, float] = {}
        self._failing: set[Line] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def line(self, key: str, rules: Rules, clock: Clock) -> Line:
        """A new line for a key."""
        line = Line(rules, clock, self._request, worker=uuid4().hex)
        with self._lock:
            self._keys[line] = key
        return line

    def prepare(self) -> None:
        """Connect, before the first call waits for it."""
        with self._lock:
            if self._thread is None:
                self._start()

    def forget(self, line: Line) -> None:
        """A line is not used any more."""
        with self._lock:
            self._keys.pop(line, None)
            self._due.pop(line, None)
            self._failing.discard(line)

    def stop(self) -> None:
        """Give back what this process holds, and end the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_GOODBYE_SECONDS)

    def _request(self, line: Line) -> bool:
        """Report for a line soon; `False` where that is in vain."""
        if not self.healthy or self._stopped or line in self._failing:
            return False
        with self._lock:
            # First come, first served: a line that is busy does not keep another's lease from it.
            self._due[line] = min(time.monotonic(), self._due.get(line, math.inf))
            if self._thread is None and not self._start():
                return False
        self._wake.set()
        return True

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="cline-transport-limits", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many
            return False
        self._thread = thread
        atexit.register(self.stop)
        return True

    # --- in the thread ---

    def _run(self) -> None:
        self._connect()
        while not self._stopped:
            try:
                self._step()
            except Exception:  # noqa: BLE001, PERF203 -- whose ever it is: calls go on
                _tell(logging.DEBUG, "limits: a step failed", exc_info=True)
        self._say_goodbye()

    def _step(self) -> None:
        line, pause = self._next() if self.healthy else (None, _RETRY_SECONDS)
        if line is not None:
            self._report(line)
            return
        self._wake.wait(pause)
        self._wake.clear()
        if not self.healthy and not self._stopped:
            self._connect()

    def _next(self) -> tuple[Line | None, float | None]:
        """A line that is to be reported for now, or the seconds until there is one."""
        with self._lock:
            line = min(self._due, key=self._due.__getitem__, default=None)
            if line is None:
                return None, None
            left = self._due[line] - time.monotonic()
            if left > 0:
                return None, left
            del self._due[line]
            return line, 0.0

    def _report(self, line: Line) -> None:
        key = self._keys.get(line)
        if key is None:  # forgotten in the meantime
            return
        settle()  # what was dropped holds no permit any more
        try:
            random = line.clock.random()
            answer = self._store.sync(key, line.rules, line.report(), random=random)
        except Exception as exc:  # noqa: BLE001 -- whatever it is, calls go on
            if self._store.is_lost(exc):
                self._lose(exc)
            else:
                self._refuse(line, exc)
            return
        if line in self._failing:
            self._failing.discard(line)
            _tell(logging.INFO, "limits of a key are shared again: %s takes them", self._name)
        again = line.apply(answer)
        if again:
            self._plan(line, again)

    def _plan(self, line: Line, seconds: float) -> None:
        with self._lock:
            at = time.monotonic() + seconds
            self._due[line] = min(at, self._due.get(line, math.inf))

    def _connect(self) -> None:
        try:
            self._store.connect()
        except Exception as exc:  # noqa: BLE001 -- whatever it is, calls go on
            self._lose(exc)
            return
        if not self.healthy:
            self.healthy = True
            _tell(logging.INFO, "limits are shared again: %s answers", self._name)
            for line in list(self._keys):
                self._plan(line, 0.0)

    def _lose(self, exc: Exception) -> None:
        """The storage does not answer: all keys go on by themselves."""
        was_healthy, self.healthy = self.healthy, False
        with self._lock:
            lines = list(self._keys)
            self._due.clear()
        for line in lines:
            line.fall_back()
        if was_healthy:
            _tell(
                logging.WARNING,
                "limits are not shared: %s does not answer (%s); calls go on by local limits",
                self._name,
                type(exc).__name__,
            )

    def _refuse(self, line: Line, exc: Exception) -> None:
        """The storage refuses one key: that goes on by itself, and the others are shared."""
        known = line in self._failing
        self._failing.add(line)
        line.fall_back()
        self._plan(line, _RETRY_SECONDS)
        if not known:
            _tell(
                logging.WARNING,
                "limits of a key are not shared: %s refuses them (%s); calls go on by local limits",
                self._name,
                type(exc).__name__,
            )

    def _say_goodbye(self) -> None:
        try:
            for line, key in list(self._keys.items()):
                self._store.sync(key, line.rules, Report(line.worker), random=0.0)
            self._store.close()
        except Exception:  # noqa: BLE001 -- then the lease ends
            _tell(logging.DEBUG, "limits: no goodbye to %s", self._name, exc_info=True)


def _tell(level: int, message: str, *args: object, exc_info: bool = False) -> None:
    with suppress(Exception):  # a handler's
        logger.log(level, message, *args, exc_info=exc_info)
