# SPDX-License-Identifier: Apache-2.0
"""A real Redis on a loopback port of its own, to be stopped, paused and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

__all__ = ["COMMAND", "RedisServer"]

COMMAND = shutil.which("redis-server")


class RedisServer:
    """A `redis-server` that keeps nothing on disk. Any option may be given as it names them."""

    def __init__(self, directory: Path, *options: str, ready: str = "eady to accept") -> None:
        self.port = _free_port()
        self._directory = directory
        self._options = options
        self._ready = ready
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; return when it answers."""
        assert COMMAND is not None
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if "--tls-port" in self._options or "--sentinel" in self._options:
            own = []
        self._process = subprocess.Popen(  # noqa: S603 -- found on the path
            [COMMAND, *self._options, *own],
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            lines.append(line)
            if self._ready in line:
                return
        self.stop()
        raise RuntimeError("".join(lines))

    def stop(self) -> None:
        """End it, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def pause(self) -> None:
        """It takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
