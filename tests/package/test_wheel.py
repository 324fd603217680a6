# SPDX-License-Identifier: Apache-2.0
"""Wheel and sdist, made by the real backend: what is in them, and that they agree."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import cline_transport

ROOT = Path(__file__).parents[2]
VERSION = cline_transport.__version__
INFO = f"cline_transport-{VERSION}.dist-info"

pytest.importorskip("hatchling")
if not (ROOT / "cline_transport").exists():  # the tests were taken elsewhere, to an installed wheel
    pytest.skip("needs the sources", allow_module_level=True)


def build_wheel(source: Path, into: Path) -> Path:
    from hatchling.builders.wheel import WheelBuilder  # noqa: PLC0415 -- a build tool

    [path] = WheelBuilder(str(source)).build(directory=str(into), versions=["standard"])
    return Path(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hatchling.builders.sdist import SdistBuilder  # noqa: PLC0415 -- a build tool

    folder = str(tmp_path_factory.mktemp("sdist"))
    [path] = SdistBuilder(str(ROOT)).build(directory=folder, versions=["standard"])
    return Path(path)


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def fields(wheel: Path) -> Message:
    return message_from_bytes(files_of(wheel)[f"{INFO}/METADATA"])


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cline_transport").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"cline_transport/py.typed", "cline_transport/_stores/sync.lua"} <= package
    about = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    assert files_of(wheel).keys() == package | {f"{INFO}/{name}" for name in about}
    assert wheel.name == f"cline_transport-{VERSION}-py3-none-any.whl"


def test_it_has_the_licence_and_the_ways_in(wheel: Path) -> None:
    files = files_of(wheel)
    assert files[f"{INFO}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    ways = files[f"{INFO}/entry_points.txt"].decode()
    assert "[console_scripts]\ncline-transport = cline_transport.cli:main" in ways
    assert "[opentelemetry_instrumentor]\ncline_transport = cline_transport.instrumentor:" in ways
    assert "[pytest11]\ncline_transport = cline_transport.simulator.pytest_plugin" in ways


def test_its_metadata_say_what_it_is(fields: Message) -> None:
    assert fields["Name"] == "cline-transport"
    assert fields["Version"] == VERSION
    assert fields["Requires-Python"] == ">=3.10"
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["License-File"] == "LICENSE"
    assert fields["Description-Content-Type"] == "text/markdown"
    assert fields.get_payload(decode=True) == (ROOT / "README.md").read_bytes()
    classifiers = fields.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    # A licence expression takes the place of the classifier; both together are refused.
    assert not [one for one in classifiers if one.startswith("License ::")]


def test_its_extras_are_those_of_the_project(fields: Message) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    named = set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))
    assert set(fields.get_all("Provides-Extra", [])) == named
    assert {"demo", "httpx2", "openai", "redis", "simulator"} <= named


def test_the_sdist_has_what_the_tests_and_the_docs_are_made_of(sdist: Path) -> None:
    top = f"cline_transport-{VERSION}"
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    wanted = {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "PKG-INFO", "README.md",
        "SECURITY.md", "cline_transport/py.typed", "docs/reference/cline_transport.toml",
        "examples/streaming.py", "mkdocs.yml", "noxfile.py", "pyproject.toml", "tests/conftest.py",
    }  # fmt: skip
    assert wanted <= names
    unwanted = re.compile(r"(^|/)(__pycache__|uv\.lock|\.venv|\.nox|\.coverage)")
    assert [name for name in names if unwanted.search(name)] == []


def test_the_wheel_of_the_sdist_is_that_of_the_tree(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build_wheel(tmp_path / f"cline_transport-{VERSION}", tmp_path / "again")
    assert files_of(again) == files_of(wheel)
