"""Settings for one call, or for what runs within a block."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Final, cast

from cline_transport.errors import EXTENSION
from cline_transport.settings import Settings

__all__ = ["effective", "override"]

_Values = Mapping[str, Any]
_within: Final[ContextVar[tuple[_Values, ...]]] = ContextVar("cline_transport_override", default=())


@contextmanager
def override(**settings: object) -> Generator[None, None, None]:
    """Change settings for the calls that are made within the block.

    For code that has no access to a request's extensions, such as a call of the SDK. It holds for
    the current thread and task and for tasks that are started within; an inner block goes on top of
    an outer one. `extensions={"cline_transport": {...}}` of a single request goes on top of both.

    Args:
        **settings: Names of `Settings`; a branch as a mapping changes those of its values that are
            named, a branch as an object replaces it.

    Raises:
        ValueError: A name is unknown or a value is wrong, before anything is sent.

    Example:
        ```python
        with override(stream={"retry": "buffered"}, retry={"deadline": 600}):
            client.chat.completions.create(...)
        ```
    """
    _apply(Settings.model_construct(), settings)
    token = _within.set((*_within.get(), settings))
    try:
        yield
    finally:
        _within.reset(token)


def effective(settings: Settings, extensions: Mapping[str, Any]) -> Settings:
    """The settings of one call: the transport's, then the blocks' around it, then its own.

    Raises:
        ValueError: The request's own have an unknown name or a wrong value.
    """
    blocks, own = _within.get(), extensions.get(EXTENSION)
    for values in blocks:
        settings = _apply(settings, values)
    if own is None:
        return settings
    if not isinstance(own, Mapping):
        raise ValueError(f'extensions["{EXTENSION}"] must be a mapping of settings (got {own!r})')
    return _apply(settings, cast("_Values", own))


def _apply(settings: Settings, values: _Values) -> Settings:
    changed: dict[str, object] = {}
    for name, value in values.items():
        _check_name(name, set(Settings.model_fields), "")
        branch: Any = getattr(settings, name)
        if is_dataclass(branch) and isinstance(value, Mapping):
            given = cast("_Values", value)
            for key in given:
                _check_name(key, {f.name for f in fields(branch)}, f"{name}.")
            changed[name] = replace(cast("Any", branch), **given)
        elif isinstance(value, type(branch)):
            changed[name] = value
        else:
            kind = "a mapping or " if is_dataclass(branch) else ""
            raise ValueError(f"{name} must be {kind}a {type(branch).__name__} (got {value!r})")
    return settings.model_copy(update=changed)


def _check_name(name: str, known: set[str], branch: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {branch}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        raise ValueError(f"unknown setting {branch}{name} ({hint})")
