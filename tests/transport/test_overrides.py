# SPDX-License-Identifier: Apache-2.0
"""Settings for one call, and for what runs within a block."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from cline_transport import (
    LimitSettings,
    RetryPolicy,
    RetryRule,
    Settings,
    SettingsError,
    StreamSettings,
    override,
)
from cline_transport._overrides import effective
from cline_transport.retry import DEFAULT_RULES
from cline_transport.simulator import Reply, Simulator

from .rig import CHAT, Rig

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


KEY = "sk-abcdefghijklmnopqrstuvwx"
ROOT = "enabled, errors, retry, stream, telemetry"
RETRY = "deadline, enabled, jitter, max_retry_after, rules, throttle"

# What is given, and what is said before its source.
WRONG: list[tuple[dict[Any, Any], str]] = [
    # Unknown names
    ({"retri": {}}, "retri is no setting; did you mean retry? ("),
    ({"xyz": 1}, f"xyz is no setting; known: {ROOT} ("),
    ({"api_key": KEY}, f"api_key is no setting; known: {ROOT} ("),
    ({KEY: True}, f"[redacted] is no setting; known: {ROOT} ("),
    (
        {"retry": {"max_retry": 1}},
        "retry.max_retry is no setting; did you mean retry.max_retry_after? (",
    ),
    ({"retry": {"key": KEY}}, f"retry.key is no setting; known: {RETRY} ("),
    ({"retry": {1: 2}}, f"retry.1 is no setting; known: {RETRY} ("),
    (
        {"retry": {"rules": {429: {"max_retry": 1}}}},
        "retry.rules.429.max_retry is no setting; did you mean retry.rules.429.max_retries? (",
    ),
    (
        {"hosts": ("a.example",)},
        "hosts says where the transport is put, not what a call does (",
    ),
    (
        {"limits": {"max_concurrency": 3}},
        "limits.max_concurrency holds for all calls of a transport, not for one (",
    ),
    ({"limits": {"nope": KEY}}, "limits holds for all calls of a transport, not for one ("),
    ({"limits": {}}, "limits holds for all calls of a transport, not for one ("),
    ({"limits": LimitSettings()}, "limits holds for all calls of a transport, not for one ("),
    ({"limits": KEY}, "limits holds for all calls of a transport, not for one ("),
    ({"limit": {}}, f"limit is no setting; known: {ROOT} ("),
    # A wrong type
    ({"retry": 3}, "retry must be a mapping or a RetryPolicy (got 3, "),
    ({"retry": None}, "retry must be a mapping or a RetryPolicy (got None, "),
    (
        {"retry": StreamSettings},
        f"retry must be a mapping or a RetryPolicy (got {StreamSettings!r}, ",
    ),
    ({"stream": KEY}, "stream must be a mapping or a StreamSettings (got [redacted], "),
    ({"enabled": "no"}, "enabled must be True or False (got 'no', "),
    ({"enabled": 1}, "enabled must be True or False (got 1, "),
    ({"enabled": {"password": "hunter2"}}, "enabled must be True or False (got a table, "),
    ({"enabled": KEY}, "enabled must be True or False (got [redacted], "),
    ({"retry": {"enabled": "no"}}, "retry.enabled must be True or False (got 'no', "),
    ({"telemetry": {"genai": 0}}, "telemetry.genai must be True or False (got 0, "),
    ({"retry": {"deadline": "5"}}, "retry.deadline must be a number >= 0 (got '5', "),
    ({"retry": {"deadline": True}}, "retry.deadline must be a number >= 0 (got True, "),
    ({"retry": {"rules": 3}}, "retry.rules must be a mapping (got 3, "),
    ({"retry": {"rules": None}}, "retry.rules must be a mapping (got None, "),
    (
        {"retry": {"rules": {429: 3}}},
        "retry.rules.429 must be a mapping or a RetryRule (got 3, ",
    ),
    (
        {"retry": {"rules": {"": {}}}},
        "retry.rules must be keyed by an HTTP status or an error code (got '', ",
    ),
    # Out of range
    ({"retry": {"jitter": 7}}, "retry.jitter must be a number between 0 and 1 (got 7, "),
    ({"retry": {"jitter": math.nan}}, "retry.jitter must be a number between 0 and 1 (got nan, "),
    ({"retry": {"deadline": 0}}, "retry.deadline must be > 0 seconds, or None (got 0, "),
    (
        {"retry": {"rules": {"429": {"max_retries": True}}}},
        "retry.rules.429.max_retries must be a whole number >= 0 (got True, ",
    ),
    (
        {"errors": {"max_body_bytes": 0}},
        "errors.max_body_bytes must be a whole number of bytes >= 1 (got 0, ",
    ),
    (
        {"stream": {"retry": KEY}},
        "stream.retry must be 'before_content', 'buffered' or 'never' (got [redacted], ",
    ),
    (
        {"stream": {"on_error": "observe", "retry": "buffered"}},
        "stream.retry must be 'before_content' or 'never' where on_error is 'observe', which holds "
        "nothing (got 'buffered', ",
    ),
    (
        {"retry": {"rules": {429: {"initial": 9, "max_wait": 8}}}},
        "retry.rules.429.initial must be at most max_wait, 8 s (got 9, ",
    ),
]


@pytest.mark.parametrize(("values", "told"), WRONG)
def test_a_wrong_one_is_named_with_the_request_as_its_source(
    values: dict[Any, Any], told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        effective(Settings(), {"cline_transport": values})
    assert str(caught.value) == f'{told}from extensions["cline_transport"])'


@pytest.mark.parametrize(
    ("values", "told"), [(v, t) for v, t in WRONG if all(isinstance(name, str) for name in v)]
)
def test_a_block_is_checked_when_it_is_entered(values: Any, told: str) -> None:
    with pytest.raises(SettingsError) as caught, override(**values):
        raise AssertionError("never here")
    assert str(caught.value) == f"{told}from override())"


@pytest.mark.parametrize(
    ("values", "shown"), [("retry", "'retry'"), (3, "3"), ([], "[]"), (KEY, "[redacted]")]
)
def test_a_requests_own_are_a_mapping(values: object, shown: str) -> None:
    with pytest.raises(SettingsError) as caught:
        effective(Settings(), {"cline_transport": values})
    assert str(caught.value) == (
        'extensions["cline_transport"] must be a mapping of settings '
        f"(got {shown}, from the request)"
    )


@pytest.mark.parametrize(
    "values", [{"retri": {}}, {"retry": {"jitter": 7}}, {"retry": {"rules": {429: 3}}}, "retry"]
)
def test_a_wrong_one_is_raised_before_anything_is_sent(
    rig: Rig, api: Simulator, url: str, values: Any
) -> None:
    answer = rig.client().post(url, json=CHAT, extensions={"cline_transport": values})
    assert isinstance(answer.exception, SettingsError)
    assert api.requests == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    values: Any = {
        "enabled": 1,
        "nope": KEY,
        "limits": {"max_concurrency": "x", "burst": 0},
        "retry": {"jitter": 7, "deadline": -1, "nope": KEY},
        "stream": {"on_error": "x", "retry": "y"},
    }
    values["retry"]["rules"] = {429: {"initial": 100, "max_wait": -1}, 500: {"nope": 1}, "502": 3}
    with pytest.raises(SettingsError) as caught, override(**values):
        raise AssertionError("never here")
    assert [problem.setting for problem in caught.value.problems] == [
        "enabled",
        "nope",
        "limits.max_concurrency",
        "limits.burst",
        "retry.nope",
        "retry.rules.429.max_wait",
        "retry.rules.500.nope",
        "retry.rules.502",
        "retry.jitter",
        "retry.deadline",
        "stream.on_error",
        "stream.retry",
    ]
    assert KEY not in str(caught.value)


def test_a_block_that_contradicts_the_transport_is_told_at_the_call() -> None:
    settings = Settings(stream=StreamSettings(on_error="observe"))
    with override(stream={"retry": "buffered"}):
        assert effective(Settings(), {}).stream.retry == "buffered"
        with pytest.raises(SettingsError, match=r"stream\.retry must be .* from override\(\)"):
            effective(settings, {})


def test_so_is_a_rule_that_contradicts_the_transports() -> None:
    values: Any = {"retry": {"rules": {429: {"max_wait": 0.5}}}}
    short = Settings(retry=RetryPolicy(rules={429: RetryRule(initial=0.1)}))
    told = "retry.rules.429.initial must be at most max_wait, 0.5 s (got 1.0, from override())"
    with override(**values):
        assert effective(short, {}).retry.rules[429] == RetryRule(initial=0.1, max_wait=0.5)
        with pytest.raises(SettingsError) as caught:
            effective(Settings(), {})
    assert str(caught.value) == told


def test_what_follows_from_another_wrong_value_is_not_told() -> None:
    values: Any = {"retry": {"rules": {429: {"initial": 100, "max_wait": -1}}}}
    with pytest.raises(SettingsError) as caught:
        effective(Settings(), {"cline_transport": values})
    assert [problem.setting for problem in caught.value.problems] == ["retry.rules.429.max_wait"]


def rules_of(settings: Settings, rules: object) -> Mapping[Any, RetryRule]:
    """The rules of a call, given in a block; as they are in a request."""
    values: Any = {"retry": {"rules": rules}}
    with override(**values):
        found = effective(settings, {}).retry.rules
    assert effective(settings, {"cline_transport": values}).retry.rules == found
    return found


@pytest.mark.parametrize("code", [429, "429", " 429 "])
def test_a_rule_changes_that_rule_only_as_in_a_file(code: object) -> None:
    rules = rules_of(Settings(), {code: {"max_retries": 5}})
    assert rules == {**DEFAULT_RULES, 429: RetryRule(max_retries=5)}


def test_a_rule_keeps_what_the_transports_own_says() -> None:
    settings = Settings(retry=RetryPolicy(rules={429: RetryRule(initial=2, max_wait=200)}))
    assert rules_of(settings, {429: {"initial": 100}}) == {
        429: RetryRule(initial=100, max_wait=200)
    }


def test_a_rule_that_the_transport_has_not_is_the_documented_one_changed() -> None:
    settings = Settings(retry=RetryPolicy(rules={}))
    assert rules_of(settings, {500: {"initial": 2}, "my_code": {}}) == {
        500: RetryRule(max_retries=1, initial=2),
        "my_code": RetryRule(),
    }


def test_a_rule_as_an_object_replaces_it() -> None:
    settings = Settings(retry=RetryPolicy(rules={429: RetryRule(initial=2)}))
    assert rules_of(settings, {429: RetryRule(max_retries=1)}) == {429: RetryRule(max_retries=1)}


def test_empty_rules_mean_none() -> None:
    assert rules_of(Settings(), {}) == {}


def test_a_block_changes_the_calls_within(sync_rig: Rig, api: Simulator, url: str) -> None:
    client = sync_rig.client()
    api.enqueue(Reply.error(503), Reply.error(503), Reply.completion("fine"))
    with override(retry={"enabled": False}):
        assert client.post(url, json=CHAT).status == 503
    assert client.post(url, json=CHAT).status == 200


def test_an_inner_block_and_a_request_go_on_top(sync_rig: Rig, api: Simulator, url: str) -> None:
    client = sync_rig.client()
    api.enqueue(*[Reply.error(409)] * 9)
    one: Any = {"rules": {409: RetryRule(max_retries=1)}}
    two: Any = {"rules": {409: RetryRule(max_retries=2)}}
    three: Any = {"rules": {409: RetryRule(max_retries=3)}}
    with override(retry=one, stream={"retry": "never"}):
        with override(retry=two):
            client.post(url, json=CHAT)
            assert len(api.requests) == 3
            client.post(url, json=CHAT, extensions={"cline_transport": {"retry": three}})
            assert len(api.requests) == 7
        client.post(url, json=CHAT)
        assert len(api.requests) == 9


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
        rules: Any = {"rules": {400: RetryRule(max_retries=1)}}
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
