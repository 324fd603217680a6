# SPDX-License-Identifier: Apache-2.0
"""Which failures are retried, how often, and after how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from cline_transport.retry import (
    DEFAULT_RULES,
    GiveUp,
    RetryDecision,
    RetryPolicy,
    RetryRule,
    RetryThrottle,
    ServerAdvice,
    read_server_advice,
)

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def decide(
    code: int | str,
    status: int | None = None,
    *,
    policy: RetryPolicy | None = None,
    retries: int = 0,
    advice: ServerAdvice | None = None,
    elapsed: float = 0.0,
    random: float = 0.0,
    throttle: RetryThrottle | None = None,
    ceiling: int | None = None,
) -> RetryDecision | GiveUp:
    return (policy or RetryPolicy()).decide(
        code,
        status if status is not None or not isinstance(code, int) else code,
        retries=retries,
        advice=advice or ServerAdvice(),
        elapsed=elapsed,
        random=random,
        throttle=throttle or RetryThrottle(),
        ceiling=ceiling,
    )


def waits(code: int | str, status: int | None = None) -> list[float]:
    """The waits of a failure that never ends."""
    found: list[float] = []
    while isinstance(decision := decide(code, status, retries=len(found)), RetryDecision):
        found.append(decision.wait)
    return found


@pytest.mark.parametrize("code", [429, 502, 503, 504, 408, 520, 521, 522, 523, 524, 529])
def test_a_transient_status_is_retried_three_times_from_one_second_doubling(code: int) -> None:
    assert waits(code) == [1.0, 2.0, 4.0]


def test_a_500_is_retried_once_after_one_second() -> None:
    assert waits(500) == [1.0]


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 405, 409, 422, 501, 505, 525, 599])
def test_any_other_status_is_not_retried(code: int) -> None:
    assert decide(code) == GiveUp("not_retryable")


@pytest.mark.parametrize(
    "code",
    [
        "rate_limit",
        "server_error",
        "stream_truncated",
        "connect_error",
        "connect_timeout",
        "connection_closed",
    ],
)
def test_a_transient_code_is_retried_like_a_502(code: str) -> None:
    assert waits(code) == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("code", ["read_timeout", "write_timeout", "pool_timeout", "ValueError"])
def test_a_timeout_that_may_have_been_billed_is_not_retried(code: str) -> None:
    assert waits(code) == []


@pytest.mark.parametrize("status", [200, 429, 500, 502, 503])
@pytest.mark.parametrize(
    "code", ["context_length_exceeded", "content_filter", "insufficient_quota"]
)
def test_what_no_retry_mends_is_not_retried_under_any_status(code: str, status: int) -> None:
    assert waits(code, status) == []


@pytest.mark.parametrize(("code", "expected"), [(429, 3), ("503", 3), (500, 1), ("400", 0)])
def test_a_number_as_stream_code_counts_as_that_status(code: int | str, expected: int) -> None:
    assert len(waits(code, 200)) == expected


def test_an_unknown_code_is_ruled_on_by_its_status() -> None:
    assert len(waits("overloaded", 503)) == 3
    assert len(waits("overloaded", 400)) == 0


def test_the_retries_spent_on_the_call_count_whatever_they_were_spent_on() -> None:
    assert decide(500, retries=1) == GiveUp("exhausted")
    assert isinstance(decide(502, retries=2), RetryDecision)


@pytest.mark.parametrize("random", [0.0, 0.3, 0.999])
def test_jitter_only_adds_and_at_most_a_quarter(random: float) -> None:
    decision = decide(502, retries=1, random=random)
    assert isinstance(decision, RetryDecision)
    assert decision.wait == pytest.approx(2.0 * (1 + 0.25 * random))


def test_a_disabled_policy_gives_up_and_says_so() -> None:
    assert decide(429, policy=RetryPolicy(enabled=False)) == GiveUp("disabled")


def test_an_empty_table_means_no_retries_and_not_the_default_table() -> None:
    assert decide(429, policy=RetryPolicy(rules={})) == GiveUp("not_retryable")


def test_a_table_can_extend_the_documented_one() -> None:
    policy = RetryPolicy(rules=dict(DEFAULT_RULES) | {409: RetryRule(max_retries=1, initial=0.1)})
    assert decide(409, policy=policy) == RetryDecision(0.1)
    assert decide(409, policy=policy, retries=1) == GiveUp("exhausted")


def test_a_code_that_is_never_retried_can_be_given_a_rule() -> None:
    policy = RetryPolicy(rules={"content_filter": RetryRule(max_retries=1)})
    assert decide("content_filter", 200, policy=policy) == RetryDecision(1.0)


def test_a_ceiling_lowers_a_rules_retries() -> None:
    assert decide("connect_error", ceiling=0) == GiveUp("exhausted")


# --- what the server says ---


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 -0000"}, 30.0),
        ({"retry-after-ms": "2500"}, 2.5),
        ({"retry-after-ms": "2500", "retry-after": "9"}, 2.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after-ms": "-1", "retry-after": "30"}, 30.0),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "9" * 400}, math.inf),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Tue, 32 Nov 2023 22:13:50 GMT"}, None),
        ({"retry-after": "1e999"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_its_three_forms(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert read_server_advice(headers, NOW).retry_after == seconds


def test_a_longer_retry_after_wins_over_the_table() -> None:
    assert decide(429, advice=ServerAdvice(retry_after=7)) == RetryDecision(7)


def test_a_shorter_retry_after_does_not() -> None:
    assert decide(429, retries=2, advice=ServerAdvice(retry_after=0.1)) == RetryDecision(4.0)


def test_jitter_is_added_to_retry_after_too() -> None:
    decision = decide(429, advice=ServerAdvice(retry_after=10), random=1.0)
    assert decision == RetryDecision(12.5)


@pytest.mark.parametrize("seconds", [61.0, 3600.0, math.inf])
def test_a_retry_after_beyond_the_cap_is_not_waited_for(seconds: float) -> None:
    assert decide(429, advice=ServerAdvice(seconds)) == GiveUp("retry_after_too_long")


def test_a_retry_after_of_exactly_the_cap_is() -> None:
    assert decide(429, advice=ServerAdvice(60.0)) == RetryDecision(60.0)


def test_a_402_that_carries_a_retry_after_is_retried_after_it() -> None:
    assert decide(402, advice=ServerAdvice(5.0)) == RetryDecision(5.0)
    assert decide(402, retries=3, advice=ServerAdvice(5.0)) == GiveUp("exhausted")


@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_no_other_permanent_error_is(code: int) -> None:
    assert decide(code, advice=ServerAdvice(5.0)) == GiveUp("not_retryable")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), (" TRUE ", True), ("false", False), ("maybe", None), ("", None)],
)
def test_x_should_retry_is_read(value: str, *, expected: bool | None) -> None:
    assert read_server_advice({"x-should-retry": value}, NOW).should_retry is expected


def test_x_should_retry_true_retries_what_the_table_does_not() -> None:
    advice = ServerAdvice(should_retry=True)
    assert decide(400, advice=advice) == RetryDecision(1.0)
    assert decide(400, retries=3, advice=advice) == GiveUp("exhausted")


def test_insufficient_quota_under_a_402_is_not_a_wait_for_credits() -> None:
    advice = ServerAdvice(retry_after=3)
    assert decide(402, advice=advice) == RetryDecision(3.0)
    assert decide("insufficient_quota", 402, advice=advice) == GiveUp("not_retryable")


def test_x_should_retry_true_is_obeyed_whatever_the_code() -> None:
    advice = ServerAdvice(should_retry=True)
    assert decide("context_length_exceeded", 400, advice=advice) == RetryDecision(1.0)


def test_x_should_retry_true_does_not_lift_the_tables_limit() -> None:
    assert decide(500, retries=1, advice=ServerAdvice(should_retry=True)) == GiveUp("exhausted")


def test_x_should_retry_false_ends_the_call() -> None:
    assert decide(429, advice=ServerAdvice(should_retry=False)) == GiveUp("not_retryable")


# --- deadline and throttle ---


def test_no_wait_runs_past_the_deadline() -> None:
    policy = RetryPolicy(deadline=10)
    assert decide(502, policy=policy, retries=1, elapsed=7.9) == RetryDecision(2.0)
    assert decide(502, policy=policy, retries=1, elapsed=8.0) == GiveUp("deadline")


def test_jitter_leaves_the_next_attempt_half_of_what_is_left() -> None:
    decision = decide(502, policy=RetryPolicy(deadline=10), elapsed=8.8, random=1.0)
    assert isinstance(decision, RetryDecision)
    assert decision.wait == pytest.approx(1.1)


def test_an_outage_ends_retries_at_half_of_the_tokens() -> None:
    throttle = RetryThrottle()
    made = sum(isinstance(decide(503, throttle=throttle), RetryDecision) for _ in range(1000))
    assert made == 49
    assert decide(503, throttle=throttle) == GiveUp("throttled")


def test_successes_bring_retries_back() -> None:
    throttle = RetryThrottle()
    throttle.tokens = 50.0
    assert isinstance(decide(503, throttle=throttle), GiveUp)
    for _ in range(25):
        throttle.succeeded()
    assert isinstance(decide(503, throttle=throttle), RetryDecision)


def test_the_bucket_has_a_top_and_a_bottom() -> None:
    throttle = RetryThrottle()
    throttle.succeeded()
    assert throttle.tokens == 100
    for _ in range(200):
        throttle.failed()
    assert throttle.tokens == 0


def test_errors_of_the_callers_own_making_do_not_throttle() -> None:
    throttle = RetryThrottle()
    for _ in range(200):
        decide(400, throttle=throttle)
    assert throttle.tokens == 100


def test_the_throttle_can_be_switched_off() -> None:
    throttle = RetryThrottle()
    throttle.tokens = 0
    policy = RetryPolicy(throttle=False)
    assert decide(503, policy=policy, throttle=throttle) == RetryDecision(1.0)


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_retries": -1}, "RetryRule.max_retries must be a whole number >= 0 (got -1)"),
        ({"max_retries": 1.5}, "RetryRule.max_retries must be a whole number >= 0 (got 1.5)"),
        ({"max_retries": True}, "RetryRule.max_retries must be a whole number >= 0 (got True)"),
        ({"initial": -0.5}, "RetryRule.initial must be a number >= 0 (got -0.5)"),
        ({"multiplier": 0}, "RetryRule.multiplier must be a number >= 1 (got 0)"),
        ({"max_wait": "long"}, "RetryRule.max_wait must be a number >= 0 (got 'long')"),
        ({"max_wait": math.nan}, "RetryRule.max_wait must be a number >= 0 (got nan)"),
    ],
)
def test_a_bad_rule_names_the_rule_and_the_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the message is compared whole
        RetryRule(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jitter": 2}, "RetryPolicy.jitter must be a number between 0 and 1 (got 2)"),
        ({"jitter": False}, "RetryPolicy.jitter must be a number between 0 and 1 (got False)"),
        (
            {"max_retry_after": -1},
            "RetryPolicy.max_retry_after must be a number between 0 and 86400 (got -1)",
        ),
        ({"deadline": -1}, "RetryPolicy.deadline must be a number >= 0 (got -1)"),
        ({"deadline": 0}, "RetryPolicy.deadline must be > 0 seconds, or None (got 0)"),
        (
            {"rules": {None: RetryRule()}},
            "RetryPolicy.rules must be keyed by an HTTP status or an error code (got None)",
        ),
        (
            {"rules": {" ": RetryRule()}},
            "RetryPolicy.rules must be keyed by an HTTP status or an error code (got ' ')",
        ),
        (
            {"rules": {429: RetryRule(), "429": RetryRule()}},
            "RetryPolicy.rules names 429 twice, as text and as a number",
        ),
    ],
)
def test_a_bad_policy_names_the_rule_and_the_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the message is compared whole
        RetryPolicy(**arguments)
    assert str(caught.value) == message


def test_a_wait_never_grows_beyond_its_maximum() -> None:
    rule = RetryRule(max_retries=10_000, max_wait=30)
    assert rule.wait(5) == 30
    assert rule.wait(9_999) == 30


def test_a_policys_table_cannot_be_changed() -> None:
    rules: Any = RetryPolicy().rules
    with pytest.raises(TypeError):
        rules[429] = RetryRule(max_retries=9)


@pytest.mark.parametrize("multiplier", [1e10, float("inf")])
@pytest.mark.parametrize("initial", [0.0, 1.0])
def test_growth_ends_at_max_wait_however_steep(multiplier: float, initial: float) -> None:
    rule = RetryRule(initial=initial, multiplier=multiplier)
    assert rule.wait(10_000) == (60.0 if initial else 0.0)


@pytest.mark.parametrize("rules", [3, None, [429]])
def test_rules_are_a_mapping(rules: Any) -> None:
    with pytest.raises(ValueError, match=r"RetryPolicy\.rules must map codes to rules"):
        RetryPolicy(rules=rules)


def test_of_rules() -> None:
    rules: Any = {429: 3}
    with pytest.raises(ValueError, match=r"RetryPolicy\.rules\[429\] must be a RetryRule \(got 3"):
        RetryPolicy(rules=rules)
