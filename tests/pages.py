# SPDX-License-Identifier: Apache-2.0
"""What scripts write into the docs: text between two marks of a page, and pictures of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["SANS", "THEMES", "Marks", "Theme", "draw_themes", "opening", "shown_in", "table"]


class Marks(NamedTuple):
    """The place of a page between `<!-- name -->` and `<!-- /name -->`.

    Attributes:
        page: The page.
        name: The marks' name.
    """

    page: Path
    name: str

    @property
    def begin(self) -> str:
        """The first mark."""
        return f"<!-- {self.name} -->"

    @property
    def end(self) -> str:
        """The second one."""
        return f"<!-- /{self.name} -->"

    def read(self, text: str | None = None) -> str:
        """What stands between them, on the page or in a text."""
        whole = self.page.read_text(encoding="utf-8") if text is None else text
        return whole.partition(self.begin)[2].partition(self.end)[0]

    def write(self, figures: str) -> None:
        """Put `figures` between them.

        Raises:
            RuntimeError: The page has no such marks.
        """
        before, begin, rest = self.page.read_text(encoding="utf-8").partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not (begin and end):
            raise RuntimeError(f"{self.page.name} has no {self.begin} and {self.end}")
        text = f"{before}{begin}\n{figures}\n{end}{after}"
        self.page.write_text(text, encoding="utf-8", newline="\n")

    def rows(self, text: str | None = None) -> list[list[str]]:
        """The cells of the table that stands there, without its headings."""
        lines = [line for line in self.read(text).splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def table(rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of Markdown."""
    return ["| " + " | ".join(cells) + " |" for cells in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """The colours of one picture, GitHub's own light or dark ground in mind."""

    ground: str
    border: str
    grid: str
    text: str
    quiet: str
    accent: str
    good: str
    bad: str


THEMES: Final = {
    "light": Theme(
        ground="#ffffff", border="#d1d9e0", grid="#eaeef2", text="#1f2328", quiet="#59636e",
        accent="#0969da", good="#1a7f37", bad="#bc4c00",
    ),
    "dark": Theme(
        ground="#0d1117", border="#3d444d", grid="#21262d", text="#f0f6fc", quiet="#9198a1",
        accent="#4493f8", good="#3fb950", bad="#db6d28",
    ),
}  # fmt: skip

SANS: Final = "-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"


def opening(title: str, width: int, height: int, theme: Theme, styles: str = "") -> list[str]:
    """The beginning of a picture as SVG: no script, no font, no outside reference."""
    title = escape(title)
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{title}">'
        ),
        f"<title>{title}</title>",
        (
            f"<style>text{{font:13px {SANS};fill:{theme.text}}}"
            f".q{{font-size:11px;fill:{theme.quiet}}}.b{{font-weight:600}}{styles}</style>"
        ),
        (
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" '
            f'fill="{theme.ground}" stroke="{theme.border}"/>'
        ),
    ]


def draw_themes(name: str, draw: Callable[[Theme], str], assets: Path) -> None:
    """Write a picture in each theme: `{name}-light.svg` and `{name}-dark.svg`."""
    assets.mkdir(parents=True, exist_ok=True)
    for theme_name, theme in THEMES.items():
        path = assets / f"{name}-{theme_name}.svg"
        path.write_text(draw(theme), encoding="utf-8", newline="\n")


def shown_in(picture: Path) -> set[str | None]:
    """The texts of a picture, which has the usual width and refers to nothing outside."""
    text = picture.read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314 - our own file
    assert root.get("width") == "800"
    assert "href" not in text
    assert "url(" not in text
    return {element.text for element in root.iter() if element.tag.endswith("}text")}
