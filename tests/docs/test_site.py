# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: built strictly, every link leads somewhere, brief."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE = sorted(DOCS.glob("*.md"))
"""All that is no reference."""

AT_MOST = 4_000
"""Words to be read."""

# What is no prose: code, what a run wrote, tags, where a link leads.
NO_PROSE = re.compile(
    r"^```.*?^```$|<!-- (\w+) -->.*?<!-- /\1 -->|<[^>]+>|(?<=\])\([^)]*\)", re.MULTILINE | re.DOTALL
)


def words(text: str) -> int:
    return sum(1 for word in NO_PROSE.sub("", text).split() if re.search(r"\w", word))


def test_what_is_to_be_read_is_brief() -> None:
    counts = {page.name: words(page.read_text(encoding="utf-8")) for page in GUIDE}
    assert sum(counts.values()) <= AT_MOST, counts


def test_words_are_counted_where_they_are_prose() -> None:
    text = (
        "# One two\n\n| a `b` | [c](d.md) |\n\n```sh\nno\n```\n<!-- x -->\nno\n<!-- /x -->\n— 5 %"
    )
    assert words(text) == 6


class Page(HTMLParser):
    """The links and the anchors of a page of the site."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given["id"]} if "id" in given else set()
        for name in ("href", "src", "srcset"):
            if name in given:
                (self.links if tag == "a" else self.loaded).append(given[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by `mkdocs build --strict`, in which a warning is an error."""
    if find_spec("mkdocs") is None:
        pytest.skip("the group `docs` is not installed")
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(made)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    return made


def pages(site: Path) -> Iterator[tuple[str, Page]]:
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":  # served for any path, so its links are absolute
            yield path.relative_to(site).as_posix(), Page(path)


def test_every_link_leads_somewhere(site: Path) -> None:
    made = dict(pages(site))
    assert len(made) > len(GUIDE)
    for name, page in made.items():
        for link in page.links + page.loaded:
            if re.match(r"(https?|data|mailto):", link):
                continue
            target, anchor = urldefrag(link)
            path = (site / name).parent / unquote(target) if target else site / name
            path = path / "index.html" if path.is_dir() else path
            assert path.exists(), f"{name}: {link}"
            if path.suffix == ".html":
                inner = made[path.resolve().relative_to(site.resolve()).as_posix()]
                assert unquote(anchor) in inner.anchors, f"{name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for name, page in pages(site):
        assert [link for link in page.loaded if re.match(r"https?:|//", link)] == [], name


def test_each_public_name_is_in_the_reference(site: Path) -> None:
    import cline_transport  # noqa: PLC0415 - its names only

    shown: set[str] = set()
    for name, page in pages(site):
        if name.startswith("reference/api/"):
            shown |= page.anchors
    for name in cline_transport.__all__:
        if name not in ("__version__", "ClineTransport", "AsyncClineTransport"):
            assert f"cline_transport.{name}" in shown
    for name in (
        "httpx.ClineTransport", "httpx.AsyncClineTransport", "httpx.StreamError",
        "openai.http_client", "openai.async_http_client", "instrumentor.ClineTransportInstrumentor",
        "simulator.Simulator", "simulator.Reply", "simulator.ApiLimits",
    ):  # fmt: skip
        assert f"cline_transport.{name}" in shown
