"""`Settings`: every policy in one place, from arguments, the environment and a TOML file.

Precedence: arguments, then `CLINE_TRANSPORT_*` (nested with `__`), then the TOML file named by
`CLINE_TRANSPORT_CONFIG`, then the defaults.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cline_transport.inspection import OnError
from cline_transport.retry import (
    DEFAULT_RULES,
    FORBID_UNKNOWN,
    RetryPolicy,
    RetryRule,
    check_flags,
    check_number,
)

__all__ = ["ErrorSettings", "Settings", "StreamSettings", "TelemetrySettings"]

StreamRetry = Literal["before_content", "buffered", "never"]

_CONFIG = "CLINE_TRANSPORT_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSettings:
    """How HTTP errors are delivered.

    Attributes:
        normalize: Bring every error body into the documented format.
        max_body_bytes: Bytes of an error body, or of a JSON answer that may be one, that are read.

    Raises:
        ValueError: `max_body_bytes` is below 1.

    Example:
        ```python
        Settings(errors=ErrorSettings(normalize=False))
        ```
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = FORBID_UNKNOWN

    normalize: bool = True
    max_body_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        check_flags(self, "normalize")
        _check_bytes("ErrorSettings.max_body_bytes", self.max_body_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How event streams are inspected.

    Attributes:
        on_error: What becomes of an error inside a 200 stream: `normalize` (rewritten so that
            every client sees it), `raise` (`StreamError` from the body iterator) or `observe`
            (bytes untouched, telemetry only).
        retry: How long a failed stream can be retried unseen: `before_content` holds what has no
            content until the first that has; `buffered` holds the whole stream, for batch work;
            `never` holds nothing. With `on_error="observe"` nothing is held.
        hold_bytes: Bytes without content that are held at most.
        hold_seconds: Seconds for which they are held at most, looked at when more of them come.
        detect_truncation: Count a stream as failed that ends with neither a finish reason nor
            `[DONE]`.
        explicit: Send `"stream": false` with a chat call that says nothing of streaming and
            accepts JSON, because the API streams by default.
        max_event_bytes: Bytes above which an event passes unread.

    Raises:
        ValueError: A value is out of its range.

    Example:
        ```python
        Settings(stream=StreamSettings(on_error="raise"))
        ```
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = FORBID_UNKNOWN

    on_error: OnError = "normalize"
    retry: StreamRetry = "before_content"
    hold_bytes: int = 256 * 1024
    hold_seconds: float = 30.0
    detect_truncation: bool = True
    explicit: bool = True
    max_event_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        check_flags(self, "detect_truncation", "explicit")
        _check_choice("StreamSettings.on_error", self.on_error, get_args(OnError))
        _check_choice("StreamSettings.retry", self.retry, get_args(StreamRetry))
        _check_bytes("StreamSettings.hold_bytes", self.hold_bytes)
        check_number("StreamSettings", "hold_seconds", self.hold_seconds, least=0)
        _check_bytes("StreamSettings.max_event_bytes", self.max_event_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What OpenTelemetry and the log are told.

    Attributes:
        enabled: Record spans, metrics and log events; `False` leaves the application's own
            instrumentation as it is. The lines in the log stay.
        attempt_spans: Record an HTTP span for each attempt, beneath the call's span.
        genai: Describe chat calls by the GenAI conventions; `False` leaves that to another
            instrumentation: the call's span is a plain one, and no `gen_ai.client.*` metric is
            recorded. Those that are known are recognised without it.

    Example:
        ```python
        Settings(telemetry=TelemetrySettings(attempt_spans=False))
        ```
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = FORBID_UNKNOWN

    enabled: bool = True
    attempt_spans: bool = True
    genai: bool = True

    def __post_init__(self) -> None:
        check_flags(self, "enabled", "attempt_spans", "genai")


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        *most, last = map(repr, allowed)
        raise ValueError(f"{name} must be {', '.join(most)} or {last} (got {value!r})")


def _check_bytes(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number of bytes >= 1 (got {value!r})")


class Settings(BaseSettings):
    """All settings of a transport.

    Attributes:
        enabled: `False` makes the transport transparent: same bytes, headers and exceptions.
        retry: `RetryPolicy`.
        errors: `ErrorSettings`.
        stream: `StreamSettings`.
        telemetry: `TelemetrySettings`.

    Raises:
        pydantic.ValidationError: A value is wrong; it names the setting, the value and the rule.
        FileNotFoundError: `CLINE_TRANSPORT_CONFIG` names no file.

    Example:
        ```python
        Settings(retry=RetryPolicy(deadline=120))
        # the same: CLINE_TRANSPORT_RETRY__DEADLINE=120
        ```
    """

    model_config = SettingsConfigDict(
        env_prefix="CLINE_TRANSPORT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=False,
    )

    enabled: bool = True
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    errors: ErrorSettings = Field(default_factory=ErrorSettings)
    stream: StreamSettings = Field(default_factory=StreamSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    @field_validator("retry", mode="before")
    @classmethod
    def _extend_rules(cls, value: object) -> object:
        """`[retry.rules.429]` in a file changes that rule and leaves the documented others."""
        if not isinstance(value, Mapping):
            return value
        policy = dict(cast("Mapping[str, Any]", value))
        rules = policy.get("rules")
        if isinstance(rules, str):  # CLINE_TRANSPORT_RETRY__RULES='{"429": {"max_retries": 5}}'
            try:
                rules = policy["rules"] = json.loads(rules)
            except ValueError as exc:
                raise ValueError(f"retry.rules must be a JSON object (got {rules!r})") from exc
        if isinstance(rules, Mapping) and rules:
            given = cast("Mapping[object, object]", rules)
            policy["rules"] = {str(code): rule for code, rule in DEFAULT_RULES.items()} | {
                str(code): _extend_rule(str(code), rule) for code, rule in given.items()
            }
        return policy

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, file; no `.env` and no secrets directory."""
        sources = (init_settings, env_settings)
        name = os.environ.get(_CONFIG)
        if not name:
            return sources
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(
                f"{_CONFIG} must name a TOML file (got {name!r}, which is not one)"
            )
        return (*sources, TomlConfigSettingsSource(settings_cls, toml_file=path))


def _extend_rule(code: str, rule: object) -> object:
    """A partial rule keeps the other values of the rule that it changes."""
    default = DEFAULT_RULES.get(int(code) if code.isdigit() else code)
    if default is None or not isinstance(rule, Mapping):
        return rule
    known = {name: getattr(default, name) for name in RetryRule.__slots__}
    return known | dict(cast("Mapping[str, Any]", rule))
