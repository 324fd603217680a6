"""Settings for one call, and for what runs within a block."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from cline_transport import RetryPolicy, Settings, StreamSettings, override
from cline_transport.simulator import Reply, Simulator

from .conftest import CHAT, Rig

NO_RETRY: Any = {"cline_transport": {"retry": {"enabled": False}}}


def test_a_request_can_bring_its_own(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503), Reply.error(503), Reply.completion("fine"))
    client = rig.client()
    assert client.post(url, json=CHAT, extensions=NO_RETRY).status == 503
    assert len(api.requests) == 1
    assert client.post(url, json=CHAT).status == 200


def test_a_branch_given_as_an_object_replaces_it(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.error(503))
    extensions = {"cline_transport": {"retry": RetryPolicy(rules={})}}
    assert rig.client().post(url, json=CHAT, extensions=extensions).status == 503
    assert len(api.requests) == 1


def test_a_call_can_be_left_alone(rig: Rig, api: Simulator, url: str) -> None:
    api.enqueue(Reply.html(502))
    answer = rig.client().post(url, json=CHAT, extensions={"cline_transport": {"enabled": False}})
    assert answer.body.startswith(b"<")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"retri": {}}, r"unknown setting retri \(did you mean retry\?\)"),
        ({"xyz": 1}, r"unknown setting xyz \(known: enabled, errors, retry, stream, telemetry\)"),
        ({"retry": {"max_retry": 1}}, r"unknown setting retry\.max_retry \(did you mean"),
        ({"retry": 3}, r"retry must be a mapping or a RetryPolicy \(got 3\)"),
        ({"enabled": "no"}, r"enabled must be a bool \(got 'no'\)"),
        ({"retry": {"jitter": 7}}, r"RetryPolicy\.jitter must be a number between 0 and 1"),
        ({"retry": {"enabled": "no"}}, r"RetryPolicy\.enabled must be True or False \(got 'no'\)"),
        ("retry", r"must be a mapping of settings \(got 'retry'\)"),
    ],
)
def test_a_wrong_one_is_named_before_anything_is_sent(
    rig: Rig, api: Simulator, url: str, values: Any, message: str
) -> None:
    answer = rig.client().post(url, json=CHAT, extensions={"cline_transport": values})
    assert isinstance(answer.exception, ValueError)
    with pytest.raises(ValueError, match=message):
        raise answer.exception
    assert api.requests == []


def test_a_block_is_checked_when_it_is_entered() -> None:
    with pytest.raises(ValueError, match="unknown setting"), override(nonsense=1):
        raise AssertionError("never here")


def test_a_block_changes_the_calls_within(sync_rig: Rig, api: Simulator, url: str) -> None:
    client = sync_rig.client()
    api.enqueue(Reply.error(503), Reply.error(503), Reply.completion("fine"))
    with override(retry={"enabled": False}):
        assert client.post(url, json=CHAT).status == 503
    assert client.post(url, json=CHAT).status == 200


def test_an_inner_block_and_a_request_go_on_top(sync_rig: Rig, api: Simulator, url: str) -> None:
    client = sync_rig.client()
    api.enqueue(*[Reply.error(409)] * 9)
    one: Any = {"rules": {409: _rule(1)}}
    two: Any = {"rules": {409: _rule(2)}}
    three: Any = {"rules": {409: _rule(3)}}
    with override(retry=one, stream={"retry": "never"}):
        with override(retry=two):
            client.post(url, json=CHAT)
            assert len(api.requests) == 3
            client.post(url, json=CHAT, extensions={"cline_transport": {"retry": three}})
            assert len(api.requests) == 7
        client.post(url, json=CHAT)
        assert len(api.requests) == 9


def _rule(retries: int) -> Any:
    from cline_transport import RetryRule  # noqa: PLC0415 -- one helper's need

    return RetryRule(max_retries=retries)


def test_a_block_holds_for_its_own_thread_only(sync_rig: Rig, api: Simulator, url: str) -> None:
    client = sync_rig.client()
    api.enqueue(Reply.error(503), Reply.completion("fine"))
    statuses: list[int] = []
    with override(retry={"enabled": False}):
        thread = threading.Thread(
            target=lambda: statuses.append(client.post(url, json=CHAT).status)
        )
        thread.start()
        thread.join()
    assert statuses == [200]


def test_a_block_holds_for_its_own_task_and_those_within(
    async_rig: Rig, api: Simulator, url: str
) -> None:
    client = async_rig.client()
    statuses: dict[str, int] = {}

    async def call(name: str) -> None:
        api.enqueue(Reply.error(400), Reply.completion("fine"))
        response = await client.raw.post(url, json=CHAT)
        statuses[name] = response.status_code
        api.reset()

    async def within() -> None:
        rules: Any = {"rules": {400: _rule(1)}}
        with override(retry=rules):
            async with anyio.create_task_group() as group:
                group.start_soon(call, "task within")

    async def go() -> None:
        await within()
        await call("task outside")

    client.run(go)
    assert statuses == {"task within": 200, "task outside": 400}


def test_telemetry_can_be_switched_off_for_one_call(rig: Rig, api: Simulator, url: str) -> None:
    client = rig.client(rig.transport(traced=True))
    api.enqueue(Reply.completion("a"), Reply.completion("b"))
    off: Any = {"cline_transport": {"telemetry": {"enabled": False}}}
    client.post(url, json=CHAT, extensions=off)
    assert rig.spans.get_finished_spans() == ()
    client.post(url, json=CHAT)
    assert len(rig.spans.get_finished_spans()) == 2


def test_the_transports_own_settings_stay(rig: Rig, api: Simulator, url: str) -> None:
    settings = Settings(stream=StreamSettings(on_error="raise"))
    transport = rig.transport(settings=settings)
    api.enqueue(Reply.completion("a"))
    rig.client(transport).post(url, json=CHAT, extensions=NO_RETRY)
    assert transport._loop.settings is settings
