# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "cline-transport[openai]",
#   "fastapi>=0.115",
#   "pydantic>=2.10",
#   "uvicorn>=0.34",
# ]
#
# [tool.uv.sources]
# cline-transport = { path = "..", editable = true }
# ///
r"""A service that streams answers to its own callers, and tells them properly what failed.

- Before the first word: an HTTP error with the right status, as RFC 9457 has it
  (`application/problem+json`), and the API's `Retry-After`.
- After it: the status was sent long ago; the stream ends with the event `error`.
- A caller that leaves ends the call to the API, also while the first word is waited for.

Live: CLINE_API_KEY=... uv run examples/fastapi_service.py
Against a simulator: uv run cline-transport simulate --port 8080, then
CLINE_BASE_URL=http://127.0.0.1:8080/api/v1 CLINE_API_KEY=sk-simulator \
CLINE_MODEL=sim/mid-stream/server_error uv run examples/fastapi_service.py
Call it: curl -iN http://127.0.0.1:8000/chat --json '{"prompt": "Say hello."}'
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, Field

from cline_transport import ErrorInfo, RetryPolicy, Settings, error_info
from cline_transport.openai import async_http_client

PATIENCE = float(os.environ.get("CHAT_PATIENCE", "30"))
"""Seconds in which the first word must come, retries included: somebody waits for it."""

STATUS: Mapping[int | str | None, int] = {
    # What the caller asks for cannot be answered.
    400: 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    # Too much at the moment, for the API or for us.
    429: 429,
    "rate_limit": 429,
    503: 503,
    "limit_timeout": 503,
    "pool_timeout": 503,
    # Too slow.
    408: 504,
    504: 504,
    "connect_timeout": 504,
    "read_timeout": 504,
    "write_timeout": 504,
    # A matter between the API and us, though it may come with a status from above.
    "insufficient_quota": 502,
}
"""The status for our callers by the code or else the status from the API; anything else is 502.

A 401, 402 or 403 is about our key: for a caller, whose key it is not, it is a 502.
"""


class Question(BaseModel):
    """The body of a request."""

    prompt: str = Field(min_length=1, max_length=100_000)


class Problem(BaseModel):
    """What failed, for callers: RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: int | str
    request_id: str | None
    retryable: bool


def explain(info: ErrorInfo) -> Problem:
    """What a caller is told. The transport has told our log the rest."""
    status = STATUS.get(info.code, STATUS.get(info.status_code, 502))
    title = HTTPStatus(status).phrase
    # The API's words are for us, unless they are about what the caller asked for.
    detail = info.message if status == 400 else f"No answer from the model: {title}"
    return Problem(
        title=title,
        status=status,
        detail=detail,
        code=info.code,
        request_id=info.request_id,
        retryable=info.retryable,
    )


def problem_response(info: ErrorInfo, exc: Exception) -> JSONResponse:
    """The HTTP error for a failure, with the `Retry-After` that the API sent."""
    problem = explain(info)
    response = getattr(exc, "response", None)
    wait = response.headers.get("retry-after") if response is not None else None
    return JSONResponse(
        problem.model_dump(),
        status_code=problem.status,
        headers={"retry-after": wait} if wait and problem.status in (429, 503) else None,
        media_type="application/problem+json",
    )


def event(data: Mapping[str, Any], name: str = "message") -> bytes:
    """A server-sent event. JSON has no line end in it."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def events(chunks: AsyncStream[ChatCompletionChunk]) -> AsyncGenerator[bytes, None]:
    """An answer as server-sent events. What fails before the first one is raised."""
    begun, reason = False, None
    try:
        async for chunk in chunks:
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                if choice.delta.content:
                    yield event({"text": choice.delta.content})
                    begun = True
    except Exception as exc:
        info = error_info(exc)
        if info is None or not begun:
            raise
        yield event(explain(info).model_dump(), "error")
    else:
        yield event({"finish_reason": reason}, "done")


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


@asynccontextmanager
async def answer(client: AsyncOpenAI, prompt: str) -> AsyncGenerator[Response, None]:
    """The response to a caller, once the first word or a failure decides which.

    The API's stream is open until the block is left.
    """
    async with AsyncExitStack() as stack:
        try:
            # An API that sends keep-alive comments for ever meets no read timeout.
            with anyio.fail_after(PATIENCE):
                stream = await client.chat.completions.create(
                    model=os.environ.get("CLINE_MODEL", "anthropic/claude-sonnet-4.6"),
                    messages=[{"role": "user", "content": prompt}],
                    stream=True,
                )
                await stack.enter_async_context(stream)
                told = await stack.enter_async_context(aclosing(events(stream)))
                first = await anext(told)
        except TimeoutError as exc:  # of the scope; an SDK time-out is another
            message = f"No word within {PATIENCE:g} s"
            late = ErrorInfo(code="read_timeout", message=message, phase="mid_stream")
            response: Response = problem_response(late, exc)
        except Exception as exc:
            info = error_info(exc)
            if info is None:  # no failure of a call: a bug
                raise
            response = problem_response(info, exc)
        else:
            # Nobody on the way is to keep or gather the events.
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            response = EventStream(chain(first, told), headers=headers)
        yield response


async def chain(first: bytes, rest: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """One, then the others."""
    yield first
    async for one in rest:
        yield one


class WhileConnected(Response):
    """Make a response and send it, and stop at once when the caller leaves.

    Starlette itself looks for that only while it sends a stream, not before.
    """

    def __init__(self, make: AbstractAsyncContextManager[Response]) -> None:
        super().__init__()
        self._make = make

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request (ASGI)."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async with self._make as response:
                await response(scope, receive, send)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, AsyncOpenAI], None]:
    """One client, and so one pool of connections, for as long as the service runs."""
    settings = Settings(retry=RetryPolicy(deadline=PATIENCE))
    async with AsyncOpenAI(
        base_url=os.environ.get("CLINE_BASE_URL", "https://api.cline.bot/api/v1"),
        api_key=os.environ["CLINE_API_KEY"],
        max_retries=0,  # the transport's are enough, and keep the deadline
        http_client=async_http_client(settings=settings),
    ) as client:
        yield {"client": client}


app = FastAPI(title="Chat", lifespan=lifespan)

PROBLEM: dict[str, Any] = {
    "description": "There is no answer",
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}


@app.post(
    "/chat",
    response_class=EventStream,
    responses=dict.fromkeys((400, 429, 502, 503, 504), PROBLEM),
)
async def chat(question: Question, request: Request) -> Response:
    """Answer as server-sent events: `message` with text, then `done` or `error`."""
    return WhileConnected(answer(request.state.client, question.prompt))


def main() -> None:
    """Serve until Ctrl+C."""
    parser = argparse.ArgumentParser(description="Serve POST /chat on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0: any free one")
    args = parser.parse_args()
    uvicorn.run(app, host="127.0.0.1", port=args.port)


if __name__ == "__main__":
    main()
