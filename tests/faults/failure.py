# SPDX-License-Identifier: Apache-2.0
"""A row of the matrix: how a call fails, and how that is to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from cline_transport import Settings
from cline_transport.errors import Phase
from cline_transport.simulator import Reply
from cline_transport.wire import Code

Mode = Literal["json", "stream"]
"""What is asked for."""

Trouble = Literal["reply", "refused", "not accepted", "not read", "pool full"]
"""Where it fails: in what the API answers, or before it."""

Body = Literal["bytes", "generator", "multipart"]
"""What is sent. Only bytes can be sent twice."""

TEXT: Final = "one two three"
SAID: Final = "one two"
"""What of the text comes before a failure that follows content."""

NEVER: Final = ()
ONCE: Final = (1.0,)
THRICE: Final = (1.0, 2.0, 4.0)
"""The documented waits, in seconds. One wait is one retry."""

SDK_RETRIES: Final = 2
"""Of the SDK's own, where there is no response or none that forbids it: each gets one attempt."""


@dataclass(frozen=True, kw_only=True)
class HttpError:
    """It ends as an HTTP error."""

    status: int
    code: Code
    body: Literal["as sent", "documented", "added"] = "as sent"
    """What came; or the documented format in its place; or its fields, and `error` beside them."""
    message: str = ""
    """Of a body that is not as sent."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    phase: Phase = "immediate"
    final: bool = True
    """Whether it says `x-should-retry: false`: the policy has ruled."""

    @property
    def sdk_retries(self) -> int:
        """How often the SDK asks again."""
        return 0 if self.final else SDK_RETRIES


@dataclass(frozen=True, kw_only=True)
class InStream:
    """It ends in a stream of which content was delivered."""

    code: Code
    message: str
    event: Literal["rewritten", "as sent", "added"] = "rewritten"
    """What becomes of the event that says so, if there was one."""
    text: str = SAID
    raises: bool = True
    """Whether the SDK raises `APIError`."""
    sdk_retries: ClassVar = 0


@dataclass(frozen=True, kw_only=True)
class Raised:
    """It ends in an exception from the wire, or of the body."""

    exception: str
    """Of httpx and httpx2."""
    code: str
    phase: Phase = "connection"
    text: str | None = None
    """What was delivered before; `None`: there was nothing to deliver."""

    @property
    def sdk(self) -> str:
        """What the SDK makes of it, where it makes something."""
        return "APITimeoutError" if self.exception.endswith("Timeout") else "APIConnectionError"

    @property
    def sdk_retries(self) -> int:
        """How often the SDK asks again."""
        return SDK_RETRIES if self.text is None else 0


End = HttpError | InStream | Raised


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One way in which calls fail."""

    name: str
    """Of its tests."""
    end: End
    """What comes of it when it stays."""
    waits: tuple[float, ...] = NEVER
    """Before each retry, at least."""
    reply: Reply = field(default_factory=Reply.close)
    """To each attempt, where an answer is the trouble."""
    trouble: Trouble = "reply"
    row: str = ""
    """Its row in the table of the page, which it may share; by default its name."""
    modes: tuple[Mode, ...] = ("json", "stream")
    body: Body = "bytes"
    timeout: Literal["connect", "read", "write", "pool"] | None = None
    """The one that runs out."""
    settings: Settings | None = None

    @property
    def title(self) -> str:
        """The name of its row."""
        return self.row or self.name

    @property
    def attempts(self) -> int:
        """Of a call that it ends."""
        return len(self.waits) + 1

    @property
    def for_sdk(self) -> bool:
        """Whether the SDK can meet it."""
        return self.body == "bytes"

    @property
    def passes_after(self) -> tuple[int, ...]:
        """After how many failed attempts it is tried whether the call is good again."""
        if self.trouble not in ("reply", "refused"):
            return ()  # nothing else passes
        return tuple(range(1, self.attempts))[:2]
