"""`Settings`: every policy in one place, from arguments, the environment and a TOML file.

Precedence: arguments, then `CLINE_TRANSPORT_*` (nested with `__`), then the TOML file named by
`CLINE_TRANSPORT_CONFIG`, then the defaults.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast, get_args

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from cline_transport._settings_errors import (
    CONFIG,
    PREFIX,
    Problem,
    SettingsError,
    Sources,
    unknown_variables,
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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "ErrorSettings",
    "Settings",
    "StreamSettings",
    "TelemetrySettings",
    "known_names",
    "read_file",
]

StreamRetry = Literal["before_content", "buffered", "never"]


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
        if self.on_error == "observe" and self.retry == "buffered":
            raise ValueError(
                "StreamSettings.retry must be 'before_content' or 'never' where on_error is "
                "'observe', which holds nothing (got 'buffered')"
            )
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
        hosts: Where the transport is put under clients without code: host names, `*.example.com`
            for all below a domain, `host:port` for one port. Elsewhere it has no meaning.
        retry: `RetryPolicy`.
        errors: `ErrorSettings`.
        stream: `StreamSettings`.
        telemetry: `TelemetrySettings`.

    Raises:
        SettingsError: A value is wrong, a name is unknown, or the file cannot be read; it names the
            setting, where it came from, the value and what is allowed.

    Example:
        ```python
        Settings(retry=RetryPolicy(deadline=120))
        # the same: CLINE_TRANSPORT_RETRY__DEADLINE=120
        ```
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=False,
    )

    enabled: bool = True
    hosts: Annotated[tuple[str, ...], NoDecode] = ("api.cline.bot",)
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    errors: ErrorSettings = Field(default_factory=ErrorSettings)
    stream: StreamSettings = Field(default_factory=StreamSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    if not TYPE_CHECKING:  # the types of the arguments are those of the fields

        def __init__(self, **values: Any) -> None:
            problems = list(unknown_variables(known_names()))
            if problems:
                raise SettingsError(problems)
            try:
                super().__init__(**values)
            except SourceError as exc:  # a branch in one variable that is no JSON
                raise SettingsError([_not_json(exc)]) from None
            except ValidationError as exc:
                sources = Sources(values, read_file(), known_names())
                raise SettingsError(sources.explain(exc.errors())) from None

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        """`a.example,b.example` in the environment; names are compared in lower case."""
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        if not isinstance(value, (list, tuple)):
            return value
        return [_host(part) for part in cast("list[object]", value)]

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
        file = InitSettingsSource(settings_cls, init_kwargs=read_file())
        return (init_settings, env_settings, file)


def read_file() -> dict[str, Any]:
    """What the TOML file says that `CLINE_TRANSPORT_CONFIG` names; nothing without one.

    Raises:
        SettingsError: It is no file, cannot be read, or is no TOML.
    """
    name = os.environ.get(CONFIG)
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text("utf-8"))
    except FileNotFoundError:
        rule = "must name a TOML file, and there is none of this name"
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not in UTF-8"
        rule = f"must name a TOML file that can be read: {reason}"
    except tomllib.TOMLDecodeError as exc:
        rule = f"must name a file in TOML: {exc}"
    raise SettingsError([Problem(CONFIG, "the environment", repr(name), rule)])


def known_names() -> dict[str, frozenset[str]]:
    """The names of all settings: those of the root under `""`, and those of each branch."""
    known = {"": frozenset(Settings.model_fields)}
    branches = (RetryPolicy, ErrorSettings, StreamSettings, TelemetrySettings)
    for name, branch in zip(("retry", "errors", "stream", "telemetry"), branches, strict=True):
        known[name] = frozenset(field.name for field in fields(branch))
    known["retry.rules"] = frozenset(field.name for field in fields(RetryRule))
    return known


def _not_json(exc: SourceError) -> Problem:
    found = re.search(r'field "(\w+)"', str(exc))
    name = found.group(1) if found else ""
    variable = PREFIX + name.upper()
    return Problem(name, f"the environment variable {variable}", None, "must be a table in JSON")


_HOST: Final = re.compile(
    r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?"
)


def _host(value: object) -> str:
    name = value.strip().lower() if isinstance(value, str) else ""
    if not _HOST.fullmatch(name):
        raise ValueError(
            "Settings.hosts must be host names, such as 'api.cline.bot', '*.example.com' or "
            f"'localhost:8080' (got {value!r})"
        )
    return name


def _extend_rule(code: str, rule: object) -> object:
    """A partial rule keeps the other values of the rule that it changes."""
    default = DEFAULT_RULES.get(int(code) if code.isdigit() else code)
    if default is None or not isinstance(rule, Mapping):
        return rule
    known = {name: getattr(default, name) for name in RetryRule.__slots__}
    return known | dict(cast("Mapping[str, Any]", rule))
