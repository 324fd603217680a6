# SPDX-License-Identifier: Apache-2.0
"""The waits between attempts, shown while they pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import closing

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from cline_transport._demo.bars import glyphs_for

__all__ = ["Countdown"]

_STEP = 0.1
"""Seconds between two refreshes of the countdown."""


class Countdown:
    """Sleeps that show what they wait for: a bar in a terminal, one line anywhere else.

    Args:
        console: Where to show it.
        sleep: How to wait in a synchronous client; takes seconds.
        async_sleep: How to wait in an asynchronous client.

    Example:
        ```python
        countdown = Countdown(console, time.sleep, asyncio.sleep)
        replace_sleep(http_client, countdown.sleep)
        ```
    """

    def __init__(
        self,
        console: Console,
        sleep: Callable[[float], object],
        async_sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._console = console
        self._sleep = sleep
        self._async_sleep = async_sleep
        self._attempt = 1

    def restart(self) -> None:
        """A new call: its first attempt is under way."""
        self._attempt = 1

    def sleep(self, seconds: float) -> None:
        """Wait `seconds` before the next attempt."""
        with closing(self._steps(seconds)) as steps:
            for step in steps:
                self._sleep(step)

    async def async_sleep(self, seconds: float) -> None:
        """Wait `seconds` before the next attempt."""
        with closing(self._steps(seconds)) as steps:
            for step in steps:
                await self._async_sleep(step)

    def _steps(self, seconds: float) -> Generator[float, None, None]:
        """The wait in pieces, as long together, the display renewed after each."""
        self._attempt += 1
        label = f"waiting {seconds:.1f} s before attempt {self._attempt}"
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            self._console.print(Text(f"  {label}"))
            yield seconds
            return
        fancy = glyphs_for(self._console.encoding).fancy
        columns = (
            TextColumn(" "),
            SpinnerColumn("dots" if fancy else "line"),
            TextColumn("{task.description}"),
            BarColumn(28, complete_style="yellow", finished_style="yellow"),
            TextColumn("{task.fields[left]:4.1f} s"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=seconds, left=seconds)
            left = seconds
            while left > 0:
                step = min(left, _STEP)
                yield step
                left -= step
                progress.update(task, completed=seconds - left, left=left)
