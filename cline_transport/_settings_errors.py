# SPDX-License-Identifier: Apache-2.0
"""Where a setting came from, and what to say of one that is wrong.

One message for each: the setting's name, its source, its value unless it could be a secret, and
what is allowed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, NamedTuple, cast

from cline_transport._checks import HIDDEN, shown_url
from cline_transport._redaction import looks_secret

__all__ = [
    "CONFIG",
    "PREFIX",
    "Problem",
    "SettingsError",
    "Sources",
    "located",
    "own_message",
    "parsing",
    "shown",
    "unknown",
    "unknown_variables",
    "without",
]

PREFIX: Final = "CLINE_TRANSPORT_"
CONFIG: Final = f"{PREFIX}CONFIG"
"""The environment variable that names the TOML file."""

_NESTED: Final = "__"
_MAX_VALUE: Final = 60

# What a policy says of itself when it is made: "RetryPolicy.jitter must be ... (got 7.0)".
_OWN_MESSAGE: Final = re.compile(
    r"(?:Value error, )?\w+\.(\w+) must be (.*) \(got (.*)\)", re.DOTALL
)

# What pydantic calls a wrong type, and what is allowed instead.
_ALLOWED: Final = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "dataclass": "a table of settings",
    "dict": "a table",
    "mapping": "a table",
    "tuple": "a list of host names",
}


class Problem(NamedTuple):
    """One setting that is wrong.

    Attributes:
        setting: Its name, such as `retry.deadline`; that of an environment variable where it is
            no setting.
        source: Where it came from.
        value: What was given, as it may be shown; `None`: not at all.
        rule: What is allowed.
    """

    setting: str
    source: str
    value: str | None
    rule: str

    def __str__(self) -> str:
        got = "" if self.value is None else f"got {self.value}, "
        return f"{self.setting} {self.rule} ({got}from {self.source})"


class SettingsError(ValueError):
    """Settings that cannot be used: all that is wrong with them, in one message.

    Attributes:
        problems: What is wrong, setting by setting.

    Example:
        ```python
        try:
            Settings()
        except SettingsError as exc:
            sys.exit(f"cline-transport: {exc}")
        ```
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class Origin(NamedTuple):
    """Where a value came from: the kind of source, and the name of the variable or file."""

    kind: Literal["argument", "environment", "file", "default"]
    name: str | None

    def __str__(self) -> str:
        if self.kind == "environment":
            return f"the environment variable {self.name}"
        if self.kind == "file":
            return f"the file {self.name}"
        return "an argument" if self.kind == "argument" else "the default"


class Sources:
    """Where the values of one `Settings` came from.

    Args:
        arguments: Those given to it.
        file: The content of the TOML file.
        known: The names of all settings, with their branches: `{"retry": {"deadline", ...}, ...}`.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        file: Mapping[str, Any],
        known: Mapping[str, frozenset[str]],
    ) -> None:
        self._arguments = arguments
        self._file = file
        self._known = known

    def origin(self, path: Sequence[str]) -> Origin:
        """The strongest source that has a value at this path."""
        if _has(self._arguments, path):
            return Origin("argument", None)
        variable = _variable(path)
        if variable is not None:
            return Origin("environment", variable)
        if _has(self._file, path):
            return Origin("file", os.environ.get(CONFIG, ""))
        return Origin("default", None)

    def of(self, path: Sequence[str]) -> str:
        """The same, in words."""
        return str(self.origin(path))

    def explain(self, errors: Iterable[Mapping[str, Any]]) -> list[Problem]:
        """What pydantic found, setting by setting."""
        return [self._explain(error) for error in errors]

    def _explain(self, error: Mapping[str, Any]) -> Problem:
        path = [str(part) for part in error["loc"]]
        kind = str(error["type"])
        source = self.of(path)
        if kind in ("extra_forbidden", "unexpected_keyword_argument", "invalid_key"):
            return unknown(path, self._known, source)
        own = own_message(str(error["msg"]))
        if own is not None:
            name, rule, told = own
            path = path if path[-1] == name else [*path, name]
            return Problem(".".join(path), self._of_all(path, rule), told, rule)
        rule = _ALLOWED.get(kind.partition("_")[0], str(error["msg"]))
        if kind == "literal_error":
            rule = str(error["ctx"]["expected"])
        if rule.startswith("a table") and source.startswith("the environment"):
            rule += ", in JSON"
        return Problem(".".join(path), source, shown(error["input"]), f"must be {rule}")

    def _of_all(self, path: list[str], rule: str) -> str:
        """The source of a value, and those of the others in its table that its rule names."""
        *branch, name = path
        own = self.of(path)
        others = self._known.get(".".join(branch[:2]), frozenset()) - {name}
        named = {
            other: self.of([*branch, other])
            for other in re.findall(r"\w+", rule)
            if other in others
        }
        return "; ".join([own, *(f"{o} from {s}" for o, s in named.items() if s != own)])


def own_message(message: str) -> tuple[str, str, str] | None:
    """What a policy said: the setting's name, what is allowed, and the value, as it may be shown.

    Examples:
        >>> own_message("RetryPolicy.jitter must be a number (got 'x')")
        ('jitter', 'must be a number', "'x'")
    """
    found = _OWN_MESSAGE.fullmatch(message)
    if found is None:
        return None
    name, rule, told = found.groups()
    return name, f"must be {rule}", _short_url(told) if name == "storage" else _short(told)


def parsing(exc: Exception) -> str:
    """Why a file could not be parsed; a parser names a key that stands twice."""
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    told = str(exc)
    return _clipped(told, 200) if not looks_secret(told) else "a name stands twice, or out of place"


def located(
    errors: Iterable[Mapping[str, Any]], told: Iterable[tuple[str, ...]]
) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Pydantic's errors by the settings they are of, without what follows from those told."""
    dropped = {path[-1] for path in told if path}
    found: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for error in errors:
        path = tuple(map(str, error["loc"]))
        own = own_message(str(error["msg"]))
        if own is not None:
            name, rule, _ = own
            if dropped & set(re.findall(r"\w+", rule)):
                continue
            path = (*path, name)
        kept = {name: error[name] for name in ("type", "loc", "input")}
        found[path] = {**kept, "ctx": error.get("ctx", {})}
    return found


def without(value: object, paths: Iterable[tuple[str, ...]]) -> object:
    """A tree of tables without some of its values; itself, where it has none of them.

    Examples:
        >>> without({"jitter": 7, "rules": {"429": 3}}, [("rules", "429"), ("deadline",)])
        {'jitter': 7, 'rules': {}}
    """
    for path in paths:
        value = _pruned(value, path)
    return value


def _pruned(value: object, path: tuple[str, ...]) -> object:
    if not path or not isinstance(value, Mapping):
        return value
    table = dict(cast("Mapping[str, object]", value))
    name, *rest = path
    if name not in table:
        return cast("object", value)
    inner = table.pop(name)
    if rest:
        table[name] = _pruned(inner, tuple(rest))
        if table[name] is inner:
            return cast("object", value)
    return table


def unknown(path: Sequence[str], known: Mapping[str, frozenset[str]], source: str) -> Problem:
    """A name that is no setting; its value is not shown: who knows what it is."""
    *branch, name = path
    names = sorted(known[".".join(branch[:2])])
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {'.'.join([*branch, *near])}?" if near else f"known: {', '.join(names)}"
    told = HIDDEN if looks_secret(name) else name
    return Problem(".".join([*branch, told]), source, None, f"is no setting; {hint}")


# In a URL, however it is misspelt: before an @, or in its query.
_PASSWORD: Final = re.compile(r":.*@|://.*\?.*=", re.DOTALL)


def shown(value: object) -> str:
    """A wrong value, unless it could be a secret that was put in the wrong place.

    Examples:
        >>> shown("later"), shown({"password": "1234"}), shown("https://me:1234@proxy")
        ("'later'", 'a table', '[redacted]')
    """
    try:
        return "a table" if isinstance(value, Mapping) else _short(repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of too many digits"


def _short_url(text: str) -> str:
    url = shown_url(text[1:-1])
    return repr(_clipped(url)) if text[:1] in "'\"" and HIDDEN in url else _short(text)


def _short(text: str) -> str:
    if looks_secret(text) or _PASSWORD.search(text):
        return HIDDEN
    return _clipped(text)


def _clipped(text: str, limit: int = _MAX_VALUE) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _has(values: object, path: Sequence[str]) -> bool:
    """Whether tables within tables have a value at the path."""
    for part in path:
        if not isinstance(values, Mapping):
            return False
        named = {str(key): inner for key, inner in cast("Mapping[object, object]", values).items()}
        if part not in named:
            return False
        values = named[part]
    return True


def _variable(path: Sequence[str]) -> str | None:
    """The environment variable that has a value at a path, in its own spelling."""
    spelt = {name.upper(): name for name in os.environ}
    whole = PREFIX + _NESTED.join(path).upper()
    for name in sorted(spelt):
        if name == whole or name.startswith(whole + _NESTED):
            return spelt[name]
    for end in range(len(path) - 1, 0, -1):
        parent = spelt.get(PREFIX + _NESTED.join(path[:end]).upper())
        if parent is not None and _has(_from_json(os.environ[parent]), path[end:]):
            return parent
    return None


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def unknown_variables(known: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    """Environment variables with our prefix that are no settings."""
    roots = sorted(known[""])
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper == CONFIG:
            continue
        root, _, nested = upper.removeprefix(PREFIX).lower().partition(_NESTED)
        if root in roots and (root in known or not nested):
            continue
        near = get_close_matches(root, roots, 1)
        names = [PREFIX + other.upper() for other in near or roots]
        hint = f"did you mean {names[0]}?" if near else f"known: {', '.join([*names, CONFIG])}"
        yield Problem(name, "the environment", None, f"is no setting; {hint}")
