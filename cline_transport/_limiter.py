# SPDX-License-Identifier: Apache-2.0
"""What holds calls back: the lines of this process, found by a call's key and host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

from cline_transport._checks import shown_url
from cline_transport._extras import command_for
from cline_transport._line import Line, Outcome, Waiter
from cline_transport._protocols import Clock, RequestHead
from cline_transport._settings_errors import Problem, SettingsError
from cline_transport._sharing import Sharing, Store
from cline_transport.errors import ErrorInfo, is_rate_limit
from cline_transport.limits import LimitSettings, Reason, Rules
from cline_transport.record import Attempt

__all__ = ["LINES", "Limiter", "Lines", "Turn", "key_of", "outcome_of"]

_CREDENTIALS: Final = ("authorization", "x-api-key", "api-key")
_MANY: Final = 256


def key_of(head: RequestHead) -> str:
    """What identifies a call's key and host: a keyed hash, from which nobody gets the key back.

    Examples:
        >>> len(key_of(RequestHead("GET", "https", "api.cline.bot", None, "/", {})))
        32
    """
    told = blake2b(digest_size=16, key=b"cline_transport.limits")
    for part in (head.scheme, head.host, str(head.port), *map(head.headers.get, _CREDENTIALS)):
        told.update(f"{part}\0".encode())
    return told.hexdigest()


def outcome_of(error: ErrorInfo | None) -> Outcome:
    """What the end of an attempt says of limits.

    Examples:
        >>> outcome_of(ErrorInfo(code=429, message=""))
        'refused'
    """
    if error is None:
        return "accepted"
    if is_rate_limit(error):
        return "refused"
    return "overloaded" if 503 in (error.code, error.status_code) else "neither"


class CallLike(Protocol):
    """What a turn needs to know of its call."""

    @property
    def started(self) -> float:
        """When it began."""
        ...

    @property
    def until(self) -> float:
        """When its deadline ends."""
        ...

    @property
    def number(self) -> int:
        """The number of the attempt that is to begin."""
        ...


class Turn:
    """One attempt's turn: waited for in a line, then held until the attempt's body has ended.

    Args:
        line: The line.
        call: The call.

    Attributes:
        line: The line.
        waited: Seconds for which it has waited.
        counted: Whether its permit is counted in the metric of those in use.
    """

    __slots__ = ("_began", "_number", "_waiter", "counted", "line", "waited")

    def __init__(self, line: Line, call: CallLike) -> None:
        self.line = line
        self.waited = 0.0
        self.counted = False
        self._number = call.number
        self._waiter = Waiter(call.started, call.until)
        self._began = line.clock.monotonic()

    @property
    def granted(self) -> bool:
        """Whether the attempt may begin."""
        return self._waiter.granted

    @property
    def reason(self) -> Reason | None:
        """What held it last."""
        return self._waiter.reason

    @property
    def alone(self) -> bool:
        """Whether it went by local limits because the storage did not answer."""
        return self._waiter.alone

    def join(self, gone: Callable[[], bool] | None = None) -> bool:
        """Stand in line; return whether the attempt may begin at once.

        Args:
            gone: Asked, later, whether nobody will come back to it: its event loop is closed.
        """
        self._waiter.gone = gone
        self.line.join(self._waiter)
        return self._waiter.granted

    def pause(self, wake: Callable[[], object]) -> float | None:
        """For how many seconds to pause unless `wake` is called; `None`: the wait is over."""
        self._waiter.wake = wake
        seconds = self.line.pause(self._waiter)
        if seconds is None:
            now = self.line.clock.monotonic()
            self.waited, self._began = now - self._began, now
        return seconds

    def proceed(self) -> None:
        """A pause is over."""
        self.line.proceed(self._waiter)

    def end(self, attempts: Sequence[Attempt]) -> None:
        """The attempt is over; it is the last of these, if it has come that far."""
        age = self.line.clock.monotonic() - self._began
        mine = attempts[self._number - 1 :]
        self.line.finish(self._waiter, outcome_of(mine[0].error) if mine else "neither", age)


class Lines:
    """The lines of this process, shared by all its transports."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Know nothing: as in a process that has just been forked, whose threads are not there."""
        for line in getattr(self, "_lines", {}).values():
            line.forked()
        self._lines: dict[tuple[str, LimitSettings], Line] = {}
        self._sharing: dict[str, Sharing] = {}
        self._lock = threading.Lock()
        self._many = _MANY

    def __bool__(self) -> bool:
        return bool(self._lines)

    def sharing(self, url: str) -> Sharing:
        """This process's one way to a storage.

        Raises:
            SettingsError: What it needs is not installed.
        """
        with self._lock:
            return self._share(url)

    def get(self, key: str, settings: LimitSettings) -> Line | None:
        """The line of a key, if there is one; one that is over is forgotten."""
        line = self._lines.get((key, settings))
        if line is not None and line.idle:
            with self._lock:
                self._lines.pop((key, settings), None)
            return None
        return line

    def get_or_make(self, key: str, settings: LimitSettings, clock: Clock) -> Line:
        """The line of a key."""
        with self._lock:
            line = self._lines.get((key, settings))
            if line is None:
                if len(self._lines) >= self._many:
                    self._forget_idle()
                line = self._lines[key, settings] = self._make(key, settings, clock)
            return line

    def cool(self, key: str, seconds: float) -> None:
        """Hold all calls with a key, whatever transport they go through."""
        for (other, settings), line in list(self._lines.items()):
            if other == key and settings.cooldown:
                line.cool(seconds)

    def _make(self, key: str, settings: LimitSettings, clock: Clock) -> Line:
        rules = Rules.of(settings)
        if settings.storage is None:
            return Line(rules, clock)
        return self._share(settings.storage).line(key, rules, clock)

    def _share(self, url: str) -> Sharing:
        found = self._sharing.get(url)
        if found is None:
            found = self._sharing[url] = Sharing(_open(url), shown_url(url))
        return found

    def _forget_idle(self) -> None:
        for (key, settings), line in list(self._lines.items()):
            if line.idle:
                del self._lines[key, settings]
                if settings.storage is not None:
                    self._share(settings.storage).forget(line)
        # Those that are busy are not looked at again for each new key.
        self._many = max(_MANY, 2 * len(self._lines))


LINES: Final = Lines()

if hasattr(os, "register_at_fork"):  # pragma: no branch - elsewhere nothing forks
    os.register_at_fork(after_in_child=LINES.reset)


class Limiter:
    """The limits of one transport.

    Args:
        settings: `LimitSettings`.

    Raises:
        SettingsError: The storage needs what is not installed.
    """

    __slots__ = ("_always", "_settings")

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._always = settings.active
        if settings.storage is not None:
            LINES.sharing(settings.storage).prepare()

    def turn(self, head: RequestHead, clock: Clock, call: CallLike) -> Turn | None:
        """What an attempt of a call has to wait for; `None`: it may begin."""
        line = self._line(head, clock)
        return None if line is None else Turn(line, call)

    def _line(self, head: RequestHead, clock: Clock) -> Line | None:
        if self._always:
            return LINES.get_or_make(key_of(head), self._settings, clock)
        if not LINES or not self._settings.cooldown:
            return None
        return LINES.get(key_of(head), self._settings)

    def cool(self, head: RequestHead, seconds: float, clock: Clock) -> bool:
        """The API asked a call to wait: hold the others too; return whether that is wanted."""
        if self._settings.cooldown:
            key = key_of(head)
            LINES.get_or_make(key, self._settings, clock)
            LINES.cool(key, seconds)
        return self._settings.cooldown


def _open(url: str) -> Store:
    from cline_transport._stores.redis import RedisStore  # noqa: PLC0415 -- its own extra

    try:
        return RedisStore(url)
    except ImportError as exc:
        missing = (exc.name or "").partition(".")[0]
        rule = f"needs the package {missing!r}: {command_for(missing)}"
        problem = Problem("limits.storage", "the settings", repr(shown_url(url)), rule)
        raise SettingsError([problem]) from None
