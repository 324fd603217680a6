# SPDX-License-Identifier: Apache-2.0
"""What the model says: one answer, written as a stream of events or as one JSON document."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

from cline_transport.simulator._documented import message_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ErrorShape = Literal["cline", "openrouter", "bare"]
Newline = Literal["\n", "\r\n", "\r"]
Mode = Literal["as_asked", "stream", "json"]

PROMPT_TOKENS = 12
CACHED_TOKENS = 4


class AnswerOptions(TypedDict, total=False):
    """The options that `Reply.ok`, `Reply.stream` and `Reply.completion` share."""

    chunks: Sequence[str] | None
    """The text of each content chunk. Default: the text in words, with their spaces."""
    finish_reason: str | None
    """Of the last chunk. Default `"stop"`; `None` sends `null`."""
    done: bool
    """Whether `data: [DONE]` ends the stream, also after an error chunk. Default true."""
    usage: bool | Mapping[str, object]
    """Whether the last chunk has `usage`; a mapping is sent as it is. Default true."""
    cost: float | None
    """`usage.cost` in credits, default 0.00042; `None` leaves it out."""
    reasoning: str | None
    """Reasoning, in one chunk of its own before the content. Default none."""
    comments: int
    """How many `: OPENROUTER PROCESSING` comments come before the first chunk. Default 0."""
    role: bool
    """Whether a chunk with the role and no content comes first. Default true."""
    newline: Newline
    """What ends a line of the stream. Default LF."""
    split: int | None
    """Write the stream, as it is after encoding, in pieces of so many bytes. Default: one write
    per event."""
    error: str | int | None
    """The code of an error chunk, which ends the stream. Default none."""
    error_message: str | None
    """Its message. Default: the documented meaning of the code."""
    error_after: int | None
    """How many content chunks come before the error chunk. Default: all."""
    error_shape: ErrorShape
    """`"cline"` (as documented, the default), `"openrouter"` (`error` at the top level) or
    `"bare"` (the finish reason and nothing else)."""
    cut_after: int | None
    """After how many content chunks the stream breaks off: no last chunk, no `[DONE]`, and then
    what `then` says. Default: not at all."""
    model: str | None
    """The model that the answer names. Default: the one asked for."""
    response_id: str | None
    """The `id` of the answer. Default: a unique `gen-…`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. The fields are those of `AnswerOptions`."""

    text: str = ""
    mode: Mode = "as_asked"
    chunks: Sequence[str] | None = None
    finish_reason: str | None = "stop"
    done: bool = True
    usage: bool | Mapping[str, object] = True
    cost: float | None = 0.00042
    reasoning: str | None = None
    comments: int = 0
    role: bool = True
    newline: Newline = "\n"
    split: int | None = None
    error: str | int | None = None
    error_message: str | None = None
    error_after: int | None = None
    error_shape: ErrorShape = "cline"
    cut_after: int | None = None
    model: str | None = None
    response_id: str | None = None
    parts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.newline not in get_args(Newline):
            raise ValueError(f"newline must be LF, CRLF or CR (got {self.newline!r})")
        if self.error_shape not in get_args(ErrorShape):
            allowed = ", ".join(get_args(ErrorShape))
            raise ValueError(f"error_shape must be one of {allowed} (got {self.error_shape!r})")
        if self.split is not None and self.split < 1:
            raise ValueError(f"split must be >= 1 (got {self.split})")
        for name in ("comments", "error_after", "cut_after"):
            count: int | None = getattr(self, name)
            if count is not None and count < 0:
                raise ValueError(f"{name} must be >= 0 (got {count})")
        if self.error is None and (self.error_after, self.error_message) != (None, None):
            raise ValueError("error_after and error_message need an error (got None)")
        if self.error is not None and self.cut_after is not None:
            raise ValueError("error and cut_after exclude each other (got both)")
        words: list[str] = re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", self.text)
        object.__setattr__(self, "parts", tuple(words if self.chunks is None else self.chunks))

    def stream(self, model: str) -> tuple[bytes, ...]:
        """The body as a stream, one element for each event; not yet encoded, not yet split."""
        return tuple(self._events(model))

    def document(self, model: str) -> bytes:
        """The body as one JSON document; an error is in it in the same shape as in a stream."""
        head = self._head("chat.completion", model)
        message: dict[str, object] = {"role": "assistant", "content": "".join(self.parts)}
        if self.reasoning is not None:
            message["reasoning"] = self.reasoning
        if self.error is not None:
            message["content"] = "".join(self.parts[: self.error_after])
            return _dump(self._failure(self.error, head, {"message": message}))
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return _dump({**head, "choices": [choice], **self._usage()})

    def _events(self, model: str) -> Iterator[bytes]:
        end = self.newline * 2
        for _ in range(self.comments):
            yield f": OPENROUTER PROCESSING{end}".encode()
        for payload in self._payloads(self._head("chat.completion.chunk", model)):
            yield b"data: " + _dump(payload) + end.encode()
        if self.done and self.cut_after is None:
            yield f"data: [DONE]{end}".encode()

    def _payloads(self, head: dict[str, object]) -> Iterator[dict[str, object]]:
        def chunk(delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            return {**head, "choices": [choice]}

        if self.role:
            yield chunk({"role": "assistant", "content": ""}, None)
        if self.reasoning is not None:
            yield chunk({"content": "", "reasoning": self.reasoning}, None)
        for part in self.parts[: self.error_after if self.error is not None else self.cut_after]:
            yield chunk({"content": part}, None)
        if self.error is not None:
            yield self._failure(self.error, head, {"delta": {"content": ""}})
        elif self.cut_after is None:
            yield {**chunk({}, self.finish_reason), **self._usage()}

    def _failure(
        self, code: str | int, head: dict[str, object], said: dict[str, object]
    ) -> dict[str, object]:
        message = message_for(code) if self.error_message is None else self.error_message
        error: dict[str, object] = {"code": code, "message": message}
        if self.error_shape == "cline":
            # Exactly the documented chunk: no id, no index, no delta.
            return {"choices": [{"finish_reason": "error", "error": error}]}
        choices = [{"index": 0, **said, "finish_reason": "error"}]
        if self.error_shape == "openrouter":
            return {**head, "error": error, "choices": choices}
        return {**head, "choices": choices}

    def _head(self, kind: str, model: str) -> dict[str, object]:
        return {
            "id": self.response_id or f"gen-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model or model,
            "provider": "Simulator",
        }

    def _usage(self) -> dict[str, object]:
        if self.usage is False:
            return {}
        if self.usage is not True:
            return {"usage": dict(self.usage)}
        usage: dict[str, object] = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": len(self.parts),
            "total_tokens": PROMPT_TOKENS + len(self.parts),
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
        if self.cost is not None:
            usage["cost"] = self.cost
        return {"usage": usage}


def _dump(document: dict[str, object]) -> bytes:
    # Not escaped: a stream that is split inside a UTF-8 character has to be possible.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
