# SPDX-License-Identifier: Apache-2.0
"""Output of the demo, in files of every kind."""

from __future__ import annotations

import io
import os

import pytest


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no provider, and a terminal of 80 columns."""
    for name in os.environ:
        if name.startswith(("CLINE_", "OTEL_", "OPENAI_")):
            monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()
