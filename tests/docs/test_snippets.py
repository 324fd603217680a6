# SPDX-License-Identifier: Apache-2.0
"""Every snippet of README and docs runs, against the simulator, and prints what it says it does."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cline_transport import Settings
from cline_transport.cli import main
from cline_transport.simulator import Simulator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIVE = "https://api.cline.bot/api/v1"


@dataclass
class Snippet:
    """One fenced block, and the block of output right after it."""

    page: Path
    line: int
    language: str
    code: str
    output: str | None

    @property
    def id(self) -> str:
        return f"{self.page.name}:{self.line}"


def snippets(language: str) -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text()
        found = list(FENCE.finditer(text))
        for index, match in enumerate(found):
            if match.group(1) != language:
                continue
            after = found[index + 1] if index + 1 < len(found) else None
            follows = (
                after is not None
                and after.group(1) == "text"
                and not text[match.end() : after.start()].strip()
            )
            output = after.group(2) if after is not None and follows else None
            line = text.count("\n", 0, match.start()) + 1
            snippet = Snippet(page, line, language, match.group(2), output)
            yield pytest.param(snippet, id=snippet.id)


@pytest.fixture
def live_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with Simulator() as api:
        monkeypatch.setenv("CLINE_API_KEY", api.api_key)
        yield api


@pytest.mark.parametrize("snippet", list(snippets("python")))
def test_a_python_snippet_runs(
    snippet: Snippet, live_api: Simulator, request: pytest.FixtureRequest
) -> None:
    code = snippet.code.replace(LIVE, live_api.base_url)
    # Without httpx2 (Python 3.10) its snippet is the other family's.
    for name in re.findall(r"^import (httpx2?)$", code, re.MULTILINE):
        pytest.importorskip(name)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * snippet.line + code, snippet.page, "exec"), namespace)  # noqa: S102
        for name, value in list(namespace.items()):
            if name.startswith("test_"):
                value(live_api)
    if snippet.output is not None:
        assert printed.getvalue() == snippet.output
    else:
        assert printed.getvalue() == ""
    client = namespace.get("client")
    if hasattr(client, "close"):
        close(client)


def close(client: Any) -> None:
    import anyio  # noqa: PLC0415 -- for asynchronous clients only

    if type(client).__name__.startswith("Async"):
        anyio.run(getattr(client, "aclose", None) or client.close)
    else:
        client.close()


@pytest.mark.parametrize("snippet", list(snippets("toml")))
def test_a_toml_snippet_is_a_valid_configuration(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cline_transport.toml"
    path.write_text(snippet.code)
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", str(path))
    assert Settings() != Settings.model_construct()


@pytest.mark.parametrize("snippet", list(snippets("console")))
def test_a_command_is_one_that_exists(snippet: Snippet) -> None:
    for line in snippet.code.splitlines():
        command = shlex.split(line.rpartition("&&")[2])
        if command[:2] == ["uv", "run"]:
            command = command[2:]
        if command[0] == "cline-transport":
            with pytest.raises(SystemExit) as caught:
                main([command[1], "--help"])
            assert caught.value.code == 0
        else:
            assert command[0] in ("pytest", "pip")


def test_the_links_within_the_project_lead_somewhere() -> None:
    link = re.compile(r"""(?:\]\(|src="|srcset=")([^)#"]+)""")
    for page in PAGES:
        for target in link.findall(page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_page_names_this_machine() -> None:
    for page in PAGES:
        assert os.environ.get("HOME", "/root") + "/" not in page.read_text()
