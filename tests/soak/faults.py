# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a call: chosen by the run's seed and the call's number, and nothing else."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from cline_transport.simulator import Reply
from cline_transport.simulator._answer import Answer
from tests.replies import made_out

__all__ = ["MODEL", "Behaviour", "Call", "Mode", "Sent", "plan"]

MODEL: Final = "cline/ok"

Mode = Literal["stream", "json", "other"]
"""What is asked for; `other` is no chat."""

Behaviour = Literal[
    "read", "twice", "early", "drop", "cancel", "cancel in the stream", "in the wait"
]
"""What the client does. A synchronous call cannot be cancelled: it is closed early instead, and in
the wait it is interrupted."""

_BEHAVIOURS: Final[dict[Behaviour, int]] = {
    "read": 55, "twice": 8, "early": 10, "drop": 7, "cancel": 8, "cancel in the stream": 6,
    "in the wait": 6,
}  # fmt: skip
_MODES: Final[dict[Mode, int]] = {"stream": 60, "json": 30, "other": 10}
_ENCODINGS: Final = (None, None, None, "gzip", "deflate", "br", "zstd")
_STATUSES: Final = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 524, 529)
_CODES: Final = ("server_error", "rate_limit", 500, 429, 503, "content_filter", "unheard_of")
_SHAPES: Final = ("cline", "openrouter", "bare")
_WORDS: Final = ("one", "zwei", "três", "четыре", "五", "🙂", "seven", "a-rather-long-word" * 20)


@dataclass(frozen=True, slots=True)
class Sent:
    """The body of one reply, not encoded, as far as the reply goes."""

    mode: Mode
    content: bytes
    cut: int | None
    encoded: bool
    garbage: bool
    """Whether its encoding is none: what comes of it is the decoder's affair."""

    def is_whole(self, body: bytes) -> bool:
        """Whether a body that was delivered as whole is what was sent."""
        if self.garbage or body == self.content:
            return True
        if self.cut is None or body != self.content[: len(body)]:
            return False
        if not self.encoded and len(body) != self.cut:
            return False
        # It was cut, and ended cleanly as far as HTTP can tell: of JSON nothing more is asked (what
        # is in it is its reader's affair), a stream has to say that it is at its end.
        ended = b"[DONE]" in body or re.search(rb'"finish_reason":"(stop|length)"', body)
        return self.mode != "stream" or bool(ended)


@dataclass(slots=True)
class Call:
    """One call: what the server does with its attempts, and what the client does meanwhile."""

    number: int
    kinds: tuple[str, ...]
    """A name for each reply; the last is that of all further attempts."""
    replies: tuple[Reply, ...]
    mode: Mode
    behaviour: Behaviour
    client: int
    """A number from which the client is chosen."""
    late: float
    """Seconds after which it is cancelled."""
    impatient: bool
    """Whether a reply stalls, and the read timeout is short."""
    began: float = field(default_factory=time.monotonic)

    def reply(self, attempt: int) -> Reply:
        """The reply to an attempt, the first being 1: the same bytes whoever asks, and whenever."""
        chosen = self.replies[min(attempt, len(self.replies)) - 1]
        made = _fixed(chosen, self.mode, f"gen-{self.number}-{attempt}")
        if made.status is None:
            return made
        return replace(made, request_id=f"req_{self.number}_{attempt}")

    def sent(self, request_id: str) -> Sent | None:
        """What went out under an `x-request-id`, if it is one of this call."""
        head, _, attempt = request_id.rpartition("_")
        if head != f"req_{self.number}":
            return None
        reply = self.reply(int(attempt))
        body = reply.body
        content = body if isinstance(body, bytes) else b"".join(cast("tuple[bytes, ...]", body))
        return Sent(
            mode=self.mode,
            content=content,
            cut=reply.cut_at,
            encoded=reply.encoding is not None,
            garbage=any(name == "content-encoding" for name, _ in reply.headers),
        )


def plan(seed: int, number: int) -> Call:
    """The call with this number."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - chance that can be repeated
    mode = rng.choices(list(_MODES), list(_MODES.values()))[0]
    behaviour = rng.choices(list(_BEHAVIOURS), list(_BEHAVIOURS.values()))[0]
    kinds: list[str] = []
    replies: list[Reply] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
        kinds.append(kind)
        replies.append(_KINDS[kind][1](rng, mode))
    if len(replies) > 1 or rng.random() < 0.3:  # more often than not it goes well in the end
        kinds.append("good")
        replies.append(_good(rng, mode))
    return Call(
        number=number,
        kinds=tuple(kinds),
        replies=tuple(replies),
        mode=mode,
        behaviour=behaviour,
        client=rng.randrange(1 << 16),
        late=rng.random() * 0.03,
        impatient=any(reply.then == "stall" for reply in replies),
    )


def _text(rng: random.Random, *, brief: bool = False) -> str:
    count = 500 if rng.random() < 0.005 and not brief else rng.randrange(1, 12)
    return " ".join(rng.choices(_WORDS, k=count))


def _answer(rng: random.Random, mode: Mode, **options: Any) -> Reply:
    """A good answer, or one that `options` spoil."""
    # In small pieces a long one takes longer than anything else.
    text = _text(rng, brief="drip" in options)
    if mode == "other":
        pieces = [word.encode() for word in text.split()]
        body = b" ".join(pieces) if rng.random() < 0.5 else pieces
        known = {name: options[name] for name in ("then", "cut_at", "drip") if name in options}
        return Reply.raw(
            headers={"content-type": "application/octet-stream"},
            body=body,
            encoding=rng.choice(_ENCODINGS),
            **known,
        )
    return Reply.ok(
        text,
        encoding=rng.choice(_ENCODINGS),
        newline=rng.choice(("\n", "\n", "\r\n", "\r")),
        comments=rng.choice((0, 0, 0, 3)),
        reasoning=rng.choice((None, None, "hm")),
        finish_reason=rng.choice(("stop", "stop", "length")),
        usage=rng.random() < 0.8,
        **options,
    )


def _good(rng: random.Random, mode: Mode) -> Reply:
    return _answer(rng, mode)


def _dripping(rng: random.Random, mode: Mode) -> Reply:
    """In small pieces, some of them a moment apart."""
    drip = rng.choice(((7, 0.0), (33, 0.0), (100, 0.0), (200, 0.001)))
    return _answer(rng, mode, drip=drip)


def _late(rng: random.Random, mode: Mode) -> Reply:
    return replace(_answer(rng, mode), delay=rng.random() * 0.02)


def _status(rng: random.Random, mode: Mode) -> Reply:
    return Reply.error(
        rng.choice(_STATUSES),
        code=rng.choice((None, None, *_CODES)),
        encoding=rng.choice(_ENCODINGS),
        delay=rng.choice((0.0, 0.0, 0.005)),
    )


def _retry_after(rng: random.Random, mode: Mode) -> Reply:
    status = rng.choice((402, 429, 429, 503))
    after: Any = rng.choice((0, 1, 2.5, 9999, "Wed, 21 Oct 2099 07:28:00 GMT", "soon"))
    if rng.random() < 0.3:
        return Reply.error(status, retry_after_ms=rng.randrange(2000))
    headers = rng.choice(({}, {}, {"x-should-retry": "true"}, {"x-should-retry": "false"}))
    return Reply.error(status, retry_after=after, headers=headers)


def _page(rng: random.Random, mode: Mode) -> Reply:
    return Reply.html(rng.choice((403, 500, 502, 503, 504)), encoding=rng.choice(_ENCODINGS))


def _error_in_200(rng: random.Random, mode: Mode) -> Reply:
    return Reply.json_error_in_200(rng.choice(_CODES), shape=rng.choice(_SHAPES))


def _mid_stream(rng: random.Random, mode: Mode) -> Reply:
    return Reply.ok(
        _text(rng),
        error=rng.choice(_CODES),
        error_after=rng.choice((0, 0, 1, 2, None)),
        error_shape=rng.choice(_SHAPES),
        done=rng.random() < 0.5,
        encoding=rng.choice(_ENCODINGS),
        then=rng.choice(("end", "end", "close", "end" if mode == "json" else "stall")),
        drip=rng.choice((None, (20, 0.0))),
    )


def _truncated(rng: random.Random, mode: Mode) -> Reply:
    then = rng.choice(("end", "close", "reset"))
    if mode == "stream" and rng.random() < 0.3:
        return _answer(rng, mode, cut_after=rng.randrange(4), then=then)
    return _answer(rng, mode, cut_at=rng.choice((0, 1, 60, 300, 900)), then=then)


def _stalling(rng: random.Random, mode: Mode) -> Reply:
    # What has a length stalls before it: else its connection is used again, and nobody is there.
    cut = rng.choice((0, 40, 300, 900)) if mode == "stream" else rng.choice((0, 1))
    return _answer(rng, mode, cut_at=cut, then="stall")


def _nothing(rng: random.Random, mode: Mode) -> Reply:
    return rng.choice((Reply.close, Reply.close, Reply.reset, Reply.reset, Reply.stall))()


def _broken_encoding(rng: random.Random, mode: Mode) -> Reply:
    """Bytes that are not what the header says, in an answer or an error."""
    encoding = rng.choice(("gzip", "deflate", "br", "zstd", "gzip, br", "unheard-of"))
    kind = "text/event-stream" if mode == "stream" else "application/json"
    status = rng.choice((200, 200, 429, 503))
    body = rng.choice((b"no such encoding", b'{"choices":[]}', b"\x1f\x8b\x08\x00broken"))
    headers = {"content-type": kind, "content-encoding": encoding}
    return Reply.raw(status, headers=headers, body=[body] if rng.random() < 0.5 else body)


def _wrong_length(rng: random.Random, mode: Mode) -> Reply:
    headers = {"content-type": "application/json", "content-length": "99"}
    return Reply.raw(rng.choice((200, 500)), headers=headers, body=b"{}", then="close")


_KINDS: Final[dict[str, tuple[int, Callable[[random.Random, Mode], Reply]]]] = {
    "good": (30, _good),
    "drip": (8, _dripping),
    "late": (6, _late),
    "status": (12, _status),
    "Retry-After": (6, _retry_after),
    "page": (5, _page),
    "error in a 200": (4, _error_in_200),
    "error in the stream": (10, _mid_stream),
    "truncated": (10, _truncated),
    "stalling": (4, _stalling),
    "no response": (8, _nothing),
    "broken encoding": (5, _broken_encoding),
    "wrong length": (2, _wrong_length),
}


def _fixed(reply: Reply, mode: Mode, response_id: str) -> Reply:
    """The reply with the bytes of its answer, without what differs from one time to the next."""
    answer = reply.body
    if not isinstance(answer, Answer):
        return reply
    answer = replace(answer, response_id=response_id)
    made = made_out(replace(reply, body=answer), model=MODEL, stream=mode != "json")
    if isinstance(made.body, bytes):
        return replace(made, body=_dated(made.body))
    return replace(made, body=tuple(map(_dated, cast("tuple[bytes, ...]", made.body))))


def _dated(event: bytes) -> bytes:
    return re.sub(rb'"created":\d+', b'"created":1700000000', event)
