# SPDX-License-Identifier: Apache-2.0
"""The matrix of environments: `uvx nox` runs all of it, `uvx nox --list` says what there is.

Each session is an environment of its own, made by uv from `pyproject.toml`; none reads or writes a
lock. After `--` comes what pytest is to run instead; `-- --quick` is the part of a session in which
its environment can differ from the others, which is what `.ci/run` runs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))
MAIN = "3.11"  # the oldest that httpx2 and openai 3 are made for
LIBRARIES = ("httpx", "httpx2", "both", "alias")
INSTRUMENTATIONS = ("genai", "openinference", "openllmetry")
TARGETS = tuple(sorted(path.name for path in Path("tests/fuzz/seeds").iterdir()))

# What an older or newer Python can change: the pure core, the package, waiting, processes, threads.
BY_PYTHON = (
    "tests/core",
    "tests/package",
    "tests/limits",
    "tests/transport/test_retries.py",
    "tests/transport/test_metrics.py",
    "tests/transport/test_processes.py",
)
# What a generation of the SDK can change.
BY_SDK = ("tests/clients", "tests/docs", "tests/examples/test_zero_code.py")
# Each failure in each form of bytes: the SDK beneath sees what the newest does.
NO_STREAM_MATRIX = "--ignore=tests/clients/test_stream_matrix.py"
# What the libraries beneath can change.
BY_FAMILY = ("tests/families", "tests/transport/test_families.py")
BY_ALIAS = (
    *BY_FAMILY,
    "tests/transport/test_attach.py",
    "tests/transport/test_instrumentor.py",
)


def install(session: nox.Session, *groups: str, options: tuple[str, ...] = ()) -> None:
    """The checkout, editable, with dependency groups."""
    session.install("-e", ".", *(f"--group={name}" for name in groups), *options)


def pytest(session: nox.Session, whole: tuple[str, ...], quick: tuple[str, ...] = ()) -> None:
    """Run what is given after `--`; else the quick part, or the whole."""
    asked = tuple(session.posargs)
    chosen = (quick or whole) if asked == ("--quick",) else asked or whole
    session.run("python", "-m", "pytest", "-q", *chosen)


def lowest_of(package: str) -> str:
    """The lowest version that an extra declares."""
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    [found] = {
        match[1]
        for listed in extras.values()
        for one in listed
        if (match := re.match(rf"{package}>=([\d.]+)", one))
    }
    return found if found.count(".") > 1 else f"{found}.0"


@nox.session(python=MAIN)
def lint(session: nox.Session) -> None:
    """Rules and formatting."""
    install(session, "lint")
    session.run("ruff", "check", "--output-format", "concise", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=MAIN)
def types(session: nox.Session) -> None:
    """The code, the tests, and what the public API promises to a caller's type checker."""
    install(session, "dev")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Each Python, with the newest of all dependencies."""
    install(session, "test", "openai3")
    pytest(session, ("tests",), BY_PYTHON)


@nox.session(python=MAIN)
def lowest(session: nox.Session) -> None:
    """The lowest versions that `pyproject.toml` declares."""
    # Extras by name: what a group's own `cline-transport[...]` brings would come newest.
    extras = "brotli,http2,httpx2,redis,simulator,zstd"
    groups = ("--group=test", "--group=openai2")
    session.install("-e", f".[{extras}]", *groups, "--resolution", "lowest-direct")
    said = "from importlib.metadata import version; print(version('httpx2'), version('redis'))"
    versions = str(session.run("python", "-c", said, silent=True)).split()
    if versions != [lowest_of("httpx2"), lowest_of("redis")]:
        session.error(f"not the lowest that are declared: httpx2, redis {versions}")
    # How much a hostile server can cause depends on versions beneath: those tests want the newest.
    newest = ("tests/transport/test_hostile.py", "tests/transport/test_bounds.py")
    left_out = tuple(f"--ignore={path}" for path in newest)
    whole = ("tests/core", "tests/limits", "tests/transport", *left_out)
    quick = (
        "tests/core",
        "tests/limits",
        "tests/transport/test_errors.py",
        "tests/transport/test_retries.py",
        "tests/transport/test_streams.py",
        "tests/transport/test_spans.py",
        "tests/transport/test_trace_context.py",
        "tests/transport/test_others_instrumentation.py",
        "tests/transport/test_metrics.py",
        "tests/transport/test_log_events.py",
    )
    pytest(session, whole, quick)


@nox.session(python=MAIN)
def openai1(session: nox.Session) -> None:
    """The SDK's first generation, on httpx."""
    install(session, "test", "openai1")
    pytest(session, ("tests/clients",), ("tests/clients", NO_STREAM_MATRIX))


@nox.session(python=MAIN)
def openai2(session: nox.Session) -> None:
    """Its second, on httpx."""
    install(session, "test", "openai2")
    pytest(session, BY_SDK, (*BY_SDK, NO_STREAM_MATRIX))
    if not session.posargs:
        session.run("python", "-m", "pytest", "-q", "tests/faults", "-k", "openai")


@nox.session(python=MAIN)
@nox.parametrize("libraries", LIBRARIES, ids=LIBRARIES)
def families(session: nox.Session, libraries: str) -> None:
    """Httpx alone, httpx2 alone, both, and `httpx2.alias_httpx()`."""
    install(session, "test", "openai2" if libraries == "httpx" else "openai3")
    absent = {"httpx": ("httpx2", "httpcore2"), "httpx2": ("httpx", "httpcore")}.get(libraries)
    if absent:
        session.run("uv", "pip", "uninstall", "--quiet", *absent, external=True)
    aliased = libraries == "alias"
    session.env["FAMILIES_EXPECTED"] = libraries if absent else "httpx httpx2"
    plugin = ("-p", "tests.families.alias") if aliased else ()
    quick = BY_ALIAS if aliased else BY_FAMILY
    pytest(session, (*plugin, "tests/families", "tests/transport"), (*plugin, *quick))


@nox.session(python=MAIN)
@nox.parametrize("name", INSTRUMENTATIONS, ids=INSTRUMENTATIONS)
def instrumentations(session: nox.Session, name: str) -> None:
    """Other instrumentations of the SDK, each with ours in one process."""
    install(session, "test", "openai3", name)
    pytest(session, ("tests/instrumentations",))


@nox.session(python=MAIN)
def frameworks(session: nox.Session) -> None:
    """LangChain and others, each in an environment that it makes itself."""
    install(session, "test")
    names = [name for name in session.posargs if name != "--quick"]
    session.run("python", "-m", "tests.frameworks", *names)


@nox.session(python=MAIN)
def docs(session: nox.Session) -> None:
    """The site; a broken link or an unknown page is an error."""
    install(session, "test", "docs")
    session.run("python", "-m", "pytest", "-q", "-n0", "tests/docs/test_site.py")


@nox.session(python=MAIN)
def package(session: nox.Session) -> None:
    """Wheel and sdist: built, checked, installed in empty environments, tested from there."""
    session.install("build", "check-wheel-contents", "hatchling", "twine")
    session.run("python", "-m", "tests.package", session.create_tmp())
    session.run("uvx", "--quiet", "cffconvert", "--validate", external=True)
    forms = sorted(str(path) for path in Path(".github/ISSUE_TEMPLATE").glob("*_*.yml"))
    for schema, files in {
        "vendor.github-issue-forms": forms,
        "vendor.github-workflows": [".github/workflows/ci.yml"],
    }.items():
        command = ("uvx", "--quiet", "check-jsonschema", "--builtin-schema", schema, *files)
        session.run(*command, external=True)


@nox.session(python=MAIN)
def demo(session: nox.Session) -> None:
    """The command, with the extra that it names."""
    session.install("-e", ".[demo]")
    session.run("cline-transport", "demo")


@nox.session(python=MAIN, default=False)
def benchmark(session: nox.Session) -> None:
    """What a call costs beside other tools, in instructions (valgrind); minutes."""
    install(session, "test", "benchmark")
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session(python=MAIN, default=False)
@nox.parametrize("target", TARGETS, ids=TARGETS)
def fuzz(session: nox.Session, target: str) -> None:
    """One fuzzer for a minute."""
    install(session, "test", "fuzz")
    seconds = os.environ.get("FUZZ_SECONDS", "60")
    session.run("python", "-m", "tests.fuzz", target, "--seconds", seconds)
