# SPDX-License-Identifier: Apache-2.0
"""One cell: a failure met by one kind of client in one colour, once, twice and always."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from cline_transport import error_info
from cline_transport._limiter import LINES
from cline_transport.simulator import Reply, Simulator
from tests.clients.support import MODEL, Colour, Traces, in_use
from tests.replies import made_out

from .callers import MAPS_BODIES, Caller, Cell, Official, Plain
from .failure import TEXT, Failure, HttpError, InStream, Mode
from .outcome import AttemptSpan, CallSpan, Expected, Explained, Outcome, seen_in_stream
from .troubles import base_url, holding

MANY: Final = 9
"""Replies, of which each call leaves some."""

SOON: Final = 0.05
"""Seconds until a timeout runs out."""

LATER: Final = (0.5, 5.0)
"""The same where that was too soon: a machine that is busy may not have sent what comes first."""


def check(failure: Failure, cell: Cell, colour: Colour, api: Simulator) -> None:
    """What is seen in this cell is what its row says."""
    expected = Expected(failure, sdk=cell.is_sdk, maps_bodies=MAPS_BODIES)
    traces = Traces()
    with base_url(failure.trouble, api) as url:
        caller = _caller(cell, colour, failure, traces, url, api)
        try:
            for mode in failure.modes:
                good = made_out(Reply.ok(TEXT), model=MODEL, stream=mode == "stream")
                bad = good  # what comes to the API at all is
                if failure.trouble == "reply":
                    bad = made_out(failure.reply, model=MODEL, stream=mode == "stream")
                for failed in failure.passes_after:
                    seen = observe(caller, failure, mode, api, [*[bad] * failed, good], failed)
                    assert seen == expected.recovered(failed, good), f"{mode}, {failed} times"
                wanted, replies = expected.ended(bad), [*[bad] * MANY, good]
                seen = observe(caller, failure, mode, api, replies, None)
                for seconds in LATER if failure.timeout else ():
                    if seen == wanted:
                        break
                    seen = observe(caller, failure, mode, api, replies, None, seconds)
                assert seen == wanted, f"{mode}, always"
        finally:
            caller.close()


def _caller(
    cell: Cell, colour: Colour, failure: Failure, traces: Traces, url: str, api: Simulator
) -> Caller:
    if cell.is_sdk:
        return Official(colour, failure, traces, url, api)
    return Plain(cell, colour, failure, traces, url)


def observe(
    caller: Caller,
    failure: Failure,
    mode: Mode,
    api: Simulator,
    replies: Sequence[Reply],
    failed: int | None,
    seconds: float = SOON,
) -> Outcome:
    """Make one call, and see what can be seen of it; `failed`: `None` if it fails for ever."""
    LINES.reset()  # a cooldown of the call before
    api.reset()
    time, traces = caller.time, caller.traces
    time.waits.clear()
    with ExitStack() as trouble:
        if failure.trouble == "refused":
            outage = trouble.enter_context(ExitStack())
            outage.enter_context(api.refusing())
            time.on_wait = lambda: outage.close() if len(time.waits) == failed else None
        elif failure.trouble == "pool full":
            trouble.enter_context(holding(caller.inner, caller.colour, api))
        api.reset()
        api.enqueue(*replies)
        started, ended = traces.ledger.started, traces.ledger.ended
        traces.exporter.clear()
        got = caller.ask(failure, mode, seconds)
        received = api.requests

    assert len({one.body for one in received}) <= 1
    ids = [one.request_id for one in received]
    numbers: dict[object, int] = {one: n for n, one in enumerate(ids, 1) if one is not None}
    parents = {_id(span.context): number for number, span in enumerate(traces.calls, 1)}
    info = None if got.source is None else error_info(got.source)
    explained = None
    if info is not None:
        assert {info.request_id, *got.told} <= {info.request_id}, got.told
        request = numbers.get(info.request_id)
        explained = Explained(
            code=info.code,
            status=info.status_code,
            phase=info.phase,
            attempts=info.attempts,
            request=request,
        )
    return Outcome(
        ended=got.ended,
        delivered=_read(
            got.delivered, failure, plain=isinstance(caller, Plain), ended=failed is None
        ),
        final=got.final,
        explained=explained,
        requests=len(received),
        waits=tuple(time.waits),
        calls=tuple(_call(span, numbers) for span in traces.calls),
        attempts=tuple(_attempt(span, numbers, parents) for span in traces.attempts),
        open_spans=(traces.ledger.started - started) - (traces.ledger.ended - ended),
        connections_in_use=len(in_use(caller.inner._pool)),
    )


def _read(delivered: Any, failure: Failure, *, plain: bool, ended: bool) -> object:
    """What was delivered, read where it is not as it was sent."""
    end = failure.end
    if plain and ended and isinstance(end, InStream):
        return seen_in_stream(delivered)
    if plain and ended and isinstance(end, HttpError) and end.body != "as sent":
        return json.loads(delivered)
    return delivered


def _call(span: ReadableSpan, numbers: dict[object, int]) -> CallSpan:
    told = span.attributes or {}
    assert told.get("error.type") == told.get("cline.error.code")
    return CallSpan(
        status=span.status.status_code.name,
        error=_text(told.get("error.type")),
        phase=_text(told.get("cline.error.phase")),
        request=numbers.get(told.get("cline.request_id")),
        retries=int(str(told["cline.retry.count"])),
    )


def _attempt(
    span: ReadableSpan, numbers: dict[object, int], parents: dict[int, int]
) -> AttemptSpan:
    told = span.attributes or {}
    assert told.get("error.type") == told.get("cline.error.code")
    resend = told.get("http.request.resend_count")
    return AttemptSpan(
        call=parents[_id(span.parent)],
        resend_count=None if resend is None else int(str(resend)),
        error=_text(told.get("error.type")),
        request=numbers.get(told.get("cline.request_id")),
    )


def _id(context: SpanContext | None) -> int:
    assert context is not None
    return context.span_id


def _text(value: object) -> str | None:
    return None if value is None else str(value)
