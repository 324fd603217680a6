# SPDX-License-Identifier: Apache-2.0
"""Build wheel and sdist, check them, install the wheel in empty environments, and test it there.

`python -m tests.package FOLDER`, which needs uv, build, hatchling, twine and check-wheel-contents;
`nox -s package` brings them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from .promises import ABSENT, PROGRAMS, WITHOUT_H11

ROOT: Final = Path(__file__).parents[2]
# What the tests that are run against the wheel read; not the package.
TAKEN: Final = ("tests", "docs", "pyproject.toml")
TESTS: Final = ("tests/core", "tests/package", "tests/transport/test_retries.py")


def run(*command: str | Path, cwd: Path) -> None:
    print("$", *(Path(command[0]).name, *command[1:3]), flush=True)  # noqa: T201 - it is a command
    subprocess.run(command, cwd=cwd, env=environment(), check=True)  # noqa: S603 - our own tools


def environment() -> dict[str, str]:
    """Ours, without what would make an environment other than it is."""
    names = ("VIRTUAL_ENV", "PYTHONPATH", "CLINE_TRANSPORT_CONFIG")
    return {name: value for name, value in os.environ.items() if name not in names}


def uv() -> str:
    found = shutil.which("uv")
    if found is None:
        sys.exit("python -m tests.package needs uv: pip install uv")
    return found


def make(folder: Path, name: str, *packages: str | Path, options: tuple[str, ...] = ()) -> Path:
    """An environment in which nothing but these is installed: its interpreter."""
    home = folder / "environments" / name
    run(uv(), "venv", "--quiet", "--clear", "--python", sys.executable, home, cwd=folder)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = (uv(), "pip", "install", "--quiet", "--python", python, *packages, *options)
    run(*command, cwd=folder)
    return python


def build(folder: Path) -> Path:
    """Wheel and sdist, as they would be uploaded: the wheel, made of the sdist."""
    dist = folder / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, cwd=ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()), cwd=folder)
    [wheel] = dist.glob("*.whl")
    run(Path(sys.executable).with_name("check-wheel-contents"), wheel, cwd=folder)
    return wheel


def keep_promises(folder: Path, wheel: Path) -> None:
    """Run each program where the wheel is installed with that extra only."""
    for extra, program in PROGRAMS.items():
        wanted = f"cline-transport @ {wheel.as_uri()}"
        if extra != "nothing":
            wanted = f"cline-transport[{extra}] @ {wheel.as_uri()}"
        python = make(folder, extra, wanted)
        run(python, "-W", "error", "-c", program, cwd=folder)


def name_extras(folder: Path) -> None:
    """Where there is no extra, whatever needs one says which."""
    python = folder / "environments" / "nothing" / "bin" / "python"
    for program, extra in ABSENT.items():
        refuse(python, program, extra, folder)
    run(uv(), "pip", "uninstall", "--quiet", "--python", python, "h11", cwd=folder)
    refuse(python, WITHOUT_H11, "simulator", folder)


def refuse(python: Path, program: str, extra: str, folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 -- an interpreter that was made here, our own code
        [python, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 1 or f"pip install 'cline-transport[{extra}]'" not in done.stderr:
        sys.exit(f"{program!r} does not name the extra {extra!r}: {done.stderr}")


def test(folder: Path, wheel: Path) -> None:
    """Tests from a folder without the package, so against the wheel."""
    away = folder / "away"
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    for name in TAKEN:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, away / name)
    options = ("--group", f"{away / 'pyproject.toml'}:test")
    wanted = f"cline-transport @ {wheel.as_uri()}"
    others = ("openai>=3; python_version >= '3.11'", "mypy")
    python = make(folder, "test", wanted, *others, options=options)
    inside = "import cline_transport as c; assert 'site-packages' in c.__file__, c.__file__"
    run(python, "-c", inside, cwd=away)
    run(python, "-m", "pytest", "-q", *TESTS, cwd=away)
    run(python, "-m", "mypy", "tests/typing", cwd=away)  # a caller's: it has to find py.typed


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.package FOLDER")
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = build(folder)
    keep_promises(folder, wheel)
    name_extras(folder)
    test(folder, wheel)


if __name__ == "__main__":
    main()
