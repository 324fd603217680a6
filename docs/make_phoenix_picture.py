# SPDX-License-Identifier: Apache-2.0
"""Take `docs/assets/phoenix-trace.png`: a trace of the tour in Arize Phoenix's own pages.

    uv run python docs/make_phoenix_picture.py

It runs `examples/observability/phoenix.py` and needs Chromium (`CHROMIUM` says which).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

DOCS = Path(__file__).parent
EXAMPLE = DOCS.parent / "examples" / "observability" / "phoenix.py"
PICTURE = DOCS / "assets" / "phoenix-trace.png"

TITLE = "An error in the middle of a stream"

SIZE = (1440, 900)

WITHIN_SECONDS = 60

SETTLED = 10
"""Looks at a page that shows what it should."""

# Opens the attributes of the span that the address names, and brings ours into sight, for Phoenix
# has them in another order each time; true when they are shown.
SHOW = """
(() => {
  const named = (selector, text) =>
    [...document.querySelectorAll(selector)].find((e) => e.textContent === text);
  const tab = named("[role=tab]", "Attributes");
  if (tab && tab.ariaSelected !== "true") tab.click();
  const ours = named("td *", "cline.error.code");
  if (ours) ours.scrollIntoView({ block: "center" });
  return ours !== undefined;
})()
"""


@contextmanager
def traces() -> Generator[str, None, None]:
    """The example, serving; the URL of the trace."""
    example = subprocess.Popen(  # noqa: S603 - our own example
        ["uv", "run", "--script", EXAMPLE, "--port", "0"],  # noqa: S607 - the user's own uv
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert example.stdout is not None  # noqa: S101 - a pipe was asked for
        url = ""
        for line in example.stdout:
            if line.strip() == TITLE:
                url = next(example.stdout).strip()
            if "until Ctrl+C" in line:
                break
        if not url:
            raise RuntimeError(f"the example printed no trace of {TITLE!r}")
        yield url
    finally:
        os.killpg(example.pid, signal.SIGTERM)
        example.wait()


def find_call(trace: str) -> str:
    """The URL of the call's span in a trace."""
    base, _, trace_id = trace.partition("/redirects/traces/")
    query = urllib.parse.urlencode({"trace_id": trace_id, "span_kind": "LLM"})
    with urllib.request.urlopen(  # noqa: S310 - the example's own server
        f"{base}/v1/projects/cline-transport/spans?{query}"
    ) as answer:
        (span,) = json.load(answer)["data"]
    return f"{base}/redirects/spans/{span['context']['span_id']}"


class Browser:
    """Chromium's DevTools protocol over the pipe it reads commands from."""

    def __init__(self, chromium: str, profile: str) -> None:
        # Numbers that are free in the child, where the pipe has to be 3 and 4.
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        reads, writes = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands, answers))

        def connect() -> None:
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        self._process = subprocess.Popen(  # noqa: S603 - the user's own browser
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={profile}",
                f"--window-size={SIZE[0]},{SIZE[1]}",
                "--remote-debugging-pipe",
            ],
            preexec_fn=connect,  # noqa: PLW1509 - no threads here
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        for fd in (commands, answers, reads, writes):
            os.close(fd)
        self._read = os.fdopen(self._answers, "rb")
        self._number = 0
        self._rest = b""

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()

    def ask(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = self._read.read1()
            if not piece:
                raise RuntimeError("the browser ended")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


def take(chromium: str, url: str) -> bytes:
    """A picture of the page, with the span's attributes open."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(chromium, profile)
        try:
            target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
            session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)
            page = session["sessionId"]
            width, height = SIZE
            browser.ask(
                "Emulation.setDeviceMetricsOverride",
                session=page,
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=False,
            )
            browser.ask("Page.navigate", session=page, url=url)
            deadline = time.monotonic() + WITHIN_SECONDS
            shown = 0
            while shown < SETTLED:  # what slides in has arrived, and stays where it was scrolled to
                if time.monotonic() > deadline:
                    raise RuntimeError("the span's attributes did not appear")
                time.sleep(0.2)
                answer = browser.ask("Runtime.evaluate", session=page, expression=SHOW)
                shown += answer["result"].get("value") is True
            png = browser.ask("Page.captureScreenshot", session=page, format="png")["data"]
        finally:
            browser.close()
    return base64.b64decode(png)


def main() -> int:
    """Take the picture."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no chromium found; CHROMIUM may name one", file=sys.stderr)  # noqa: T201
        return 1
    with traces() as trace:
        picture = take(chromium, find_call(trace))
    PICTURE.write_bytes(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
