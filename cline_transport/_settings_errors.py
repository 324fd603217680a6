"""Where a setting came from, and what to say of one that is wrong.

One message for each: the setting's name, its source, its value unless it could be a secret, and
what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, cast

from cline_transport._redaction import looks_secret

__all__ = ["CONFIG", "PREFIX", "Problem", "SettingsError", "Sources", "unknown_variables"]

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
    "finite": "a finite number",
    "string": "text",
    "dataclass": "a table of settings",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table of settings",
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

    def of(self, path: Sequence[str]) -> str:
        """The strongest source that has a value at this path, or at one of its parents."""
        if _has(self._arguments, path):
            return "an argument"
        variable = _variable(path)
        if variable is not None:
            return f"the environment variable {variable}"
        if _has(self._file, path):
            return f"the file {os.environ.get(CONFIG, '')}"
        return "the default"

    def explain(self, errors: Iterable[Mapping[str, Any]]) -> list[Problem]:
        """What pydantic found, setting by setting."""
        return [self._explain(error) for error in errors]

    def _explain(self, error: Mapping[str, Any]) -> Problem:
        path = [str(part) for part in error["loc"] if part != "[key]"]
        value, kind = error.get("input"), str(error["type"])
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            return self._unknown(path)
        own = _OWN_MESSAGE.fullmatch(str(error["msg"]))
        if own is not None:
            name, rule, told = own.groups()
            path = path if path and path[-1] == name else [*path, name]
            shown = _HIDDEN if looks_secret(told) else told[:_MAX_VALUE]
            return Problem(".".join(path), self.of(path), shown, f"must be {rule}")
        rule = _ALLOWED.get(kind.partition("_")[0])
        if kind == "literal_error":
            rule = str(error["ctx"]["expected"])
        if rule is None:
            text = str(error["msg"]).removeprefix("Value error, ")
            return Problem(".".join(path), self.of(path), _shown(value), text)
        return Problem(".".join(path), self.of(path), _shown(value), f"must be {rule}")

    def _unknown(self, path: list[str]) -> Problem:
        *branch, name = path
        known = self._known.get(".".join(branch[:2]), self._known.get(branch[0] if branch else ""))
        near = get_close_matches(name, sorted(known or ()), 1)
        dotted = ".".join([*branch, near[0]]) if near else ", ".join(sorted(known or ()))
        hint = f"did you mean {dotted}?" if near else f"known: {dotted}"
        # Its value is not shown: who knows what it is.
        return Problem(".".join(path), self.of(path), None, f"is no setting; {hint}")


_HIDDEN: Final = "[redacted]"


def _shown(value: object) -> str:
    """A wrong value, unless it could be a secret that was put in the wrong place."""
    text = repr(value)
    if looks_secret(text):
        return _HIDDEN
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"


def _has(values: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether the path, or a parent that is no table, has a value."""
    here: object = values
    for part in path:
        if not isinstance(here, Mapping):
            return True  # a parent was given whole
        table = {str(key): inner for key, inner in cast("Mapping[object, object]", here).items()}
        if part not in table:
            return False
        here = table[part]
    return True


def _variable(path: Sequence[str]) -> str | None:
    """The environment variable of a path, or of its nearest parent; by its own spelling."""
    spelt = {name.upper(): name for name in os.environ}
    for end in range(len(path), 0, -1):
        found = spelt.get(PREFIX + _NESTED.join(path[:end]).upper())
        if found is not None:
            return found
    return None


def unknown_variables(known: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    """Environment variables with our prefix that are no settings."""
    roots = sorted(known[""])
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper == CONFIG:
            continue
        root = upper.removeprefix(PREFIX).partition(_NESTED)[0].lower()
        if root not in roots:
            near = get_close_matches(root, roots, 1)
            names = [PREFIX + other.upper() for other in near or roots]
            hint = f"did you mean {names[0]}?" if near else f"known: {', '.join([*names, CONFIG])}"
            yield Problem(name, "the environment", None, f"is no setting; {hint}")
