# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]"]
#
# [tool.uv.sources]
# cline-transport = { path = "..", editable = true }
# ///
r"""Stream an answer and keep what was delivered when it fails half-way.

Live: CLINE_API_KEY=... uv run examples/streaming.py
Against a simulator: uv run cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
CLINE_MODEL=sim/mid-stream/server_error uv run examples/streaming.py
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple, cast

from openai import OpenAI

from cline_transport import ErrorInfo, error_info
from cline_transport.openai import http_client


class Answer(NamedTuple):
    """What came of an answer: all of it, or what was delivered before it failed."""

    text: str
    error: ErrorInfo | None


def ask(client: OpenAI, question: str) -> Answer:
    """Print an answer as it comes, and return it."""
    parts: list[str] = []
    try:
        with client.chat.completions.create(
            model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
            messages=[{"role": "user", "content": question}],
            stream=True,
        ) as stream:
            for chunk in stream:
                for choice in chunk.choices:
                    parts.append(choice.delta.content or "")
                    print(parts[-1], end="", flush=True)
    except Exception as exc:  # of the SDK, or before openai 3 of httpx, when a connection is lost
        info = error_info(exc)
        if info is None:  # no failure of a call: a bug
            raise
        return Answer("".join(parts), info)
    finally:
        print()
    return Answer("".join(parts), None)


def whole_characters(text: str) -> str:
    """Text that UTF-8 can say: JSON may have a character in two halves, even in two chunks."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def main() -> int:
    """Ask; on failure, say why and where the text is. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Stream an answer, and keep what was delivered.")
    parser.add_argument("question", nargs="?", default="Say hello in five languages.")
    parser.add_argument("--keep", type=Path, default=Path("answer.partial.txt"), metavar="FILE")
    args = parser.parse_args()
    # The terminal may lack a character of an answer.
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace")
    with OpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        http_client=http_client(),
    ) as client:
        answer = ask(client, args.question)
    if answer.error is None:
        return 0
    print(answer.error.report(), file=sys.stderr)
    if answer.text:
        args.keep.write_text(whole_characters(answer.text), encoding="utf-8")
        print(f"What was delivered is in {args.keep}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
