# SPDX-License-Identifier: Apache-2.0
"""What holds under every framework: the table of `docs/ecosystem.md` is made from these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from cline_transport import error_info
from cline_transport.simulator import Reply, Simulator

from .frameworks import named
from .support import MODEL, Adapter, Asker, Got, Way, modes

TEXT: Final = "one two three"
ATTEMPTS: Final = 4
"""What the API's documentation gives a 429."""

Record = Callable[[str, object], None]
"""Says something to the table."""


def good(adapter: type[Adapter]) -> Reply:
    return Reply.ok(chunks=adapter.chunks("one", " two", " three"))


def failing(adapter: type[Adapter], code: str, *, after: int) -> Reply:
    words = adapter.chunks("one", " two", " three")
    return Reply.stream(chunks=words, error=code, error_after=after, request_id="req_failed")


def truncated(adapter: type[Adapter]) -> Reply:
    words = adapter.chunks("one", " two", " three")
    return Reply.stream(chunks=words, cut_after=2, request_id="req_failed")


def assert_explained(got: Got, code: str | int, phase: str, request_id: str | None) -> None:
    """`error_info` sees what the API said through whatever the framework raises."""
    info = error_info(got.raised)
    assert info is not None, repr(got.raised)
    assert (info.code, info.phase, info.request_id) == (code, phase, request_id)
    assert info.model == MODEL


class Specification:
    """Subclassed for each framework, whose module has its `ADAPTER`."""

    @modes("call")
    def test_a_call_is_answered(
        self, ask: Asker, adapter: type[Adapter], cline_api: Simulator
    ) -> None:
        assert ask(good(adapter)).text == TEXT
        assert len(cline_api.requests) == 1

    @modes("stream")
    def test_a_stream_is_delivered_whole(
        self, ask: Asker, adapter: type[Adapter], cline_api: Simulator
    ) -> None:
        got = ask(good(adapter))
        assert got.text == TEXT
        assert [part for part in got.parts if part] == ["one", " two", " three"]
        assert len(cline_api.requests) == 1

    @modes("call", "stream")
    def test_a_429_is_retried_unseen(
        self, ask: Asker, adapter: type[Adapter], cline_api: Simulator
    ) -> None:
        assert ask(Reply.error(429, retry_after=0), good(adapter)).text == TEXT
        assert len(cline_api.requests) == 2

    @modes("stream")
    def test_an_error_before_content_is_retried_unseen(
        self, ask: Asker, adapter: type[Adapter], cline_api: Simulator
    ) -> None:
        assert ask(failing(adapter, "server_error", after=0), good(adapter)).text == TEXT
        assert len(cline_api.requests) == 2

    @modes("stream")
    def test_an_error_after_content_is_raised_and_the_text_delivered_once(
        self,
        ask: Asker,
        way: Way,
        adapter: type[Adapter],
        cline_api: Simulator,
        record_property: Record,
    ) -> None:
        got = ask(failing(adapter, "rate_limit", after=2), good(adapter))
        record_property("told", got.told)
        assert "".join(got.parts) == adapter.delivered[way.colour]
        assert len(cline_api.requests) == 1
        assert_explained(got, "rate_limit", "mid_stream", "req_failed")

    @modes("stream")
    def test_a_truncated_stream_is_raised(
        self,
        ask: Asker,
        way: Way,
        adapter: type[Adapter],
        cline_api: Simulator,
        record_property: Record,
    ) -> None:
        got = ask(truncated(adapter), good(adapter))
        record_property("told", got.told)
        assert "".join(got.parts) == adapter.delivered[way.colour]
        assert len(cline_api.requests) == 1
        assert_explained(got, "stream_truncated", "mid_stream", "req_failed")

    @modes("call", "stream")
    def test_a_lasting_429_takes_four_attempts(
        self, ask: Asker, adapter: type[Adapter], cline_api: Simulator, record_property: Record
    ) -> None:
        got = ask(*[Reply.error(429, retry_after=0)] * 50, good(adapter))
        record_property("told", got.told)
        assert len(cline_api.requests) == ATTEMPTS
        assert got.parts == []
        assert_explained(got, 429, "immediate", cline_api.requests[-1].request_id)

    @modes("call", "stream")
    def test_what_a_lasting_429_takes_with_its_own_retries(
        self,
        ask: Asker,
        way: Way,
        adapter: type[Adapter],
        cline_api: Simulator,
        record_property: Record,
    ) -> None:
        got = ask(*[Reply.error(429, retry_after=0)] * 50, good(adapter), defaults=True)
        record_property("told", f"{way.mode}: {len(cline_api.requests)}")
        assert len(cline_api.requests) == ATTEMPTS * adapter.own_retries[way.mode]
        assert_explained(got, 429, "immediate", cline_api.requests[-1].request_id)

    @modes("stream")
    def test_without_the_transport_an_error_after_content(
        self, ask: Asker, adapter: type[Adapter], record_property: Record
    ) -> None:
        got = ask(failing(adapter, "rate_limit", after=2), transport=False)
        record_property("told", got.told)
        assert "".join(got.parts) == "one two"
        assert (got.error is None) == adapter.swallows

    @modes("stream")
    def test_without_the_transport_a_truncated_stream(
        self, ask: Asker, adapter: type[Adapter], record_property: Record
    ) -> None:
        got = ask(truncated(adapter), transport=False)
        record_property("told", got.told)
        assert "".join(got.parts) == "one two"
        assert (got.error is None) == adapter.swallows

    @modes("call")
    def test_without_the_transport_a_call_that_does_not_say_how(
        self, ask: Asker, adapter: type[Adapter], cline_api: Simulator, record_property: Record
    ) -> None:
        """A call without `stream` gets a stream of the API, which is not what the SDK expects."""
        got = ask(*[good(adapter)] * 10, transport=False)
        record_property("told", "answered" if got.error is None else got.told)
        assert [b'"stream":false' in one.body for one in cline_api.requests] == [
            adapter.says_stream_false
        ] * len(cline_api.requests)
        assert (got.error is None) == adapter.says_stream_false

    def test_its_example_prints_the_answer(
        self, adapter: type[Adapter], cline_api: Simulator
    ) -> None:
        cline_api.enqueue(Reply.error(429, retry_after=0), good(adapter))
        done = run_example(adapter, cline_api)
        assert (done.returncode, done.stdout) == (0, adapter.printed), done.stderr
        assert len(cline_api.requests) == 2

    @pytest.mark.parametrize("phase", ["mid-stream", "immediate"])
    def test_its_example_says_why_it_failed(
        self,
        phase: str,
        adapter: type[Adapter],
        cline_api: Simulator,
    ) -> None:
        if phase == "immediate":
            cline_api.enqueue(Reply.error(402, request_id="req_failed"))
        else:
            cline_api.enqueue(failing(adapter, "rate_limit", after=2))
        done = run_example(adapter, cline_api)
        assert done.returncode == 1
        assert ("one two" in done.stdout) == (phase == "mid-stream")
        assert "three" not in done.stdout
        assert "3. Request ID (x-request-id): req_failed\n" in done.stderr
        assert f"4. Immediate or mid-stream: {phase} " in done.stderr
        assert len(cline_api.requests) == 1


def run_example(adapter: type[Adapter], api: Simulator) -> subprocess.CompletedProcess[str]:
    """Run the framework's example as a program."""
    environment = {
        "CLINE_BASE_URL": api.base_url,
        "CLINE_API_KEY": api.api_key,
        "CLINE_TRANSPORT_RETRY__RULES__429__INITIAL": "0",
    }
    return subprocess.run(  # noqa: S603 -- our own interpreter, our own example
        [sys.executable, "-W", "error", named(adapter.name).path],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
