# SPDX-License-Identifier: Apache-2.0
"""One real call instead of the tour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import openai
from rich.console import Console

from cline_transport._demo.calls import replace_sleep, stream
from cline_transport._demo.recorder import Recorder
from cline_transport._demo.stage import Stage
from cline_transport._demo.tour import MODEL, quiet_log
from cline_transport._demo.waiting import Countdown
from cline_transport._demo.waterfall import read_waterfall
from cline_transport.errors import error_info
from cline_transport.openai import http_client
from cline_transport.settings import Settings

__all__ = ["BASE_URL", "LiveOptions", "read_live_options", "run_live"]

BASE_URL = "https://api.cline.bot/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """Where the real call goes.

    Attributes:
        api_key: The key; never shown.
        base_url: The API's base URL.
        model: The model ID.
    """

    api_key: str = field(repr=False)
    base_url: str = BASE_URL
    model: str = MODEL


def read_live_options(environ: Mapping[str, str]) -> LiveOptions:
    """Read `CLINE_API_KEY`, `CLINE_BASE_URL` and `CLINE_MODEL`.

    Raises:
        ValueError: The key is missing, or a value cannot be used; the message holds no key.

    Example:
        ```python
        options = read_live_options(os.environ)
        ```
    """
    key = environ.get("CLINE_API_KEY", "").strip()
    if not key:
        raise ValueError("demo --live needs an API key in the environment variable CLINE_API_KEY")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("CLINE_API_KEY must be printable ASCII without spaces (it is not shown)")
    base_url = environ.get("CLINE_BASE_URL", "").strip() or BASE_URL
    if not _is_http(base_url):
        raise ValueError("CLINE_BASE_URL must be a URL such as " + BASE_URL)
    return LiveOptions(
        api_key=key, base_url=base_url, model=environ.get("CLINE_MODEL", "").strip() or MODEL
    )


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def run_live(
    console: Console, options: LiveOptions, *, sleep: Callable[[float], object] = time.sleep
) -> int:
    """Make one streamed call and show it.

    Args:
        console: Where to show it.
        options: Where it goes.
        sleep: How to wait between attempts, in seconds.

    Returns:
        The exit status: 0 if the call succeeded, else 1.

    Raises:
        SettingsError: A setting in `CLINE_TRANSPORT_*`, or the file, is wrong.
    """
    recorder = Recorder()
    stage = Stage(console, secrets=(options.api_key,))
    countdown = Countdown(console, sleep, asyncio.sleep)
    transport = http_client(settings=Settings(), tracer_provider=recorder.provider)
    replace_sleep(transport, countdown.sleep)
    host = urlsplit(options.base_url).hostname
    stage.heading(f"One call to {host}", f"model {options.model}, streamed")
    with (
        quiet_log(),
        openai.OpenAI(
            base_url=options.base_url, api_key=options.api_key, http_client=transport
        ) as client,
    ):
        outcome = stream(client, options.model, lambda: None)
    info = None if outcome.error is None else error_info(outcome.error)
    stage.outcome(outcome, info)
    stage.waterfall(read_waterfall(recorder.take()))
    if info is not None:
        stage.report(info)
    stage.verdict([] if outcome.error is None else ["the call failed"], "the call succeeded")
    return 0 if outcome.error is None else 1
