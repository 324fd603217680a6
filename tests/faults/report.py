# SPDX-License-Identifier: Apache-2.0
"""The table of `docs/reference/faults.md`: what each row says, and in how many cells it held."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.clients.support import COLOURS
from tests.pages import Marks, table

from .failure import Failure, HttpError, InStream, Raised
from .matrix import SECTIONS
from .outcome import sdk_class

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
MARKS: Final = Marks(PAGE, "faults")

PLAIN: Final = ("httpx", "httpx2")
SDKS: Final = ("openai2", "openai3")
HEADINGS: Final = (
    "Failure", "Attempts", "Waits", "Delivered", "httpx, httpx2 raise", "The SDK raises", "Cells",
)  # fmt: skip

_CODE: Final = re.compile(r"\b[a-z]+(_[a-z]+)+\b|Retry-After|retry-after-ms|x-should-retry")
RULE: Final = ("---", "---:", "---", "---", "---", "---", "---:")

Row = tuple[str, ...]


def cells_of(failure: Failure) -> list[str]:
    """The IDs of a failure's tests, in all environments together."""
    kinds = (*PLAIN, *SDKS) if failure.for_sdk else PLAIN
    return [f"{failure.name}-{kind}-{colour}" for kind in kinds for colour in COLOURS]


def row_of(failure: Failure) -> Row:
    """What a row says of one failure, without the count of its cells."""
    return (
        _CODE.sub(r"`\g<0>`", failure.title),
        _attempts(failure),
        ", ".join(f"{wait:g}" for wait in failure.waits) + (" s" if failure.waits else ""),
        _delivered(failure),
        f"`{failure.end.exception}`" if isinstance(failure.end, Raised) else "",
        _sdk(failure) if failure.for_sdk else "",
    )


def _attempts(failure: Failure) -> str:
    again = failure.end.sdk_retries if failure.for_sdk else 0
    return f"{failure.attempts}, SDK {failure.attempts + again}" if again else f"{failure.attempts}"


def _delivered(failure: Failure) -> str:
    end = failure.end
    if isinstance(end, Raised):
        return "nothing" if end.text is None else "the text"
    if isinstance(end, InStream):
        return f"{'the text' if end.text else 'no text'}, error event {end.event}"
    how = {"as sent": "as sent", "documented": "documented format", "added": "`error` added"}
    same = failure.reply.status == end.status
    return how[end.body] if same else f"HTTP {end.status}, {how[end.body]}"


def _sdk(failure: Failure) -> str:
    end = failure.end
    if isinstance(end, HttpError):
        return f"`{sdk_class(end.status)}`"
    if isinstance(end, InStream):
        return "`APIError`" if end.raises else "nothing"
    # openai 3 makes exceptions of its own of what a body raises.
    return f"`{end.sdk}`" if end.text is None else f"`{end.sdk}` (2: `{end.exception}`)"


def rows_of(failures: Iterable[Failure], held: Mapping[str, bool]) -> list[Row]:
    """The rows of a section; failures of one title share theirs. `held`: of the cells that ran."""
    together: dict[str, list[Failure]] = {}
    for failure in failures:
        together.setdefault(failure.title, []).append(failure)
    rows: list[Row] = []
    for group in together.values():
        columns = zip(*(row_of(failure) for failure in group), strict=True)
        ran = [held[cell] for failure in group for cell in cells_of(failure) if cell in held]
        told = (", ".join(dict.fromkeys(column)) for column in columns)
        rows.append((*told, f"{sum(ran)} of {len(ran)}"))
    return rows


def lines_of(held: Mapping[str, bool], versions: Sequence[str]) -> Iterator[str]:
    """All that stands between the page's marks."""
    yield f"{sum(held.values()):,} of {len(held):,} cells held, with"
    yield f"{', '.join(versions)}."
    for title, failures in SECTIONS.items():
        rows = rows_of(failures, held)
        used = [n for n in range(len(HEADINGS)) if any(row[n] for row in rows)]
        yield from ("", f"## {title}", "")
        yield from table([line[n] for n in used] for line in (HEADINGS, RULE, *rows))
