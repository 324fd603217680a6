# SPDX-License-Identifier: Apache-2.0
"""Which failures are retried, how often and after how long: decisions only, no clock, no sleep.

The rules are those of the error page ("When to retry", "Exponential backoff"), completed for what
gateways send besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NamedTuple, cast

from cline_transport._checks import FORBID_UNKNOWN, check_flags, check_number
from cline_transport.wire import NEVER_RETRIED, TRANSIENT, Code, as_mapping, as_status

__all__ = [
    "DEFAULT_RULES",
    "GiveUp",
    "RetryDecision",
    "RetryPolicy",
    "RetryRule",
    "RetryThrottle",
    "ServerAdvice",
    "StopReason",
    "read_server_advice",
    "rule_code",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """How one kind of failure is retried.

    Attributes:
        max_retries: A failure is retried while fewer retries than this were spent on the call.
        initial: Seconds before the first retry; the wait doubles with each retry of the call.
        multiplier: The factor from one wait to the next.
        max_wait: Seconds above which the wait does not grow.

    Raises:
        ValueError: A value is out of its range; the message gives the rule and the value.

    Examples:
        >>> rule = RetryRule(max_retries=5, initial=0.5)
        >>> [rule.wait(n) for n in range(4)]
        [0.5, 1.0, 2.0, 4.0]
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = FORBID_UNKNOWN

    max_retries: int = 3
    initial: float = 1.0
    multiplier: float = 2.0
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        if type(self.max_retries) is not int or self.max_retries < 0:
            raise ValueError(
                f"RetryRule.max_retries must be a whole number >= 0 (got {self.max_retries!r})"
            )
        check_number("RetryRule", "initial", self.initial, least=0)
        check_number("RetryRule", "multiplier", self.multiplier, least=1)
        check_number("RetryRule", "max_wait", self.max_wait, least=0)
        if self.initial > self.max_wait:
            raise ValueError(
                f"RetryRule.initial must be at most max_wait, {self.max_wait:g} s "
                f"(got {self.initial!r})"
            )

    def wait(self, retries: int) -> float:
        """Seconds to wait before a retry, `retries` having been spent already."""
        wait = self.initial
        for _ in range(retries):  # not a power: it could overflow where max_wait ends the growth
            if wait >= self.max_wait or wait == 0:
                break
            wait *= self.multiplier
        return min(wait, self.max_wait)


def _default_rules() -> dict[Code, RetryRule]:
    rules: dict[Code, RetryRule] = {code: RetryRule() for code in sorted(TRANSIENT, key=str)}
    rules[500] = RetryRule(max_retries=1)  # "Retry once after 1s"
    return rules


DEFAULT_RULES: Final[Mapping[Code, RetryRule]] = MappingProxyType(_default_rules())
"""The documented table: 3 retries from 1 s, doubling; 1 for 500; none for what is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed attempt is followed by another one.

    Attributes:
        enabled: `False`: one attempt, and the layer above may retry.
        rules: A rule for each HTTP status or error code; what has none is not retried. Given, it
            is the whole table: extend the documented one with `DEFAULT_RULES | {...}`.
        max_retry_after: Seconds; a longer `Retry-After` is not waited for, the error is delivered.
        deadline: Seconds for the whole call: no attempt starts, and no wait runs, past it.
        jitter: The share of a wait that is added at random; waits are never shortened.
        throttle: Stop retrying while half of 100 tokens are gone; a failure takes one, a success
            returns a tenth (gRPC A6). In the long run: where over one attempt in eleven fails.

    Raises:
        ValueError: A value is out of its range.

    Example:
        ```python
        RetryPolicy(rules=dict(DEFAULT_RULES) | {429: RetryRule(max_retries=6)}, deadline=120)
        ```
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = FORBID_UNKNOWN

    enabled: bool = True
    rules: Mapping[Code, RetryRule] = field(default_factory=lambda: DEFAULT_RULES)
    max_retry_after: float = 60.0
    deadline: float | None = None
    jitter: float = 0.25
    throttle: bool = True

    def __post_init__(self) -> None:
        check_flags(self, "enabled", "throttle")
        rules: dict[Code, RetryRule] = {}
        for code, rule in _items(self.rules):
            key = _rule_key(code)
            if key in rules:
                raise ValueError(f"RetryPolicy.rules names {key!r} twice, as text and as a number")
            if not isinstance(rule, RetryRule):
                raise ValueError(f"RetryPolicy.rules[{key!r}] must be a RetryRule (got {rule!r})")
            rules[key] = rule
        object.__setattr__(self, "rules", MappingProxyType(rules))
        check_number("RetryPolicy", "max_retry_after", self.max_retry_after, least=0, most=86_400)
        check_number("RetryPolicy", "jitter", self.jitter, least=0, most=1)
        if self.deadline is not None:
            check_number("RetryPolicy", "deadline", self.deadline, least=0)
            if self.deadline == 0:
                raise ValueError("RetryPolicy.deadline must be > 0 seconds, or None (got 0)")

    def rule_for(self, code: Code, status_code: int | None) -> RetryRule | None:
        """The rule for a failure: by its code, then by its status; some codes have none ever."""
        rule = self.rules.get(code)
        if rule is not None or code in NEVER_RETRIED:
            return rule
        for status in (as_status(code), status_code):
            if status is not None and status in self.rules:
                return self.rules[status]
        return None

    def decide(
        self,
        code: Code,
        status_code: int | None,
        *,
        retries: int,
        advice: ServerAdvice,
        elapsed: float,
        random: float,
        throttle: RetryThrottle,
        ceiling: int | None = None,
    ) -> RetryDecision | GiveUp:
        """Rule on one failed attempt.

        Args:
            code: The error's code.
            status_code: The response's status; `None` without a response.
            retries: Retries that the call has spent.
            advice: What the server said of retrying.
            elapsed: Seconds since the call began.
            random: A number in [0, 1) from which the jitter is drawn.
            throttle: The transport's token bucket; told of the failure.
            ceiling: An upper bound on the retries of this failure, below the rule's.

        Returns:
            `RetryDecision` with the seconds to wait, or `GiveUp` with the reason.
        """
        rule = self.rule_for(code, status_code)
        ends = advice.retry_after is not None and code not in NEVER_RETRIED
        if rule is None and status_code == 402 and ends:
            # Out of credits, with a time at which that ends: the server's own word for "wait".
            rule = self.rules.get(429)
        if rule is None and advice.should_retry:
            rule = RetryRule()
        transient = rule is not None and rule.max_retries > 0
        if transient and self.throttle:
            throttle.failed()
        if not self.enabled:
            return GiveUp("disabled")
        if rule is None or advice.should_retry is False:
            return GiveUp("not_retryable")
        limit = rule.max_retries if ceiling is None else min(ceiling, rule.max_retries)
        if retries >= limit:
            return GiveUp("exhausted" if transient else "not_retryable")
        if advice.retry_after is not None and advice.retry_after > self.max_retry_after:
            return GiveUp("retry_after_too_long")
        if self.throttle and throttle.closed:
            return GiveUp("throttled")
        least = max(rule.wait(retries), advice.retry_after or 0.0)
        wait = least * (1 + self.jitter * random)
        if self.deadline is not None:
            left = self.deadline - elapsed
            if least >= left:
                return GiveUp("deadline")
            # The jitter must not use up the time that the next attempt needs.
            wait = min(wait, least + (left - least) / 2)
        return RetryDecision(wait)


def _items(rules: object) -> Iterable[tuple[Code, object]]:
    if not isinstance(rules, Mapping):
        raise ValueError(f"RetryPolicy.rules must map codes to rules (got {rules!r})")
    return cast("Mapping[Code, object]", rules).items()


def rule_code(code: object) -> Code:
    """A rule's key, as a policy has it: `"429"` in a file, and `429`, are one.

    Examples:
        >>> rule_code("429"), rule_code("rate_limit_exceeded")
        (429, 'rate_limit_exceeded')
    """
    text = str(code).strip()
    return int(text) if text.isascii() and text.isdigit() else text


def _rule_key(code: object) -> Code:
    if isinstance(code, str) and code.strip():
        return rule_code(code)
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    raise ValueError(
        f"RetryPolicy.rules must be keyed by an HTTP status or an error code (got {code!r})"
    )


class RetryDecision(NamedTuple):
    """Wait this many seconds, then try again."""

    wait: float


StopReason = Literal[
    "disabled", "not_retryable", "exhausted", "retry_after_too_long", "throttled", "deadline",
    "not_replayable",
]  # fmt: skip


class GiveUp(NamedTuple):
    """Deliver the failure, for this reason."""

    reason: StopReason


class RetryThrottle:
    """A token bucket that ends retries in an outage (gRPC proposal A6, "Throttling").

    100 tokens; a failed attempt that could be retried costs 1, a success returns 0.1, and at half
    or below no retry is made: an outage then costs about one attempt per call. It holds no lock: a
    lost update between threads moves the count by one token.

    Examples:
        >>> throttle = RetryThrottle()
        >>> for _ in range(50): throttle.failed()
        >>> throttle.closed
        True
    """

    __slots__ = ("tokens",)

    MAX_TOKENS: Final = 100.0
    PER_SUCCESS: Final = 0.1

    def __init__(self) -> None:
        self.tokens = self.MAX_TOKENS

    @property
    def closed(self) -> bool:
        """Whether no retry may be made now."""
        return self.tokens <= self.MAX_TOKENS / 2

    def failed(self) -> None:
        """Count an attempt that failed in a way that a retry could mend."""
        self.tokens = max(0.0, self.tokens - 1.0)

    def succeeded(self) -> None:
        """Count an attempt that did not fail."""
        self.tokens = min(self.MAX_TOKENS, self.tokens + self.PER_SUCCESS)


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_MOST: Final = 1e9
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")


class ServerAdvice(NamedTuple):
    """What a response's headers say of retrying."""

    retry_after: float | None = None
    """Seconds from now; infinite where the number overflows."""
    should_retry: bool | None = None


def read_server_advice(
    headers: Mapping[str, str], now: float, metadata: Mapping[str, Any] = _NOTHING
) -> ServerAdvice:
    """Read `Retry-After` (RFC 9110, section 10.2.3), `retry-after-ms` and `x-should-retry`.

    Args:
        headers: The response's headers, looked up in lower case.
        now: Seconds since the epoch, for a date.
        metadata: `error.metadata`. OpenRouter repeats an upstream provider's wait there, as
            `retry_after_seconds` and in `headers`; in a stream there is no other place.

    Examples:
        >>> read_server_advice({"retry-after": "2"}, now=0.0).retry_after
        2.0
    """
    should = headers.get("x-should-retry", "").strip().lower()
    wait = _retry_after(headers, now)
    if wait is None and metadata:
        wait = _retry_after_inside(metadata, now)
    return ServerAdvice(wait, {"true": True, "false": False}.get(should))


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if _SECONDS.fullmatch(value):
            return float(value) / unit
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _retry_after_inside(metadata: Mapping[str, Any], now: float) -> float | None:
    headers = as_mapping(metadata.get("headers")) or {}
    told = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    seconds = metadata.get("retry_after_seconds")
    if isinstance(seconds, (int, float)) and 0 < seconds < _MOST:
        told.setdefault("retry-after", repr(seconds))
    return _retry_after(told, now)
