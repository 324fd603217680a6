# SPDX-License-Identifier: Apache-2.0
r"""Stream an answer and keep what was delivered when it fails half-way.

Live: CLINE_API_KEY=... python examples/streaming.py
Against a simulator: cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
CLINE_MODEL=sim/mid-stream/server_error python examples/streaming.py
"""

from __future__ import annotations

import os
import sys

from openai import APIError, OpenAI

from cline_transport import error_info
from cline_transport.openai import http_client


def main() -> int:
    """Print the answer as it comes; on failure, say why. Returns the exit status."""
    client = OpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        http_client=http_client(),
    )
    try:
        stream = client.chat.completions.create(
            model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
            messages=[{"role": "user", "content": "Say hello in five languages."}],
            stream=True,
        )
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
        print()
    except APIError as exc:
        print("\n-- the answer ends here --")
        info = error_info(exc)
        print(info.report() if info else exc, file=sys.stderr)
        return 1
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
