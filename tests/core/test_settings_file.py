# SPDX-License-Identifier: Apache-2.0
"""What is said of a settings file that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .wrong_settings import HOSTS, KEY, message, unreadable


def test_a_missing_file_is_told_by_its_variable(settings_file: Path) -> None:
    assert message() == unreadable(settings_file, "TOML file, and there is none of this name")


def test_a_directory_is_no_file(settings_file: Path) -> None:
    settings_file.mkdir()
    assert message() == unreadable(settings_file, "TOML file that can be read: Is a directory")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read all")
def test_a_file_without_permission_is_told(settings_file: Path) -> None:
    settings_file.write_text("enabled = false\n")
    settings_file.chmod(0)
    assert message() == unreadable(settings_file, "TOML file that can be read: Permission denied")


def test_a_file_that_is_not_in_utf_8_is_told(settings_file: Path) -> None:
    settings_file.write_bytes(b'hosts = ["\xe9"]\n')
    assert message() == unreadable(settings_file, "TOML file that can be read: it is not in UTF-8")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("enabled =\n", "line 1, column 10"),
        ("\n\nenabled = no\n", "line 3, column 11"),
        ("[retry\n", "line 1, column 7"),
        (f"[retry]\n{KEY}\n", "line 2, column 28"),
        ("enabled = true\nenabled = true\n", "line 2, column 15"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_the_line(
    settings_file: Path, text: str, line: str
) -> None:
    settings_file.write_text(text)
    told = message()
    assert told.startswith("CLINE_TRANSPORT_CONFIG must name a file in TOML: ")
    assert told.endswith(f"(at {line}) (got {str(settings_file)!r}, from the environment)")
    assert KEY not in told


def test_a_key_instead_of_a_path_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", KEY)
    assert message() == (
        "CLINE_TRANSPORT_CONFIG must name a TOML file, and there is none of this name "
        "(got [redacted], from the environment)"
    )


def test_a_file_that_cannot_be_read_does_not_hide_what_else_is_wrong(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "perhaps")
    assert message(hosts="*") == "; ".join(
        [
            unreadable(settings_file, "TOML file, and there is none of this name"),
            "enabled must be true or false "
            "(got 'perhaps', from the environment variable CLINE_TRANSPORT_ENABLED)",
            f"hosts {HOSTS} (got '*', from an argument)",
        ]
    )
