# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: a heading, what the application saw, the waterfall, the verdict."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from cline_transport._checks import HIDDEN
from cline_transport._demo.bars import draw, glyphs_for
from cline_transport._demo.calls import Outcome
from cline_transport._demo.waterfall import Waterfall
from cline_transport.errors import ErrorInfo

__all__ = ["PLAIN_WIDTH", "Stage", "make_console"]

PLAIN_WIDTH = 100
"""Columns where the output is no terminal."""

_WIDEST = 110

_LABEL = 21
"""Columns of a label, its gap included."""


def make_console(*, no_color: bool = False, file: TextIO | None = None) -> Console:
    """A console for `file` (default: the standard output): plain where that is no terminal.

    Args:
        no_color: No colours, also in a terminal.
        file: Where to print.
    """
    out: TextIO = sys.stdout if file is None else file
    if not out.isatty():
        # Not left to rich: FORCE_COLOR would bring control codes into a file.
        return Console(
            file=out, width=PLAIN_WIDTH, force_terminal=False, color_system=None, no_color=True
        )
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return Console(file=out, width=width, no_color=no_color or None, highlight=False)


class Stage:
    """Prints one call after another.

    Args:
        console: Where to.
        secrets: Texts that must not be shown, should a server repeat them.
    """

    def __init__(self, console: Console, *, secrets: Sequence[str] = ()) -> None:
        self.console = console
        self._secrets = tuple(secret for secret in secrets if secret)
        self._encoding = console.encoding
        self._glyphs = glyphs_for(console.encoding)

    def heading(self, title: str, point: str, *, number: str = "") -> None:
        """What comes now."""
        title = self._safe(title)
        text = Text.assemble((f"{number}  " if number else "", "dim"), (title, "bold"))
        self.console.print()
        self.console.print(
            Rule(text, align="left", style="dim", characters=self._glyphs.line), end=""
        )
        self._line(Text(self._safe(point), style="dim"))

    def outcome(self, outcome: Outcome, info: ErrorInfo | None) -> None:
        """What the application saw: text, exception, or one after the other."""
        self.console.print()
        label = "the application saw"
        if outcome.text or outcome.error is None:
            self._labelled(label, Text(self._safe(f'"{outcome.text}"'), style="green"))
            label = "and then"
        if outcome.error is not None:
            kind = type(outcome.error)
            name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
            self._labelled(label, Text(name, style="bold red"))
            for key, value in _facts(info, outcome.error):
                self._labelled(" " * _LABEL + key, Text(self._safe(value)), column=_LABEL + 12)

    def waterfall(self, waterfall: Waterfall) -> None:
        """The call's spans and waits on their time axis."""
        self.console.print()
        width = self.console.width - 2
        for line in draw(waterfall, width=width, glyphs=self._glyphs, safe=self._safe):
            self._line(line)

    def verdict(self, problems: Sequence[str], summary: str) -> None:
        """Whether it ended as it had to: one line, or a line for each problem."""
        self.console.print()
        if problems:
            for problem in problems:
                text = self._safe(f"{self._glyphs.bad} {problem}")
                self._line(Text(text, style="bold red"))
        else:
            self._line(Text.assemble((self._glyphs.good, "bold green"), f" {summary}"))

    def report(self, info: ErrorInfo) -> None:
        """The support report of a failure, in a frame."""
        frame = box.ROUNDED if self._glyphs.fancy else box.ASCII
        panel = Panel(
            Text(self._safe(info.report())),
            title=Text("error_info(exc).report(): paste this into a support request"),
            title_align="left",
            border_style="dim",
            box=frame,
        )
        self.console.print()
        self.console.print(panel)

    def _labelled(self, label: str, text: Text, *, column: int = _LABEL) -> None:
        """`text` beside its label, wrapped in its own column."""
        for line in text.wrap(self.console, max(20, self.console.width - 2 - column)):
            line.rstrip()
            self._line(Text.assemble((f"{label:<{column}}", "dim"), line))
            label = ""

    def _line(self, text: Text) -> None:
        self.console.print(Padding(text, (0, 0, 0, 2), expand=False))

    def _safe(self, text: str) -> str:
        """Foreign text without secrets, control characters, and what the output cannot encode."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
        return text.encode(self._encoding, "replace").decode(self._encoding)


def _facts(info: ErrorInfo | None, error: Exception) -> list[tuple[str, str]]:
    if info is None:
        return [("message", str(error))]
    status = "none" if info.status_code is None else str(info.status_code)
    return [
        ("code", str(info.code)),
        ("status", f"{status} ({info.phase.replace('_', '-')})"),
        ("message", info.message),
        ("request ID", info.request_id or "none"),
    ]
