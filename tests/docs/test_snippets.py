# SPDX-License-Identifier: Apache-2.0
"""Every snippet of README and docs runs, against the simulator, and prints what it says it does."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import environment_variables
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk import environment_variables as sdk_variables
from opentelemetry.util.re import parse_env_headers

from cline_transport import Settings, _names
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


OTEL_NAMES = {*dir(environment_variables), *dir(sdk_variables)}
"""The variables that OpenTelemetry reads."""

COMMANDS = ("opentelemetry-instrument", "pip", "prometheus", "promtool", "pytest", "uv")
"""What a page may tell to run beside ours: it is there, or a README's first line brings it."""


@pytest.mark.parametrize("snippet", [*snippets("console"), *snippets("sh")])
def test_a_command_is_one_that_exists(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in snippet.code.replace("\\\n", "").splitlines():
        words = shlex.split(line.rpartition("&&")[2])
        if words[0] == "export":
            for name in (word.partition("=")[0] for word in words[1:]):
                assert name in OTEL_NAMES or name.startswith(("CLINE_TRANSPORT_", "LLM_"))
            continue
        words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
        if "-m" in words:
            module, *arguments = words[words.index("-m") + 1 :]
            takes_arguments(module, arguments)
            continue
        if words[:2] == ["uv", "run"]:
            words = words[2:]
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).exists()
        elif words[0] == "cline-transport":
            with pytest.raises(SystemExit) as caught:
                main([words[1], "--help"])
            assert caught.value.code == 0
            told = capsys.readouterr().out
            assert {word for word in words if word.startswith("--")} <= set(told.split())
        else:
            assert words[0] in COMMANDS


def takes_arguments(module: str, arguments: list[str]) -> None:
    """A program of this repository, which tells its arguments."""
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    told = re.findall(r"[\w-]+", done.stdout)
    for word in arguments:
        assert not word.startswith("--") or word in told, (module, word)


OUTPUT_OF = ("python", "console")
QUERY = re.compile(r"\b(?:cline|gen_ai)(?:\.\w+)+|'cline'(?:\]\['\w+')+")


@pytest.mark.parametrize("snippet", list(snippets("text")))
def test_a_text_is_an_output_or_a_query_with_names_that_are_told(snippet: Snippet) -> None:
    before = snippet.page.read_text().splitlines()[: snippet.line - 1]
    fences = [line for line in before if line.startswith("```")]
    if fences[-2:] and fences[-2].removeprefix("```") in OUTPUT_OF and not before[-1]:
        return  # the snippet's own test compares it, or that of the configuration's page
    names = {".".join(re.findall(r"\w+", name)) for name in QUERY.findall(snippet.code)}
    assert names
    assert names <= {value for value in vars(_names).values() if isinstance(value, str)}


@pytest.mark.parametrize("snippet", list(snippets("ini")))
def test_an_environment_is_one_that_is_read(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in snippet.code.splitlines() if not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    for name, value in given.items():
        assert name in OTEL_NAMES or name.startswith("CLINE_TRANSPORT_")
        monkeypatch.setenv(name, value)
    for name, value in given.items():
        if name.endswith("_HEADERS"):  # what is no header, the exporter leaves out
            assert len(parse_env_headers(value, liberal=True)) == len(value.split(","))
    endpoints = [value for name, value in given.items() if name.endswith("_ENDPOINT")]
    assert OTLPSpanExporter()._endpoint.startswith(tuple(endpoints) or "http://localhost:4318")
    if any(name.startswith("CLINE_TRANSPORT_") for name in given):
        assert Settings() != Settings.model_construct()


@pytest.mark.parametrize("snippet", list(snippets("yaml")))
def test_yaml_is_read(snippet: Snippet) -> None:
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", snippet.code))
    ours = read.get("instrumentation/development", {}).get("python", {}).get("cline_transport")
    assert read
    if ours is not None:
        assert Settings(**ours).hosts


def test_the_page_of_examples_shows_each_as_the_list_describes_it() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    rows = re.findall(r"^\| \[(.+?\.py)\]\(.+?\) \| (.+?) \|$", listed, re.MULTILINE)
    blocks = re.findall(
        r'^\?\?\? example "(.+?): (.+)"\n\n    ```python\n    --8<-- "examples/(.+)"\n    ```$',
        (ROOT / "docs" / "examples.md").read_text(),
        re.MULTILINE,
    )
    assert rows
    assert blocks == [(n, re.sub(r"\[(.+?)\]\(.+?\)", r"\1", said), n) for n, said in rows]


def test_the_rules_of_the_readme_are_those_of_the_guide() -> None:
    rows = [
        re.findall(r"^\| failure \| retries \|.*\n(?:\|.*\n)+", page.read_text(), re.MULTILINE)
        for page in (ROOT / "README.md", ROOT / "docs" / "retries.md")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 1


def test_no_block_is_left_out() -> None:
    languages = {"python", "toml", "console", "sh", "text", "ini", "yaml"}
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= languages, page.name
        assert set(fences[1::2]) <= {""}, page.name


def test_the_links_within_the_project_lead_somewhere() -> None:
    link = re.compile(r"""(?:\]\(|src="|srcset=")([^)#"]+)""")
    for page in PAGES:
        for target in link.findall(page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_page_names_this_machine() -> None:
    for page in PAGES:
        assert os.environ.get("HOME", "/root") + "/" not in page.read_text()
