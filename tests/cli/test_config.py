# SPDX-License-Identifier: Apache-2.0
"""`cline-transport config`: what it says is in effect, whence, and what is wrong."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import pytest

import cline_transport
from cline_transport import Settings
from cline_transport._reference import CODE, RULES, rows
from cline_transport.cli import main

COMMAND = (sys.executable, "-m", "cline_transport", "config")
DOCS = Path(__file__).parents[2] / "docs" / "reference"
KEY = "sk-0123456789abcdef0123456789abcdef"


def config(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False)  # noqa: S603 - ourselves


def told(status: int = 0) -> dict[str, Any]:
    done = config("--json")
    assert (done.returncode, done.stderr) == (status, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def shown(status: int = 0) -> dict[str, list[list[str]]]:
    """The sections of the text: each a list of lines, each a list of cells."""
    done = config()
    assert (done.returncode, done.stderr) == (status, "")
    return sections_of(done.stdout)


def sections_of(text: str) -> dict[str, list[list[str]]]:
    head, *sections = text.removesuffix("\n").split("\n\n")
    found = {"": [line.split("  ") for line in head.splitlines()]}
    for section in sections:
        title, *lines = section.splitlines()
        assert all(line.startswith("  ") for line in lines)
        found[title] = [re.split(r" {2,}", line.strip()) for line in lines]
    return found


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def in_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]


def test_without_any_source_everything_is_a_default() -> None:
    report = told()
    rules = Settings.model_construct().retry.rules
    expected: dict[str, object] = {}
    for row in rows():
        if CODE in row.name:
            for code, rule in rules.items():
                value = getattr(rule, row.name.rpartition(".")[2])
                expected[row.name.replace(CODE, str(code))] = value
        else:
            expected[row.name] = [*map(str, rules)] if row.name == RULES else in_json(row.default)
    assert {name: setting["value"] for name, setting in report["settings"].items()} == expected
    for name, setting in report["settings"].items():
        assert (name, setting["source"], setting["origin"]) == (name, "default", None)
    assert (report["enabled"], report["hosts"]) == (True, ["api.cline.bot"])
    assert (report["problems"], report["config_file"]) == ([], None)


def test_the_text_has_a_line_for_each_setting_and_each_rule() -> None:
    text = shown()
    assert [cells[0] for cells in text["Settings"]] == [
        row.name for row in rows() if CODE not in row.name
    ]
    assert {cells[-1] for cells in text["Settings"]} == {"default"}
    lines = {cells[0]: cells[1:] for cells in text["Settings"]}
    assert lines["enabled"][0] == "true"
    assert lines["retry.rules"][0] == "19 rules, see below"
    assert lines["retry.deadline"][0] == "none"
    assert lines["retry.max_retry_after"][0] == "60.0 s"
    assert lines["retry.jitter"][0] == "0.25"
    assert lines["errors.max_body_bytes"][0] == "1048576 bytes"
    assert lines["stream.on_error"][0] == "normalize"
    rules = {cells[0]: cells[1:] for cells in text["The rules of retry.rules"]}
    assert list(rules) == [str(code) for code in Settings.model_construct().retry.rules]
    rest = ["initial 1.0 s", "multiplier 2.0", "max_wait 60.0 s", "default"]
    assert rules["429"] == ["max_retries 3", *rest]
    assert rules["500"] == ["max_retries 1", *rest]


def test_its_columns_are_aligned() -> None:
    lines = config().stdout.partition("\nSettings\n")[2].partition("\n\n")[0].splitlines()
    cells = [re.fullmatch(r"  (\S+ +)(\S.*?  +)default", line) for line in lines]
    assert len({match and match.span(1) for match in cells}) == 1
    assert len({match and match.span(2) for match in cells}) == 1


def test_each_source_is_named(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.write_text(
        'hosts = ["a.example", "*.b.example:8080"]\n[retry]\njitter = 0.5\ndeadline = 30\n'
        "[retry.rules.429]\nmax_retries = 6\n[stream]\nhold_seconds = inf\n"
    )
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__DEADLINE", "5")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__RULES__429__INITIAL", "2")
    monkeypatch.setenv("CLINE_TRANSPORT_STREAM", '{"retry": "never"}')
    monkeypatch.setenv("cline_transport_enabled", "off")
    report = told()
    of_file = {"source": "file", "origin": str(settings_file)}

    def variable(name: str) -> dict[str, str]:
        return {"source": "environment", "origin": name}

    expected: dict[str, dict[str, object]] = {
        "enabled": {"value": False, "unit": None, **variable("cline_transport_enabled")},
        "hosts": {"value": ["a.example", "*.b.example:8080"], "unit": None, **of_file},
        "retry.rules": {
            "value": [str(code) for code in Settings.model_construct().retry.rules],
            "unit": None,
            **variable("CLINE_TRANSPORT_RETRY__RULES__429__INITIAL"),
        },
        "retry.rules.429.max_retries": {"value": 6, "unit": None, **of_file},
        "retry.rules.429.initial": {
            "value": 2.0,
            "unit": "s",
            **variable("CLINE_TRANSPORT_RETRY__RULES__429__INITIAL"),
        },
        "retry.jitter": {"value": 0.5, "unit": None, **of_file},
        "retry.deadline": {
            "value": 5.0,
            "unit": "s",
            **variable("CLINE_TRANSPORT_RETRY__DEADLINE"),
        },
        "stream.retry": {"value": "never", "unit": None, **variable("CLINE_TRANSPORT_STREAM")},
        "stream.hold_seconds": {"value": "inf", "unit": "s", **of_file},
    }
    given = {n: s for n, s in report["settings"].items() if s["source"] != "default"}
    assert given == expected
    assert report["config_file"] == str(settings_file)
    assert (report["enabled"], report["hosts"]) == (False, ["a.example", "*.b.example:8080"])

    text = shown()
    assert [cells[0] for cells in text[""]][1:] == [
        "The transport is switched off.",
        "Hosts, for clients without code: a.example, *.b.example:8080",
    ]
    lines = {cells[0]: cells[1:] for cells in text["Settings"]}
    assert lines["enabled"] == ["false", "environment variable cline_transport_enabled"]
    assert lines["hosts"] == ["a.example, *.b.example:8080", f"file {settings_file}"]
    assert lines["stream.hold_seconds"] == ["inf s", f"file {settings_file}"]
    assert lines["stream.hold_bytes"] == ["262144 bytes", "default"]
    rules = {cells[0]: cells[1:] for cells in text["The rules of retry.rules"]}
    assert rules["429"] == [
        *("max_retries 6", "initial 2.0 s", "multiplier 2.0", "max_wait 60.0 s"),
        f"file {settings_file}, environment variable CLINE_TRANSPORT_RETRY__RULES__429__INITIAL",
    ]
    assert rules["502"][-1] == "default"


def test_no_rules_and_no_hosts(settings_file: Path) -> None:
    settings_file.write_text("hosts = []\n[retry]\nrules = {}\n")
    text = shown()
    lines = {cells[0]: cells[1:] for cells in text["Settings"]}
    assert lines["retry.rules"] == ["none", f"file {settings_file}"]
    assert lines["hosts"] == ["none", f"file {settings_file}"]
    assert "The rules of retry.rules" not in text
    assert text[""][2] == ["Hosts, for clients without code: none"]


def test_libraries_and_packages_have_their_versions() -> None:
    report, text = told(), shown()
    names = ["httpx", "httpx2", "openai"]
    assert report["clients"] == {name: installed(name) for name in names}
    parts = ("api", "sdk", "instrumentation", "configuration")
    packages = [f"opentelemetry-{part}" for part in parts]
    assert report["opentelemetry"] == {name: installed(name) for name in packages}
    for section, found in (("Client libraries", names), ("OpenTelemetry", packages)):
        assert text[section] == [[name, installed(name) or "not installed"] for name in found]
    assert (report["version"], report["python"]) == (
        cline_transport.__version__,
        platform.python_version(),
    )
    assert text[""][0] == [f"cline-transport {report['version']}, Python {report['python']}"]


def test_what_is_not_installed_is_so_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("cline_transport._config_report.version", missing)
    assert main(["config"]) == 0
    assert capsys.readouterr().out.count("  not installed\n") == 7
    assert main(["config", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["clients"].values()) == set(report["opentelemetry"].values()) == {None}


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more instrumentations: one whose library is not there, and one without conditions."""
    for name, requires in (("aaa", 'Requires-Dist: no-such-thing; extra == "instruments"\n'),
                           ("bbb", "")):  # fmt: skip
        folder = tmp_path / f"instrument_{name}-3.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: instrument-{name}\nVersion: 3.2\n{requires}"
        )
        (folder / "entry_points.txt").write_text(
            f"[opentelemetry_instrumentor]\n{name} = instrument_{name}:It\n"
        )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("extra")
def test_the_instrumentations_are_those_of_the_entry_points() -> None:
    report = told()
    group = entry_points(group="opentelemetry_instrumentor")
    here = {found.name for found in group} | {"aaa", "bbb"}
    found = {each["name"]: each for each in report["instrumentations"]}
    assert list(found) == sorted(here)
    assert {"httpx", "logging"} <= here
    for name, each in found.items():
        assert each["active"] == (name != "aaa"), each
        assert (each["reason"] is None) == (name != "aaa")
    assert "no-such-thing" in found["aaa"]["reason"]
    assert (found["aaa"]["package"], found["aaa"]["version"]) == ("instrument-aaa", "3.2")
    assert found["httpx"]["package"] == "opentelemetry-instrumentation-httpx"
    lines = {
        cells[0]: cells for cells in shown()["Instrumentations under opentelemetry-instrument"]
    }
    assert list(lines) == sorted(here)
    assert lines["bbb"] == ["bbb", "instrument-bbb 3.2", "on"]
    assert lines["aaa"][2] == f"off: {found['aaa']['reason']}"


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    ("disabled", "off"),
    [("httpx , bbb,nothing", {"httpx", "bbb", "aaa"}), ("*", None), ("HTTPX,http", {"aaa"})],
)
def test_the_environment_switches_them_off(
    disabled: str, off: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", disabled)
    found = {each["name"]: each for each in told()["instrumentations"]}
    assert {name for name, each in found.items() if not each["active"]} == (off or set(found))
    reason = "named in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    assert (found["httpx"]["reason"] == reason) == ("httpx" in (off or found))


def test_without_any_there_is_no_such_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(**_: str) -> list[object]:
        return []

    monkeypatch.setattr("cline_transport._config_report.entry_points", none)
    assert main(["config"]) == 0
    assert "Instrumentations" not in capsys.readouterr().out


def test_the_file_of_opentelemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (told()["otel_config_file"], told()["otel_config_file_exists"]) == (None, None)
    path = tmp_path / "otel.yaml"
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(path))
    assert (told()["otel_config_file"], told()["otel_config_file_exists"]) == (str(path), False)
    assert shown()["OpenTelemetry"][-1] == ["OTEL_CONFIG_FILE", f"{path} (no such file)"]
    path.touch()
    assert told()["otel_config_file_exists"] is True
    assert shown()["OpenTelemetry"][-1] == [
        "OTEL_CONFIG_FILE",
        f"{path} (its settings for cline_transport are stronger than those above)",
    ]


def test_everything_wrong_has_its_own_line(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[retry]\nthrottl = true\n[stream]\nhold_bytes = 0\n")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__JITTER", "7")
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLE", "1")
    text, report = shown(1), told(1)
    lines = [" ".join(cells) for cells in text["Problems"]]
    assert text[""][1] == ["No transport can be made: see Problems, below."]
    assert len(lines) == 4
    for line, parts in zip(
        sorted(lines),
        [
            ("CLINE_TRANSPORT_ENABLE is no setting", "did you mean CLINE_TRANSPORT_ENABLED"),
            ("retry.jitter must be", "got 7.0", "variable CLINE_TRANSPORT_RETRY__JITTER"),
            (
                "retry.throttl is no setting",
                "did you mean retry.throttle",
                f"the file {settings_file}",
            ),
            ("stream.hold_bytes must be", "got 0", f"the file {settings_file}"),
        ],
        strict=True,
    ):
        for part in parts:
            assert part in line
    assert sorted(problem["message"] for problem in report["problems"]) == sorted(lines)
    [jitter] = [p for p in report["problems"] if p["setting"] == "retry.jitter"]
    assert jitter["value"] == "7.0"
    assert jitter["source"] == "the environment variable CLINE_TRANSPORT_RETRY__JITTER"
    assert jitter["rule"] == "must be a number between 0 and 1"
    assert (report["enabled"], report["hosts"], report["settings"]) == (None, None, {})
    assert "Settings" not in text
    assert "Client libraries" in text


def test_so_has_a_file_that_is_not_there(settings_file: Path) -> None:
    [line] = shown(1)["Problems"]
    assert line[0].startswith("CLINE_TRANSPORT_CONFIG must name a TOML file")
    assert told(1)["config_file"] == str(settings_file)


def test_the_keys_of_json_stay_whatever_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    well = told()
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "perhaps")
    assert list(told(1)) == list(well)
    assert set(well) == {
        *("version", "python", "enabled", "hosts", "config_file", "settings", "problems"),
        *("clients", "opentelemetry", "otel_config_file", "otel_config_file_exists"),
        "instrumentations",
    }


@pytest.mark.parametrize(
    ("url", "told_as"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:hunter2@host", "redis://[redacted]@host"),
        ("rediss://:hunter2@host:6379/1", "rediss://[redacted]@host:6379/1"),
        ("redis://:a:b/hunter2@host", "redis://[redacted]@host"),
        ("redis://:a?hunter2@host", "redis://[redacted]"),
        ("redis://:hunter2#@host", "redis://[redacted]@host"),
        ("redis+cluster://me:hunter2@a:1,b:2", "redis+cluster://[redacted]@a:1,b:2"),
        ("redis://host/0?password=hunter2", "redis://host/0?password=[redacted]"),
        (
            "redis+sentinel://:hunter2@a:26379/primary?username=me&password=hunter2=",
            "redis+sentinel://[redacted]@a:26379/primary?username=[redacted]&password=[redacted]",
        ),
        ("redis://host?password=a@hunter2", "redis://[redacted]"),
        ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
    ],
)
def test_a_storage_is_told_without_its_password(
    url: str, told_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_LIMITS__STORAGE", url)
    in_json, in_text = config("--json"), config()
    assert (in_json.returncode, in_text.returncode) == (0, 0)
    assert "hunter2" not in in_json.stdout + in_json.stderr + in_text.stdout + in_text.stderr
    assert json.loads(in_json.stdout)["settings"]["limits.storage"] == {
        "value": told_as,
        "unit": None,
        "source": "environment",
        "origin": "CLINE_TRANSPORT_LIMITS__STORAGE",
    }
    lines = {cells[0]: cells[1:] for cells in sections_of(in_text.stdout)["Settings"]}
    assert lines["limits.storage"][0] == told_as


SECRETS = {
    "CLINE_TRANSPORT_API_KEY": KEY,
    "CLINE_TRANSPORT_HOSTS": "https://me:hunter2@api.example",
    "CLINE_TRANSPORT_RETRY__JITTER": KEY,
    "CLINE_TRANSPORT_STREAM__TOKEN": KEY,
    "CLINE_TRANSPORT_ERRORS": KEY,
    "CLINE_TRANSPORT_LIMITS__STORAGE": "http://me:hunter2@host/0?password=hunter2",
    "CLINE_API_KEY": KEY,
    "OPENAI_API_KEY": KEY,
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {KEY}",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": KEY,
}


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_nothing_secret_is_told(
    args: list[str], settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(f'password = "hunter2"\nkey = "{KEY}"\n')
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    done = config(*args)
    assert (done.returncode, done.stderr) == (1, "")
    for name in (
        "CLINE_TRANSPORT_API_KEY",
        "hosts",
        "retry.jitter",
        "stream.token",
        "password",
        "limits.storage",
    ):
        assert name in done.stdout  # it is told that they are wrong
    assert KEY not in done.stdout
    assert "hunter2" not in done.stdout


def test_a_name_of_a_file_moves_no_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a\x1b[2J\nb é.toml"
    path.write_text("[retry]\njitter = 0\n")
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", str(path))
    lines = {cells[0]: cells[1:] for cells in shown()["Settings"]}
    assert lines["retry.jitter"] == ["0.0", f"file {tmp_path}/a\\x1b[2J\\nb é.toml"]
    assert told()["config_file"] == str(path)


def test_the_file_and_the_schema_are_those_of_the_docs(tmp_path: Path) -> None:
    for option, name in (
        ("--toml", "cline_transport.toml"),
        ("--schema", "cline_transport.schema.json"),
    ):
        done = config(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (DOCS / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(done.stdout)


def test_they_are_written_whatever_is_wrong_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "perhaps")
    assert config("--toml").returncode == config("--schema").returncode == 0


@pytest.mark.parametrize(
    "args", [["--json", "--toml"], ["--toml", "--schema"], ["--json", "--schema"]]
)
def test_what_makes_no_sense_is_said(args: list[str]) -> None:
    done = config(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: cline-transport config")


BARE = """
import sys
without = ("h11", "httpx", "httpx2", "openai", "opentelemetry.sdk", "rich")
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in without:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from cline_transport.cli import main
sys.exit(main(["config", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("args", [[], ["--json"], ["--toml"], ["--schema"]])
def test_it_loads_no_client_and_none_of_the_demo(args: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", BARE, *args], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == config(*args).stdout


def test_without_docstrings_it_is_the_same() -> None:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-OO", *COMMAND[1:]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # But for units, which docstrings tell.
    without = re.sub(r" (s|bytes)\b", "", config().stdout)
    assert done.stdout.split() == without.split()
