# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]", "litellm>=1.109"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""LiteLLM: stream an answer, and say why it failed.

Live: CLINE_API_KEY=... uv run examples/frameworks/litellm_stream.py
"""

import os
import sys

import litellm
from openai import APIError

from cline_transport import error_info
from cline_transport.openai import http_client

litellm.suppress_debug_info = True

with http_client() as http:
    # Before the first call, since LiteLLM keeps the clients it has made; and `aclient_session` for
    # `acompletion()`.
    litellm.client_session = http
    model = os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6")
    try:
        for chunk in litellm.completion(
            model=f"openai/{model}",  # the SDK's way: `openrouter/` fails at a code that is a word
            api_base=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
            api_key=os.environ["CLINE_API_KEY"],
            messages=[{"role": "user", "content": "Say hello in five languages."}],
            stream=True,
        ):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()
    except APIError as exc:  # LiteLLM's own errors derive from it
        info = error_info(exc)
        sys.exit(f"\n{info.report() if info else exc}")
