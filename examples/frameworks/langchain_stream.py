# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]", "langchain-openai>=1.7"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""LangChain: stream an answer, and say why it failed.

Live: CLINE_API_KEY=... uv run examples/frameworks/langchain_stream.py
"""

import os
import sys

from langchain_openai import ChatOpenAI
from openai import APIError
from pydantic import SecretStr

from cline_transport import error_info
from cline_transport.openai import http_client

with http_client() as http:
    llm = ChatOpenAI(
        model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=SecretStr(os.environ["CLINE_API_KEY"]),
        http_client=http,  # and `http_async_client` for `astream()` and its like
    )
    try:
        for chunk in llm.stream("Say hello in five languages."):
            print(chunk.text, end="", flush=True)
        print()
    except APIError as exc:  # LangChain's own errors derive from it
        info = error_info(exc)
        sys.exit(f"\n{info.report() if info else exc}")
