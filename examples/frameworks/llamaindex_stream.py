# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["cline-transport[openai]", "llama-index-llms-openai-like>=0.8"]
#
# [tool.uv.sources]
# cline-transport = { path = "../..", editable = true }
# ///
"""LlamaIndex: stream an answer, and say why it failed.

Live: CLINE_API_KEY=... uv run examples/frameworks/llamaindex_stream.py
"""

import os
import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from openai import APIError

from cline_transport import error_info
from cline_transport.openai import http_client

with http_client() as http:
    llm = OpenAILike(
        model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
        api_base=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        is_chat_model=True,
        max_retries=0,  # its own would multiply the transport's
        http_client=http,  # and `async_http_client` for `astream_chat()` and its like
    )
    try:
        for piece in llm.stream_chat([ChatMessage("Say hello in five languages.")]):
            print(piece.delta, end="", flush=True)
        print()
    except APIError as exc:
        info = error_info(exc)
        sys.exit(f"\n{info.report() if info else exc}")
