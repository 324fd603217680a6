# SPDX-License-Identifier: Apache-2.0
"""What can be set: each setting with its type, unit, default and meaning, read from the code.

The table in `docs/reference/settings.md`, the commented TOML file and the JSON schema are made of
it: none of them can say something else than the classes do.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from textwrap import wrap
from types import UnionType
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from cline_transport._settings_errors import CONFIG, PREFIX
from cline_transport.retry import DEFAULT_RULES, RetryRule
from cline_transport.settings import Settings

__all__ = ["CODE", "RULES", "Row", "literal", "rows", "schema", "schema_text", "toml"]

RULES: Final = "retry.rules"
CODE: Final = "<code>"
"""Stands for a status or an error code in the names of what a rule has."""

_TYPES: Final[Mapping[object, str]] = {
    bool: "boolean",
    int: "whole number",
    float: "number",
    str: "text",
    tuple: "text list",
    Mapping: "table",
}
_UNITS: Final = {"Seconds": "s", "Bytes": "bytes"}

# The docstring goes on with what `rules` means as an argument.
_RULES_IN_A_FILE: Final = "One that is given changes what it names, and leaves the others."

# What stands, commented, for a default that TOML cannot say: it has no null.
_EXAMPLES: Final[Mapping[str, object]] = {
    "retry.deadline": 120,
    "limits.requests_per_second": 10,
    "limits.requests_per_minute": 600,
    "limits.burst": 2,
    "limits.max_concurrency": 10,
    "limits.storage": "redis://localhost:6379",
}
_EXAMPLE_RULE: Final = 429
_COLUMNS: Final = 96


class Row(NamedTuple):
    """One setting.

    Attributes:
        name: With its branches: `retry.deadline`, `retry.rules.<code>.max_wait`.
        type: In words: `boolean`, `one of a, b`.
        unit: `s`, `bytes`, or `None`.
        default: The value without any source.
        meaning: What its class says of it.
    """

    name: str
    type: str
    unit: str | None
    default: object
    meaning: str

    @property
    def environment(self) -> str:
        """The variable that sets it."""
        return PREFIX + self.name.upper().replace(".", "__")


def rows() -> Iterator[Row]:
    """All settings, in the order of their classes; a rule's own after `retry.rules`."""
    hints = {name: field.annotation for name, field in Settings.model_fields.items()}
    return _rows(Settings.model_construct(), hints, "")


def _branch(branch: object, prefix: str) -> Iterator[Row]:
    hints = get_type_hints(type(branch))
    own = {field.name: hints[field.name] for field in fields(cast("Any", branch))}
    return _rows(branch, own, prefix)


def _rows(owner: object, hints: Mapping[str, Any], prefix: str) -> Iterator[Row]:
    meanings = _meanings(type(owner))
    for name, hint in hints.items():
        default, full = getattr(owner, name), prefix + name
        if is_dataclass(default):
            yield from _branch(default, f"{full}.")
            continue
        meaning = meanings.get(name, "")
        if full == RULES:
            meaning = f"{meaning.partition('. ')[0]}. {_RULES_IN_A_FILE}"
        unit = _UNITS.get(re.split(r"\W", meaning, maxsplit=1)[0])
        yield Row(full, _type_of(hint), unit, default, meaning)
        if full == RULES:
            yield from _branch(RetryRule(), f"{RULES}.{CODE}.")


def _meanings(owner: type) -> dict[str, str]:
    """The `Attributes:` of a class's docstring; nothing under `python -OO`, which has none."""
    section = (inspect.getdoc(owner) or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: _in_toml(" ".join(text.split())) for name, text in found}


def _in_toml(text: str) -> str:
    """`True` and `False` as files and variables spell them."""
    return re.sub("`(?:True|False)`", lambda found: found.group().lower(), text)


def _type_of(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if origin in (UnionType, Union):  # float | None, int | Literal["adaptive"] | None
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return " or ".join(_type_of(kind).removeprefix("one of ") for kind in kinds)
    return _TYPES[origin or hint]


def literal(value: object) -> str:
    """A value as TOML spells it.

    Examples:
        >>> literal(True), literal(60.0), literal(("a", "b")), literal("never"), literal(None)
        ('true', '60.0', '["a", "b"]', '"never"', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return str(value)  # `inf`, where JSON has no word
    if isinstance(value, Mapping):
        table = cast("Mapping[object, object]", value)
        return f"{{ {', '.join(f'{key} = {literal(inner)}' for key, inner in table.items())} }}"
    return json.dumps(value, ensure_ascii=False)


_HEADER: Final = f"""\
#:schema ./cline_transport.schema.json
# All settings of cline-transport with their defaults: as it is, this file changes nothing.
# It is read when {CONFIG} names it. An environment variable is stronger:
# {PREFIX}RETRY__ENABLED for `enabled` in [retry], and so on."""


def toml() -> str:
    """A TOML file with all settings, which says nothing else than the defaults do."""
    tables: dict[str, list[Row]] = {}
    for row in rows():
        tables.setdefault(row.name.rpartition(".")[0], []).append(row)
    blocks = [_HEADER]
    for table, members in tables.items():
        if table:
            blocks.append(f"[{table.replace(CODE, str(_EXAMPLE_RULE))}]")
        blocks += map(_assignment, members)
        if table.startswith(RULES):
            blocks.append(_other_rules())
    # A table's first setting stands right under its header.
    return re.sub(r"^(\[.*\]\n)\n", r"\1", "\n\n".join(blocks) + "\n", flags=re.MULTILINE)


def _assignment(row: Row) -> str:
    lines = _comment(row.meaning)
    name = row.name.rpartition(".")[2]
    if row.name == RULES:
        lines.append(f"# See [{RULES}.{_EXAMPLE_RULE}] below.")
    elif row.default is None:
        lines.append(f"# {name} = {literal(_EXAMPLES[row.name])}")
    else:
        lines.append(f"{name} = {literal(row.default)}")
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text, _COLUMNS, break_on_hyphens=False)]


def _other_rules() -> str:
    lines = ["# The other documented rules. Any part of them may be given, with the header."]
    lines.append(f"# [{RULES}]")
    lines += [
        f"# {code} = {literal(asdict(rule))}"
        for code, rule in DEFAULT_RULES.items()
        if code != _EXAMPLE_RULE
    ]
    return "\n".join(lines)


def schema() -> dict[str, Any]:
    """The JSON schema of the TOML file, for editors: types, choices, defaults, no other names.

    It refers to nothing, not even within itself, and needs no more than draft 4 has: there are
    editors that know no more.
    """
    made = Settings.model_json_schema()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "cline_transport.toml",
        **_described(made, made["$defs"], "", {row.name: row for row in rows()}),
    }


def schema_text() -> str:
    """The JSON schema as a file."""
    return json.dumps(schema(), indent=2) + "\n"


def _described(
    node: dict[str, Any], definitions: Mapping[str, Any], name: str, known: Mapping[str, Row]
) -> dict[str, Any]:
    """A part of pydantic's schema with our words, and without references and null."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    row = known.get(name)
    text = row.meaning if row else node.get("description", "").partition("\n\n")[0]
    made: dict[str, Any] = {"description": text}
    made |= _shape(node)
    if row and row.default is not None:
        made["default"] = _as_json(row.default)
    prefix = f"{name}." if name else ""
    if "properties" in node:
        made["properties"] = {
            key: _described(inner, definitions, prefix + key, known)
            for key, inner in node["properties"].items()
        }
    others = node.get("additionalProperties")
    if isinstance(others, dict):
        rule = cast("dict[str, Any]", others)
        made["additionalProperties"] = _described(rule, definitions, prefix + CODE, known)
    elif others is not None:
        made["additionalProperties"] = others
    return made


def _shape(node: dict[str, Any]) -> dict[str, Any]:
    """What a value looks like."""
    shape, *words = [kind for kind in node.get("anyOf", [node]) if kind["type"] != "null"]
    made = {key: shape[key] for key in ("type", "enum", "items") if key in shape}
    if words:  # a number, or one word instead: a pattern is one of texts only
        [word] = words
        made |= {"type": [shape["type"], "string"], "pattern": f"^{word['const']}$"}
    return made


def _as_json(default: object) -> object:
    if isinstance(default, Mapping):
        rules = cast("Mapping[object, RetryRule]", default)
        return {str(code): asdict(rule) for code, rule in rules.items()}
    return list(cast("tuple[str, ...]", default)) if isinstance(default, tuple) else default
