# SPDX-License-Identifier: Apache-2.0
"""What is in effect, and why: settings with their sources, libraries, instrumentations, mistakes.

Nothing of it is loaded for the report: versions and entry points are those of the installed
packages' metadata.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Final, Literal, cast

from pydantic_settings import InitSettingsSource

from cline_transport._checks import shown_url
from cline_transport._protocols import FAMILIES
from cline_transport._reference import CODE, RULES, literal, rows
from cline_transport._settings_errors import CONFIG, Problem, SettingsError, Sources
from cline_transport._version import __version__
from cline_transport.settings import Settings, known_names

__all__ = ["Instrumentation", "Report", "Setting", "make_report"]

_CLIENTS: Final = (*FAMILIES, "openai")
_OPENTELEMETRY: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "opentelemetry-configuration",  # which reads the file
)
_OTEL_FILE: Final = "OTEL_CONFIG_FILE"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"

Source = Literal["argument", "default", "environment", "file"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in effect.

    Attributes:
        value: As JSON has it; infinity is `"inf"`, and of `retry.rules` these are the codes.
        unit: `s`, `bytes`, or `None`.
        source: Where the value came from.
        origin: The name of the variable, or the path of the file; `None` for a default.
    """

    value: object
    unit: str | None
    source: Source
    origin: str | None


@dataclass(frozen=True, slots=True)
class Instrumentation:
    """What `opentelemetry-instrument` would start, or why it would not."""

    name: str
    package: str
    version: str
    active: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that the command tells.

    Attributes:
        enabled: Whether the transport does anything; `None` with `problems`.
        hosts: Where it is put without code; the same.
        settings: By name, each status and code of `retry.rules` its own; empty with `problems`.
        problems: What is wrong with the settings.
        clients: The versions of the client libraries; `None`: not installed.
        opentelemetry: The versions of its packages.
        otel_config_file: The path that `OTEL_CONFIG_FILE` names.
        otel_config_file_exists: Whether there is such a file; `None` when none is named.
    """

    version: str
    python: str
    enabled: bool | None
    hosts: tuple[str, ...] | None
    config_file: str | None
    settings: Mapping[str, Setting]
    problems: Sequence[Problem]
    clients: Mapping[str, str | None]
    opentelemetry: Mapping[str, str | None]
    otel_config_file: str | None
    otel_config_file_exists: bool | None
    instrumentations: Sequence[Instrumentation]

    def to_json(self) -> str:
        """For machines."""
        problems = [problem._asdict() | {"message": str(problem)} for problem in self.problems]
        return json.dumps(asdict(self) | {"problems": problems}, indent=2)

    def to_text(self) -> str:
        """For people, on any terminal."""
        return "\n".join(map(_printable, self._lines()))

    def _lines(self) -> Iterator[str]:
        yield f"cline-transport {self.version}, Python {self.python}"
        if self.problems:
            yield "No transport can be made: see Problems, below."
        else:
            yield f"The transport is {'enabled' if self.enabled else 'switched off'}."
            yield f"Hosts, for clients without code: {', '.join(self.hosts or ()) or 'none'}"
        yield from _section("Settings", self._settings())
        yield from _section("The rules of retry.rules", self._rules())
        yield from _section("Client libraries", _versions(self.clients))
        yield from _section("OpenTelemetry", [*_versions(self.opentelemetry), *self._otel_file()])
        started = (
            [each.name, f"{each.package} {each.version}", _state(each)]
            for each in self.instrumentations
        )
        yield from _section("Instrumentations under opentelemetry-instrument", started)
        yield from _section("Problems", ([str(problem)] for problem in self.problems))

    def _settings(self) -> Iterator[list[str]]:
        for name, setting in self.settings.items():
            if name == RULES:
                codes = cast("list[str]", setting.value)
                shown = f"{len(codes)} rules, see below" if codes else "none"
                yield [name, shown, _source(setting)]
            elif not name.startswith(f"{RULES}."):
                yield [name, _shown(setting), _source(setting)]

    def _rules(self) -> Iterator[list[str]]:
        """A line for each code, with all sources that its rule has."""
        codes = self.settings[RULES].value if self.settings else ()
        names = [row.name.rpartition(".")[2] for row in rows() if CODE in row.name]
        for code in cast("Iterable[str]", codes):
            members = {name: self.settings[f"{RULES}.{code}.{name}"] for name in names}
            told = [f"{name} {_shown(member)}" for name, member in members.items()]
            sources = dict.fromkeys(map(_source, members.values()))
            given = [source for source in sources if source != "default"] or ["default"]
            yield [code, *told, ", ".join(given)]

    def _otel_file(self) -> Iterator[list[str]]:
        if self.otel_config_file is not None:
            told = "its settings for cline_transport are stronger than those above"
            note = told if self.otel_config_file_exists else "no such file"
            yield [_OTEL_FILE, f"{self.otel_config_file} ({note})"]


def make_report() -> Report:
    """Look at everything; what is wrong is part of the answer."""
    settings: Settings | None = None
    problems: Sequence[Problem] = ()
    try:
        settings = Settings()
    except SettingsError as exc:
        problems = exc.problems
    otel_file = os.environ.get(_OTEL_FILE) or None
    return Report(
        version=__version__,
        python=platform.python_version(),
        enabled=settings.enabled if settings else None,
        hosts=settings.hosts if settings else None,
        config_file=os.environ.get(CONFIG) or None,
        settings=dict(_in_effect(settings)) if settings else {},
        problems=problems,
        clients={name: _version(name) for name in _CLIENTS},
        opentelemetry={name: _version(name) for name in _OPENTELEMETRY},
        otel_config_file=otel_file,
        otel_config_file_exists=Path(otel_file).is_file() if otel_file else None,
        instrumentations=[_instrumentation(found) for found in _instrumentors()],
    )


def _in_effect(settings: Settings) -> Iterator[tuple[str, Setting]]:
    unused = InitSettingsSource(Settings, {})
    file = Settings.settings_customise_sources(Settings, unused, unused, unused, unused)[-1]()
    sources = Sources({}, file, known_names())
    for row in rows():
        for path, value in _values(settings, row.name):
            yield ".".join(path), Setting(_as_json(value), row.unit, *sources.origin(path))


def _values(settings: Settings, name: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """What a setting is; what of a rule is one of each code's."""
    if CODE not in name:
        path = tuple(name.split("."))
        yield path, reduce(getattr, path, settings)
        return
    own = name.rpartition(".")[2]
    for code, rule in settings.retry.rules.items():
        yield (*RULES.split("."), str(code), own), getattr(rule, own)


def _as_json(value: object) -> object:
    if isinstance(value, Mapping):
        return [str(code) for code in cast("Mapping[object, object]", value)]
    if isinstance(value, tuple):
        return list(cast("tuple[str, ...]", value))
    if isinstance(value, str):
        return shown_url(value)  # that of a storage may have a password
    return str(value) if value == math.inf else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _instrumentors() -> list[EntryPoint]:
    return sorted(entry_points(group="opentelemetry_instrumentor"), key=lambda found: found.name)


def _instrumentation(found: EntryPoint) -> Instrumentation:
    # Loaded only where there is an instrumentation, and with it this package.
    from opentelemetry.instrumentation.dependencies import (  # noqa: PLC0415 - see above
        get_dist_dependency_conflicts,
    )

    package = cast("Distribution", found.dist)
    disabled = {name.strip() for name in os.environ.get(_DISABLED, "").split(",")}
    reason = None
    if disabled & {found.name, "*"}:
        reason = f"named in {_DISABLED}"
    elif (conflict := get_dist_dependency_conflicts(package)) is not None:
        reason = str(conflict)
    return Instrumentation(found.name, package.name, package.version, reason is None, reason)


def _shown(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, list):
        return ", ".join(cast("list[str]", value)) or "none"
    text = value if isinstance(value, str) else literal(value)
    return f"{text} {setting.unit}" if setting.unit and value is not None else text


def _source(setting: Setting) -> str:
    kind = "environment variable" if setting.source == "environment" else setting.source
    return kind if setting.origin is None else f"{kind} {setting.origin}"


def _state(instrumentation: Instrumentation) -> str:
    return "on" if instrumentation.active else f"off: {instrumentation.reason}"


def _versions(found: Mapping[str, str | None]) -> list[list[str]]:
    return [[name, number or "not installed"] for name, number in found.items()]


def _section(title: str, cells: Iterable[Sequence[str]]) -> Iterator[str]:
    """A heading, and under it the columns, each as wide as its widest cell."""
    lines = list(cells)
    if lines:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        yield from ("", title)
        for line in lines:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            yield f"  {'  '.join(padded)}".rstrip()


def _printable(line: str) -> str:
    """A line that stays one, and moves no cursor, whatever a file's name has in it."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in line
    )
