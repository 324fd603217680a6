# SPDX-License-Identifier: Apache-2.0
"""`Settings`: every policy in one place, from arguments, the environment and a TOML file.

Precedence: arguments, then `CLINE_TRANSPORT_*` (nested with `__`), then the TOML file named by
`CLINE_TRANSPORT_CONFIG`, then the defaults.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticKnownError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cline_transport._checks import (
    FORBID_UNKNOWN,
    check_bytes,
    check_choice,
    check_flags,
    check_number,
)
from cline_transport._settings_errors import (
    CONFIG,
    PREFIX,
    Problem,
    SettingsError,
    Sources,
    located,
    own_message,
    parsing,
    shown,
    unknown_variables,
    without,
)
from cline_transport.inspection import OnError
from cline_transport.limits import LimitSettings
from cline_transport.retry import DEFAULT_RULES, RetryPolicy, RetryRule, rule_code

_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

__all__ = [
    "ErrorSettings",
    "Settings",
    "StreamSettings",
    "TelemetrySettings",
    "known_names",
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
        check_bytes("ErrorSettings.max_body_bytes", self.max_body_bytes)


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
        check_choice("StreamSettings.on_error", self.on_error, get_args(OnError))
        check_choice("StreamSettings.retry", self.retry, get_args(StreamRetry))
        if self.on_error == "observe" and self.retry == "buffered":
            raise ValueError(
                "StreamSettings.retry must be 'before_content' or 'never' where on_error is "
                "'observe', which holds nothing (got 'buffered')"
            )
        check_bytes("StreamSettings.hold_bytes", self.hold_bytes)
        check_number("StreamSettings", "hold_seconds", self.hold_seconds, least=0)
        check_bytes("StreamSettings.max_event_bytes", self.max_event_bytes)


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


class Settings(BaseSettings):
    """All settings of a transport.

    Attributes:
        enabled: `False` makes the transport transparent: same bytes, headers and exceptions.
        hosts: Where the transport is put under clients without code: host names, `*.example.com`
            for all below a domain, `host:port` for one port. Elsewhere it has no meaning.
        retry: `RetryPolicy`.
        errors: `ErrorSettings`.
        stream: `StreamSettings`.
        limits: `LimitSettings`.
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
    limits: LimitSettings = Field(default_factory=LimitSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    if not TYPE_CHECKING:  # pragma: no branch - the types of the arguments are those of the fields

        def __init__(self, **values: Any) -> None:
            file, problems = _read_file()
            problems += unknown_variables(known_names())
            try:
                super().__init__(**values)
            except ValidationError as exc:
                sources = Sources(values, file, known_names())
                problems += sources.explain(exc.errors(include_url=False))
            if problems:
                raise SettingsError(problems)

    @field_validator("enabled", mode="before")
    @classmethod
    def _check_flag(cls, value: object) -> object:
        if _is_number(value):
            raise PydanticKnownError("bool_type")
        return value

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        """`a.example,b.example` in the environment; names are compared in lower case."""
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        if not isinstance(value, (list, tuple)):
            raise PydanticKnownError("tuple_type")
        return [_host(part) for part in cast("list[object]", value)]

    @field_validator("retry", "errors", "stream", "limits", "telemetry", mode="wrap")
    @classmethod
    def _tell_all(
        cls, value: object, check: Callable[[object], object], info: ValidationInfo
    ) -> object:
        """Report all that is wrong in a branch; a policy itself stops at the first."""
        wrong = dict(_mistaken_kinds(_BRANCHES[str(info.field_name)], value))
        value = without(value, wrong)
        while True:
            try:
                branch = check(value)
            except ValidationError as exc:  # noqa: PERF203 -- each time there is less to check
                found = located(exc.errors(include_url=False), wrong)
                wrong.update(found)
                before, value = value, without(value, found)
                if value is before:  # what is wrong is not in it, or follows from what is told
                    break
            else:
                if not wrong:
                    return branch
                break
        raise ValidationError.from_exception_data(
            cls.__name__, cast("list[InitErrorDetails]", list(wrong.values()))
        )

    @field_validator("retry", mode="before")
    @classmethod
    def _extend_rules(cls, value: object) -> object:
        """`[retry.rules.429]` in a file changes that rule and leaves the documented others."""
        if not isinstance(value, Mapping):
            return value
        policy = dict(cast("Mapping[str, Any]", value))
        given = policy.get("rules")
        if isinstance(given, Mapping) and given:
            rules: dict[str, object] = {str(code): rule for code, rule in DEFAULT_RULES.items()}
            # A stronger source's come later: it may call 429 by text, another by number.
            for code, rule in cast("Mapping[object, object]", given).items():
                key = str(rule_code(code))
                rules[key] = _extend_rule(rules.get(key), rule)
            policy["rules"] = rules
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
        file = InitSettingsSource(settings_cls, init_kwargs=_read_file()[0])
        return (init_settings, _Environment(settings_cls), file)


_BRANCHES: Final[Mapping[str, type]] = {
    "retry": RetryPolicy,
    "errors": ErrorSettings,
    "stream": StreamSettings,
    "limits": LimitSettings,
    "telemetry": TelemetrySettings,
}


class _Environment(EnvSettingsSource):
    """The environment; what should be JSON and is none is left to the check of its setting."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        if isinstance(values.get("hosts"), dict):
            del values["hosts"]  # of variables beneath, which are unknown
        # A table in one variable; pydantic looks for it in those of the branches only.
        tables = [(values.get("retry"), "rules")]
        for table, name in tables:
            if isinstance(table, dict) and name in table:
                inner = table[name] = self.decode_complex_value(name, FieldInfo(), table[name])
                if name == "rules" and isinstance(inner, dict):
                    tables += [(inner, code) for code in cast("dict[str, object]", inner)]
        return values

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except (TypeError, ValueError):  # a table already, or no JSON
            return value


def _read_file() -> tuple[dict[str, Any], list[Problem]]:
    """What the TOML file says that `CLINE_TRANSPORT_CONFIG` names, and why it cannot be read."""
    name = os.environ.get(CONFIG)
    if not name:
        return {}, []
    try:
        return _toml.loads(Path(name).read_text("utf-8")), []
    except FileNotFoundError:
        rule = "must name a TOML file, and there is none of this name"
    except UnicodeDecodeError:
        rule = "must name a TOML file that can be read: it is not in UTF-8"
    except OSError as exc:
        rule = f"must name a TOML file that can be read: {exc.strerror}"
    except (ValueError, RecursionError) as exc:
        rule = f"must name a file in TOML: {parsing(exc)}"
    # A path looks much like a key; a bare word may be one.
    value = repr(name) if set(name) & set("./\\") else shown(name)
    return {}, [Problem(CONFIG, "the environment", value, rule)]


def known_names() -> dict[str, frozenset[str]]:
    """The names of all settings: those of the root under `""`, and those of each branch."""
    known = {"": frozenset(Settings.model_fields)}
    for name, branch in _BRANCHES.items():
        known[name] = frozenset(field.name for field in fields(branch))
    known["retry.rules"] = frozenset(field.name for field in fields(RetryRule))
    return known


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mistaken_kinds(
    branch: type, value: object
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Numbers as flags, and flags as numbers: pydantic takes 1 for true, and true for 1."""
    if not isinstance(value, Mapping):
        return
    given = cast("Mapping[str, object]", value)
    for field in fields(branch):
        path, inner = (field.name,), given.get(field.name)
        if field.type == "bool" and _is_number(inner):
            yield path, {"type": "bool_type", "loc": path, "input": inner}
        if field.name == "max_concurrency" and inner is not None:
            wrong = _no_concurrency(inner)
            if wrong is not None:
                context = {"error": wrong}
                yield path, {"type": "value_error", "loc": path, "input": inner, "ctx": context}
        elif str(field.type).startswith(("int", "float")) and isinstance(inner, bool):
            kind = f"{str(field.type).partition(' ')[0]}_type"
            yield path, {"type": kind, "loc": path, "input": inner}
        if field.name == "rules" and isinstance(inner, Mapping):
            for code, rule in cast("Mapping[str, object]", inner).items():
                for (name,), error in _mistaken_kinds(RetryRule, rule):
                    deep = ("rules", code, name)
                    yield deep, {**error, "loc": deep}


def _no_concurrency(value: object) -> ValueError | None:
    """Why a value is no `max_concurrency`; pydantic would tell both: no number, and no word."""
    text = value.strip() if isinstance(value, str) else ""
    given: Any = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else value
    try:
        LimitSettings(max_concurrency=given)
    except ValueError as exc:
        _, rule, _ = own_message(str(exc)) or ("", "", "")
        return ValueError(f"LimitSettings.max_concurrency {rule} (got {shown(value)})")
    return None


_HOST: Final = re.compile(
    r"(?![prs]k-[\w-]{16,}$)"  # a key
    r"((\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:(?P<port>\d{1,5}))?"
)


def _host(value: object) -> str:
    name = value.strip().lower() if isinstance(value, str) else ""
    found = _HOST.fullmatch(name)
    if not found or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError(
            "Settings.hosts must be host names, such as 'api.cline.bot', '*.example.com' or "
            f"'localhost:8080' (got {value!r})"
        )
    return name


def _extend_rule(known: object, rule: object) -> object:
    """A partial rule keeps the other values of the rule that it changes."""
    if not isinstance(rule, Mapping):
        return rule
    if isinstance(known, RetryRule):
        known = {name: getattr(known, name) for name in RetryRule.__slots__}
    kept = cast("Mapping[str, object]", known if isinstance(known, Mapping) else {})
    return {**kept, **cast("Mapping[str, object]", rule)}
