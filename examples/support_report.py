# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]"]
#
# [tool.uv.sources]
# cline-transport = { path = "..", editable = true }
# ///
r"""Write what support asks for when a call fails: the documentation's four points, each attempt.

Live: CLINE_API_KEY=... uv run examples/support_report.py
Against a simulator: uv run cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
CLINE_MODEL=sim/503 uv run examples/support_report.py
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import cast

import openai

from cline_transport import Attempt, __version__, call_record, error_info
from cline_transport.openai import http_client


def ask(client: openai.OpenAI, question: str) -> None:
    """Print an answer as it comes."""
    with client.chat.completions.create(
        model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
        messages=[{"role": "user", "content": question}],
        stream=True,
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
    print()


def support_report(exc: Exception, host: str) -> str | None:
    """The report on a failed call; `None` for any other exception.

    It holds no key, no prompt and nothing of the answer.

    Args:
        exc: What the SDK raised.
        host: The host of the API.
    """
    info = error_info(exc)
    if info is None:
        return None
    lines = [info.report()]
    record = call_record(exc)
    if record is not None:  # there is none where CLINE_TRANSPORT_ENABLED=false
        lines += ["", "Attempts, the last one at the bottom:"]
        lines += [describe(attempt) for attempt in record.attempts]
    lines += [
        "",
        f"Time: {datetime.now(timezone.utc).isoformat(timespec='seconds')}",
        f"Host: {host}",
        f"Versions: cline-transport {__version__}, openai {openai.__version__}, "
        f"Python {platform.python_version()}",
        "",
    ]
    return "\n".join(lines)


def describe(attempt: Attempt) -> str:
    """One request and its response, in a line."""
    status = f"HTTP {attempt.status_code}" if attempt.status_code else "no response"
    code = f", {attempt.error.code}" if attempt.error else ""
    return (
        f"  {attempt.number}. waited {attempt.wait:.1f} s, took {attempt.duration:.1f} s: {status}"
        f"{code}, x-request-id {attempt.request_id or 'not present'}"
    )


def main() -> int:
    """Ask; on failure print the report, and save it. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write a report for support when a call fails.")
    parser.add_argument("question", nargs="?", default="Say hello in five languages.")
    parser.add_argument("--save", type=Path, default=Path("support-report.txt"), metavar="FILE")
    args = parser.parse_args()
    # The terminal may lack a character of an answer.
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace")
    with openai.OpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        max_retries=0,  # those of the transport are enough, and are counted
        http_client=http_client(),
    ) as client:
        try:
            ask(client, args.question)
        except Exception as exc:
            report = support_report(exc, client.base_url.host)
            if report is None:
                raise
            args.save.write_text(report, encoding="utf-8")
            print(f"\n{report}\nThis is in {args.save}, too.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
