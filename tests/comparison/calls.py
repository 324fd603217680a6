# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call: answers to the questions of retries, errors and streams."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import IO, Any, Final

from cline_transport.simulator import ReceivedRequest, Reply, Simulator

from .callers import Caller, LiteLlm, answer_of
from .waits import WAITS

__all__ = ["CALLS", "Bench"]

TEXT: Final = "one two three"
GOOD: Final = Reply.completion(TEXT)
GOOD_STREAM: Final = Reply.stream(TEXT)
AS_ASKED: Final = Reply.ok(TEXT)
BODY: Final = b'{"model": "anthropic/claude-sonnet-4.6", "messages": [], "stream": false}'
MANY: Final = 100
"""More replies than any contender takes."""
LONG: Final = 100_000.0
"""Seconds after which no wait of a call before is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of one call."""

    requests: list[bytes]
    waits: list[float]
    text: str = ""
    raised: BaseException | None = None

    @property
    def end(self) -> str:
        """How it ended for the caller."""
        if self.raised is not None:
            return f"`{type(self.raised).__name__}`"
        return "answer" if self.text == TEXT else "nothing raised"

    @property
    def told(self) -> str:
        """How often it was asked, and how it ended."""
        return f"{len(self.requests)} x, {self.end}"


class Bench:
    """A caller and the API; each question begins anew."""

    def __init__(self, api: Simulator, make: Callable[[], Caller]) -> None:
        self.api = api
        self.make = make

    def see(self, call: Callable[[Any], str], *replies: Reply) -> Seen:
        """Make one call, to which the API gives these replies."""
        WAITS.skip(LONG)
        WAITS.clear()
        self.api.reset()
        self.api.enqueue(*replies)
        caller = self.make()
        text, raised = "", None
        try:
            text = call(caller)
        except Exception as exc:  # noqa: BLE001 -- whatever it raises is what is asked for
            raised = exc
        finally:
            caller.close()
        bodies = [request.body for request in self.api.requests]
        return Seen(requests=bodies, waits=list(WAITS), text=text, raised=raised)

    def ask(self, *replies: Reply, stream: bool = False, **how: bool) -> Seen:
        """Ask for an answer or a stream."""

        def call(caller: Caller) -> str:
            api = self.api
            return answer_of(caller.chat(api.base_url, api.api_key, how, stream=stream))

        return self.see(call, *replies)

    def lasting(self, failure: Reply, **how: bool) -> Seen:
        return self.ask(*repeat(failure, MANY), **how)


# --- retries and errors ---


def retried_without_settings(bench: Bench) -> str:
    seen = bench.ask(Reply.error(503), GOOD, configured=False)
    return "retried" if seen.end == "answer" and len(seen.requests) == 2 else seen.told


def retry_after(bench: Bench) -> str:
    seen = bench.ask(Reply.error(429, retry_after=7), GOOD)
    if seen.end != "answer":
        return seen.told
    return "waits 7 s, answer" if sum(seen.waits) >= 7 else f"waits {sum(seen.waits):.1f} s, answer"


def dropped(bench: Bench) -> str:
    return bench.ask(Reply.close(), GOOD).told


def an_hour(bench: Bench) -> str:
    seen = bench.lasting(Reply.error(429, retry_after=3600))
    if not any(seen.waits):
        return f"at once {seen.end}" if len(seen.requests) == 1 else f"no wait: {seen.told}"
    return f"waits {' + '.join(f'{wait:.0f}' for wait in seen.waits)} s, {seen.told}"


def lasting_500(bench: Bench) -> str:
    return bench.lasting(Reply.error(500)).told


def lasting_429(bench: Bench) -> str:
    return bench.lasting(Reply.error(429)).told


def layers(bench: Bench) -> str:
    return bench.lasting(Reply.error(429), layered=True).told


def a_page(bench: Bench) -> str:
    page = "<html><head><title>502 Bad Gateway</title></head><body>proxy</body></html>"
    seen = bench.lasting(Reply.html(502, html=page))
    if seen.raised is None:
        return seen.end
    message = str(seen.raised)
    if "502 Bad Gateway" not in message:
        return f"{seen.end}: the status only"
    return f"{seen.end}: {'the page' if '<title>' in message else 'its title'}"


def error_in_200(bench: Bench) -> str:
    return bench.lasting(Reply.json_error_in_200("rate_limit")).told


def _upload(bench: Bench, body: Callable[[], Any]) -> str:
    def call(caller: Caller) -> str:
        if isinstance(caller, LiteLlm):
            raise NotImplementedError
        caller.send(bench.api.base_url, bench.api.api_key, body()).raise_for_status()
        return TEXT

    seen = bench.see(call, Reply.error(503), GOOD)
    if isinstance(seen.raised, NotImplementedError):
        return "no such call"
    wrong = [number for number, sent in enumerate(seen.requests, 1) if sent != BODY]
    status = getattr(getattr(seen.raised, "response", None), "status_code", "")
    return f"{seen.told} {status}".rstrip() + (f", body {wrong[0]} is wrong" if wrong else "")


def generator(bench: Bench) -> str:
    def pieces() -> Iterator[bytes]:
        yield BODY[:20]
        yield BODY[20:]

    return _upload(bench, pieces)


def file(bench: Bench) -> str:
    with tempfile.TemporaryFile() as opened:

        def rewound() -> IO[bytes]:
            opened.write(BODY)
            opened.seek(0)
            return opened

        return _upload(bench, rewound)


def unsaid(bench: Bench) -> str:
    """The SDK's own default leaves `stream` out, and the API then streams."""

    def call(caller: Caller) -> str:
        answer = caller.chat(bench.api.base_url, bench.api.api_key, {})
        return answer_of(answer) if hasattr(answer, "choices") else repr(answer)

    return bench.see(call, AS_ASKED).end


# --- streams ---


def early_chunk(bench: Bench) -> str:
    bad = Reply.ok(TEXT, error="server_error", error_after=0)
    return bench.ask(bad, GOOD_STREAM, stream=True).told


def late_chunk(bench: Bench) -> str:
    return bench.ask(Reply.ok(TEXT, error="rate_limit", error_after=2), stream=True).end


def late_chunk_openrouter(bench: Bench) -> str:
    bad = Reply.ok(TEXT, error="rate_limit", error_after=2, error_shape="openrouter")
    return bench.ask(bad, stream=True).end


def early_end(bench: Bench) -> str:
    return bench.ask(Reply.stream(TEXT, cut_after=0), GOOD_STREAM, stream=True).told


def late_end(bench: Bench) -> str:
    return bench.ask(Reply.stream(TEXT, cut_after=2), stream=True).end


def early_loss(bench: Bench) -> str:
    lost = Reply.stream(TEXT, cut_after=0, then="close")
    return bench.ask(lost, GOOD_STREAM, stream=True).told


def late_loss(bench: Bench) -> str:
    return bench.ask(Reply.stream(TEXT, cut_after=2, then="close"), stream=True).end


# --- what others can ---


def any_host(bench: Bench) -> str:
    def call(caller: Caller) -> str:
        if isinstance(caller, LiteLlm):
            raise NotImplementedError
        caller.get(bench.api.base_url, bench.api.api_key, "/weather").raise_for_status()
        return TEXT

    seen = bench.see(call, Reply.error(503), Reply.raw(200, body=b"sunny"))
    return "no such call" if isinstance(seen.raised, NotImplementedError) else seen.told


def libraries(bench: Bench) -> str:
    caller = bench.make()
    try:
        return "its own" if isinstance(caller, LiteLlm) else ", ".join(caller.libraries())
    finally:
        caller.close()


def own_rule(bench: Bench) -> str:
    """A good answer that lacks a word is asked for again."""

    def is_whole(text: str) -> bool:
        return "three" in text

    def rule(response: Any) -> None:
        response.read()
        if not is_whole(response.text):
            raise ValueError("it lacks a word")

    def call(caller: Caller) -> str:
        api = bench.api
        if isinstance(caller, LiteLlm):
            return answer_of(caller.chat_by_rule(api.base_url, api.api_key, is_whole))
        transport = caller.with_own_rule(rule)
        if transport is None:
            return answer_of(caller.chat(api.base_url, api.api_key, {}))
        answer = caller.http(transport).post(f"{api.base_url}/chat/completions", content=BODY)
        return str(answer.json()["choices"][0]["message"]["content"])

    seen = bench.see(call, Reply.completion("one two"), GOOD)
    return "yes" if seen.told == "2 x, answer" else "no"


def other_model(bench: Bench) -> str:
    def respond(request: ReceivedRequest) -> Reply:
        return GOOD if b"gpt-5" in request.body else Reply.error(503)

    def call(caller: Caller) -> str:
        options = {"fallbacks": ["openai/openai/gpt-5"]} if isinstance(caller, LiteLlm) else {}
        how = {"configured": False}
        return answer_of(caller.chat(bench.api.base_url, bench.api.api_key, how, **options))

    bench.api.respond = respond
    try:
        return "yes" if bench.see(call).end == "answer" else "no"
    finally:
        bench.api.respond = None


def other_format(bench: Bench) -> str:
    """An answer as Anthropic's own API writes it."""
    document = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 3},
    }  # fmt: skip

    def call(caller: Caller) -> str:
        options: dict[str, Any] = {"model": "claude-sonnet-4-6"}
        if isinstance(caller, LiteLlm):
            options["model"] = "anthropic/claude-sonnet-4-6"
        return answer_of(caller.chat(bench.api.base_url, bench.api.api_key, {}, **options))

    headers = {"content-type": "application/json"}
    reply = Reply.raw(200, headers=headers, body=json.dumps(document).encode())
    return "yes" if bench.see(call, reply).end == "answer" else "no"


def cache(bench: Bench) -> str:
    def call(caller: Caller) -> str:
        api = bench.api
        options: dict[str, Any] = {"stream": False}
        if isinstance(caller, LiteLlm):
            caller.remember()
            options["caching"] = True
        first = answer_of(caller.chat(api.base_url, api.api_key, {}, **options))
        assert first == TEXT
        try:
            return answer_of(caller.chat(api.base_url, api.api_key, {}, **options))
        finally:
            if isinstance(caller, LiteLlm):
                caller.forget()

    seen = bench.see(call, GOOD, GOOD)
    return f"{len(seen.requests)}" if seen.end == "answer" else seen.told


def price(bench: Bench) -> str:
    def call(caller: Caller) -> str:
        api = bench.api
        return str(caller.cost(caller.chat(api.base_url, api.api_key, {}, stream=False)))

    seen = bench.see(call, Reply.completion(TEXT, cost=None, model="gpt-4o"))
    if seen.raised is not None:
        return seen.end
    return "none" if seen.text == "None" else "from its price list"


def on_trio(bench: Bench) -> str:
    def call(caller: Caller) -> str:
        import trio  # noqa: PLC0415 -- for this question alone

        return str(trio.run(caller.chat_async, bench.api.base_url, bench.api.api_key))

    return "yes" if bench.see(call, Reply.error(503), GOOD).told == "2 x, answer" else "no"


_ASKED: Final = (
    retried_without_settings, retry_after, an_hour, dropped, lasting_500, lasting_429, layers,
    a_page, error_in_200, unsaid, generator, file,
    early_chunk, late_chunk, late_chunk_openrouter, early_end, late_end, early_loss, late_loss,
    any_host, libraries, own_rule, other_model, other_format, cache, price, on_trio,
)  # fmt: skip
CALLS: Final[dict[str, Callable[[Bench], str]]] = {one.__name__: one for one in _ASKED}
