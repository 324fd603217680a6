# SPDX-License-Identifier: Apache-2.0
"""The public callables: the names, order and kinds of their parameters, as a caller writes them.

`python -m tests.package.signatures` writes `signatures.json`: a change there is one for callers.
"""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any, Final

FROZEN: Final = Path(__file__).with_name("signatures.json")
# pydantic calls it.
NOT_FOR_CALLERS: Final = {"settings_customise_sources"}

MODULES = (
    "cline_transport",
    "cline_transport.httpx",
    "cline_transport.httpx2",
    "cline_transport.instrumentor",
    "cline_transport.openai",
    "cline_transport.simulator",
)


def parameters(function: Any) -> str:
    """`client, *, settings=` of `def attach(client, *, settings=None)`."""
    parts: list[str] = []
    star = False
    for one in inspect.signature(function).parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        star = star or one.kind is one.VAR_POSITIONAL
        prefix = "*" * ((one.kind is one.VAR_POSITIONAL) + 2 * (one.kind is one.VAR_KEYWORD))
        parts.append(f"{prefix}{one.name}{'' if one.default is one.empty else '='}")
    return ", ".join(parts)


def of_class(kind: type) -> dict[str, str]:
    """What a class is made with, and what of its own a caller may use."""
    found = {"": parameters(kind)}
    for name, member in vars(kind).items():
        if name.startswith("_") or name in NOT_FOR_CALLERS:
            continue
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function):
            found[f".{name}"] = parameters(function)
        elif isinstance(member, property):
            found[f".{name}"] = "property"
    return found


def of_module(name: str) -> dict[str, str]:
    """All callables of a module's `__all__`."""
    module = import_module(name)
    found: dict[str, str] = {}
    for public in sorted(module.__all__):
        value: Any = getattr(module, public)
        if inspect.isclass(value):
            found |= {f"{public}{more}": text for more, text in of_class(value).items()}
        elif callable(value):
            found[public] = parameters(value)
    return found


if __name__ == "__main__":
    FROZEN.write_text(
        json.dumps({name: of_module(name) for name in MODULES}, indent=1) + "\n", encoding="utf-8"
    )
