# SPDX-License-Identifier: Apache-2.0
"""What became of a call: one `CallRecord`, with an `Attempt` for each request on the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cline_transport.errors import ErrorInfo, exception_chain, find_record, read_attribute

__all__ = ["Attempt", "CallRecord", "Usage", "call_record", "forget_answer", "read_later"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request and response on the wire.

    Attributes:
        number: 1 for the first.
        wait: Seconds waited before it: backoff, and for its turn where there are limits.
        started: Seconds since the call began.
        duration: Seconds until its response's headers (and an error's body) had come, or it failed.
        status_code: The HTTP status; `None` where no response came.
        request_id: `x-request-id`, where the server sent one.
        error: Why it failed; `None` where it did not.
    """

    number: int
    wait: float
    started: float
    duration: float
    status_code: int | None = None
    request_id: str | None = None
    error: ErrorInfo | None = None


@dataclass(slots=True, kw_only=True)
class Usage:
    """Tokens and cost as the last chunk, or a completion's body, reports them.

    Attributes:
        input_tokens: `usage.prompt_tokens`.
        output_tokens: `usage.completion_tokens`.
        cached_tokens: `usage.prompt_tokens_details.cached_tokens`.
        cost: `usage.cost`, in the API's credits.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: float | None = None


_OWNERS: Final = (None, "response", "http_response", "request")
"""What has the record in its extensions: the thing itself, or what it refers to."""

_ANSWER: Final = frozenset({"response_model", "response_id", "finish_reason", "usage"})


class _Unread:
    """Where what reads an answer waits to be asked: no field of the record's."""

    __slots__ = ("_unread",)

    def _keep(self, read: Callable[[CallRecord], None] | None) -> None:
        self._unread = read


@dataclass(slots=True, kw_only=True)
class CallRecord(_Unread):
    """What a call did, in `response.extensions["cline_transport"]`; it fills as the body is read.

    Attributes:
        attempts: Each request on the wire, in order.
        model: The model ID that the request asked for.
        response_model: The model ID that answered.
        response_id: The completion's `id`.
        request_id: `x-request-id` of the last attempt.
        finish_reason: Why generation ended (`stop`, `length`, …, or `error`).
        usage: Tokens and cost.
        time_to_first_chunk: Seconds from the start of the call to the first event of its stream
            (a keep-alive comment is none).
        limit_wait: Seconds for which limits held its attempts back, in all.
        completed: Whether the body was read to its end without a failure.
        error: How the call failed; `None` while it has not.

    Example:
        ```python
        response = client.post(url, json=payload)
        record = response.extensions["cline_transport"]
        print(len(record.attempts), record.request_id, record.usage.cost)
        ```
    """

    attempts: list[Attempt] = field(default_factory=list["Attempt"])
    model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    time_to_first_chunk: float | None = None
    limit_wait: float = 0.0
    completed: bool = False
    error: ErrorInfo | None = None

    if not TYPE_CHECKING:  # pragma: no branch - a checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            if name not in _ANSWER:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            # Several threads may come at once: each reads for itself, and takes nothing away.
            read = self._unread
            if read is not None:
                answer = CallRecord()
                try:
                    read(answer)
                except Exception:  # noqa: BLE001 -- inspection never breaks a call
                    answer = CallRecord()
                for said in _ANSWER:
                    _set_if_missing(self, said, getattr(answer, said))
                self._keep(None)
            return object.__getattribute__(self, name)

    @property
    def retries(self) -> int:
        """Attempts after the first."""
        return max(0, len(self.attempts) - 1)


def forget_answer(record: CallRecord) -> None:
    """A new attempt begins: what the one before answered is no longer the answer."""
    record.response_model = record.response_id = record.finish_reason = None
    record.usage = Usage()
    record.time_to_first_chunk = None
    record._keep(None)  # noqa: SLF001 - this module's own


def read_later(record: CallRecord, read: Callable[[CallRecord], None]) -> None:
    """An answer came; `read` is called when somebody asks what it says, if anybody does."""
    del record.response_model, record.response_id, record.finish_reason, record.usage
    record._keep(read)  # noqa: SLF001 - this module's own


def call_record(source: object) -> CallRecord | None:
    """The record of a call, whatever came of it.

    Args:
        source: An httpx or httpx2 response or exception, an exception of the `openai` SDK or of a
            framework on top of it, or a stream or raw response of the SDK.

    Returns:
        The `CallRecord`, or `None` where no transport of ours made the call.

    Example:
        ```python
        try:
            client.chat.completions.create(model=model, messages=messages)
        except openai.APIError as exc:
            waited = sum(attempt.wait for attempt in call_record(exc).attempts)
        ```
    """
    chain = exception_chain(source) if isinstance(source, BaseException) else [source]
    for one in chain:
        for name in _OWNERS:
            record = find_record(one if name is None else read_attribute(one, name))
            if isinstance(record, CallRecord):
                return record
    return None


def _set_if_missing(record: CallRecord, name: str, value: object) -> None:
    try:
        object.__getattribute__(record, name)
    except AttributeError:
        setattr(record, name, value)
