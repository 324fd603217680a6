# SPDX-License-Identifier: Apache-2.0
"""Write the table in `docs/reference/settings.md`, `cline_transport.toml` and its JSON schema.

    uv run python docs/make_configuration.py

All of it is made of the settings' classes: names, types, defaults and docstrings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from cline_transport._reference import RULES, Row, literal, rows, schema_text, toml

REFERENCE = Path(__file__).parent / "reference"

PAGE = "settings.md"
MARKED = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- end -->)", re.DOTALL)


def generated() -> Iterator[tuple[str, str]]:
    """The names of the files, and what they have to hold."""
    page = (REFERENCE / PAGE).read_text(encoding="utf-8")
    yield PAGE, MARKED.sub(lambda _: table(), page)
    yield "cline_transport.toml", toml()
    yield "cline_transport.schema.json", schema_text()


def table() -> str:
    """All settings, in Markdown."""
    lines = [
        "| setting | meaning | type | default |",
        "|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, rows())]) + "\n"


def _line(row: Row) -> str:
    if row.name == RULES:
        default = "[documented](cline_transport.toml)"
    elif row.default is None:
        default = "none"
    else:
        default = f"`{literal(row.default)}`" + (f" {row.unit}" if row.unit else "")
    cells = [f"`{row.name}`", row.meaning.replace("|", r"\|"), row.type, default]
    return "".join(f"| {cell} " for cell in cells) + "|"


def main(folder: Path) -> int:
    """Write them."""
    for name, text in generated():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(REFERENCE))
