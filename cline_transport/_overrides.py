# SPDX-License-Identifier: Apache-2.0
"""Settings for one call, or for what runs within a block."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass, replace
from typing import Any, Final, NamedTuple, cast

from cline_transport._settings_errors import Problem, SettingsError, own_message, shown, unknown
from cline_transport.errors import EXTENSION
from cline_transport.retry import DEFAULT_RULES, RetryRule, rule_code
from cline_transport.settings import Settings, known_names
from cline_transport.wire import Code

__all__ = ["effective", "override"]

_Values = Mapping[str, Any]
_within: Final[ContextVar[tuple[_Values, ...]]] = ContextVar("cline_transport_override", default=())
_BLOCK: Final = "override()"
_REQUEST: Final = f'extensions["{EXTENSION}"]'
# One that goes with any other value, as long as the transport's own are not known.
_ANY_RULE: Final = RetryRule(initial=0, max_wait=math.inf)


@contextmanager
def override(**settings: object) -> Generator[None, None, None]:
    """Change settings for the calls that are made within the block.

    For code that has no access to a request's extensions, such as a call of the SDK. It holds for
    the current thread and task and for tasks that are started within; an inner block goes on top of
    an outer one. `extensions={"cline_transport": {...}}` of a single request goes on top of both.

    Args:
        **settings: Names of `Settings`, but for `hosts` and `limits`; a branch as a mapping changes
            those of its values that are named, and of `retry.rules` those rules; a branch as an
            object replaces it.

    Raises:
        SettingsError: A name is unknown or a value is wrong, before anything is sent.

    Example:
        ```python
        with override(stream={"retry": "buffered"}, retry={"deadline": 600}):
            client.chat.completions.create(...)
        ```
    """
    _apply(Settings.model_construct(), settings, _BLOCK, any_rule=_ANY_RULE)
    token = _within.set((*_within.get(), settings))
    try:
        yield
    finally:
        _within.reset(token)


def effective(settings: Settings, extensions: Mapping[str, Any]) -> Settings:
    """The settings of one call: the transport's, then the blocks' around it, then its own.

    Raises:
        SettingsError: The request's own have an unknown name or a wrong value, or one that
            contradicts the transport's.
    """
    blocks, own = _within.get(), extensions.get(EXTENSION)
    for values in blocks:
        settings = _apply(settings, values, _BLOCK)
    if own is None:
        return settings
    if not isinstance(own, Mapping):
        raise SettingsError(
            [Problem(_REQUEST, "the request", shown(own), "must be a mapping of settings")]
        )
    return _apply(settings, cast("_Values", own), _REQUEST)


def _apply(
    settings: Settings, values: _Values, source: str, *, any_rule: RetryRule | None = None
) -> Settings:
    known = known_names()
    known[""] -= {"hosts", "limits"}
    change = _Change(source, any_rule, known, [])
    changed: dict[str, object] = {}
    for name, value in values.items():
        if name == "hosts":
            change.wrong((name,), None, "says where the transport is put, not what a call does")
        elif name == "limits":
            for path in _limits(value, known):
                change.wrong(path, None, "holds for all calls of a transport, not for one")
        elif change.knows((str(name),)):
            changed[name] = change.value((name,), getattr(settings, name), value)
    if change.problems:
        raise SettingsError(change.problems)
    return settings.model_copy(update=changed)


def _limits(value: object, known: Mapping[str, frozenset[str]]) -> list[tuple[str, ...]]:
    """The limits that were given, each by its name; the branch where none has one."""
    given: _Values = cast("_Values", value) if isinstance(value, Mapping) else {}
    return [("limits", name) for name in given if name in known["limits"]] or [("limits",)]


class _Change(NamedTuple):
    """New values from old ones, and what is wrong with those that were given."""

    source: str
    any_rule: RetryRule | None
    known: Mapping[str, frozenset[str]]
    problems: list[Problem]

    def value(self, path: tuple[str, ...], old: Any, value: object) -> Any:
        if isinstance(value, type(old)):
            return value
        if not is_dataclass(old):
            self.wrong(path, shown(value), "must be True or False")
        elif isinstance(value, Mapping):
            return self.table(path, old, cast("_Values", value))
        else:
            self.wrong(path, shown(value), f"must be a mapping or a {type(old).__name__}")
        return old

    def table(self, path: tuple[str, ...], old: Any, given: _Values) -> Any:
        new = {name: value for name, value in given.items() if self.knows((*path, str(name)))}
        if "rules" in new:
            new["rules"] = self.rules((*path, "rules"), old.rules, new["rules"])
        dropped: set[str] = set()
        while True:
            try:
                return replace(old, **new)
            except ValueError as exc:
                name, rule, told = own_message(str(exc)) or ("", str(exc), None)
            if not dropped & set(re.findall(r"\w+", rule)):  # else it follows from what is told
                self.wrong((*path, name), told, rule)
            if name not in new:
                return old
            dropped.add(name)
            del new[name]

    def rules(self, path: tuple[str, ...], old: Mapping[Code, RetryRule], given: object) -> object:
        """As in a file: each changes its own rule, and an empty table means none."""
        if not isinstance(given, Mapping):
            self.wrong(path, shown(given), "must be a mapping")
            return old
        new = dict(old) if given else {}
        for name, rule in cast("Mapping[object, object]", given).items():
            code = rule_code(name)
            known = self.any_rule or new.get(code) or DEFAULT_RULES.get(code) or RetryRule()
            new[code] = self.value((*path, str(code)), known, rule)
        return new

    def knows(self, path: tuple[str, ...]) -> bool:
        *branch, name = path
        found = name in self.known[".".join(branch[:2])]
        if not found:
            self.problems.append(unknown(path, self.known, self.source))
        return found

    def wrong(self, path: tuple[str, ...], told: str | None, rule: str) -> None:
        self.problems.append(Problem(".".join(filter(None, path)), self.source, told, rule))
