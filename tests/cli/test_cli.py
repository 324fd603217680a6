# SPDX-License-Identifier: Apache-2.0
"""The command: what it takes, what it prints, how it ends."""

from __future__ import annotations

import argparse
import importlib
import runpy
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

import cline_transport
from cline_transport import cli
from cline_transport.cli import main
from cline_transport.simulator import ApiLimits, Simulator
from cline_transport.simulator.scenarios import SCENARIOS

PACKAGE = Path(cli.__file__).parent
COMMAND = (sys.executable, "-m", "cline_transport")


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False)  # noqa: S603 - ourselves


def test_the_module_is_the_command() -> None:
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"cline-transport {cline_transport.__version__}\n"


def test_without_a_sub_command_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: cline-transport [-h] [--version] command ...")
    assert "demo" in err
    assert "simulate" in err


def test_the_status_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cline-transport"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(PACKAGE / "__main__.py"), run_name="__main__")
    assert caught.value.code == 2


def test_the_module_may_be_imported() -> None:
    importlib.import_module("cline_transport.__main__")


@pytest.mark.parametrize("args", [["--help"], ["demo", "--help"], ["simulate", "--help"]])
def test_help(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: cline-transport")


@pytest.mark.parametrize("port", ["-1", "65536", "http", "\u0663", ""])
def test_a_port_that_is_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["simulate", f"--port={port}"])
    assert caught.value.code == 2
    assert f"must be a port from 0 to 65535 (got {port!r})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("--requests-per-minute=0", "must be a number > 0 (got '0')"),
        ("--requests-per-minute=many", "must be a number > 0 (got 'many')"),
        ("--requests-per-minute=inf", "must be a number > 0 (got 'inf')"),
        ("--concurrent=0", "must be a whole number >= 1 (got '0')"),
        ("--concurrent=1.5", "must be a whole number >= 1 (got '1.5')"),
    ],
)
def test_a_limit_that_is_none(argument: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["simulate", argument])
    assert caught.value.code == 2
    assert f"argument {argument.partition('=')[0]}: {rule}" in capsys.readouterr().err


def test_the_demo_is_the_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    def width(console: Console) -> int:
        return console.width

    monkeypatch.setattr("cline_transport._demo.tour.run_tour", width)
    assert main(["demo"]) == 100


def test_ctrl_c_ends_the_demo_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(console: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cline_transport._demo.tour.run_tour", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "")


MISSING = """
import sys
package, *arguments = sys.argv[1:]
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from cline_transport.cli import main
sys.exit(main(arguments))
"""


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("openai", ["demo"]),
        ("rich", ["demo"]),
        ("opentelemetry.sdk", ["demo"]),
        ("h11", ["demo"]),
        ("h11", ["simulate", "--port=0"]),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(package: str, arguments: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", MISSING, package, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    extra = {"demo": "demo", "simulate": "simulator"}[arguments[0]]
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"cline-transport: {arguments[0]} needs the package {package!r}: "
        f"pip install 'cline-transport[{extra}]'\n"
    )


@pytest.mark.parametrize("name", ["cline_transport.nothing", "richer", None])
def test_another_missing_module_is_a_bug_and_shows_as_one(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(args: argparse.Namespace) -> int:
        raise ModuleNotFoundError("no", name=name)

    monkeypatch.setattr(cli, "_demo", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["demo"])


def first_lines(stream: IO[str]) -> list[str]:
    lines: list[str] = []
    for line in stream:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl+C"):
            break
    return lines


def test_the_simulator_runs_until_ctrl_c() -> None:
    with subprocess.Popen(  # noqa: S603 - ourselves
        [*COMMAND, "simulate", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = first_lines(process.stdout)
        base_url, key = (line.split()[-1] for line in lines[:2])
        request = urllib.request.Request(  # noqa: S310 - our own loopback
            f"{base_url}/models", headers={"authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request) as response:  # noqa: S310 - the same
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""
    assert process.returncode == 0
    for model, scenario in SCENARIOS.items():
        assert any(line.split(maxsplit=1) == [model, scenario.description] for line in lines)


def test_the_simulator_listens_where_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cline_transport.simulator._simulator.time.sleep", interrupted)
    assert main(["simulate", "--port=0", "--host=localhost"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Base URL  http://localhost:")
    assert "\nAPI key   sk-simulator\n" in out
    assert "Limits" not in out


@pytest.mark.parametrize(
    ("arguments", "line", "limits"),
    [
        (
            ["--requests-per-minute=600", "--concurrent=10"],
            "600 requests per minute, 10 at once",
            ApiLimits(requests_per_minute=600, concurrent=10),
        ),
        (
            ["--requests-per-minute=0.5"],
            "0.5 requests per minute",
            ApiLimits(requests_per_minute=0.5),
        ),
        (["--concurrent=3"], "3 at once", ApiLimits(concurrent=3)),
    ],
)
def test_the_simulator_has_the_limits_it_is_given(
    arguments: list[str],
    line: str,
    limits: ApiLimits,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    made: list[Simulator] = []
    start = Simulator.start

    def noted(api: Simulator) -> Simulator:
        made.append(api)
        return start(api)

    monkeypatch.setattr(Simulator, "start", noted)
    monkeypatch.setattr("cline_transport.simulator._simulator.time.sleep", interrupted)
    assert main(["simulate", "--port=0", *arguments]) == 0
    assert f"\nAPI key   sk-simulator\nLimits    {line}\n\n" in capsys.readouterr().out
    assert [api.limits for api in made] == [limits]


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["simulate", f"--port={taken.getsockname()[1]}"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("cline-transport: ")
    assert len(err.splitlines()) == 1
