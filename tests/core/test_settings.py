# SPDX-License-Identifier: Apache-2.0
"""Settings from arguments, the environment and a file, in this order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from cline_transport import (
    ErrorSettings,
    LimitSettings,
    RetryPolicy,
    RetryRule,
    Settings,
    StreamSettings,
    TelemetrySettings,
    override,
)
from cline_transport._overrides import effective
from cline_transport.retry import DEFAULT_RULES
from cline_transport.settings import known_names

# Each setting, with a value for the file, the environment, an argument, a block and a request.
LEVELS: dict[str, tuple[Any, ...]] = {
    "enabled": (False, True, False, True, False),
    "hosts": (["file.example"], ["environment.example", "b.example"], ["argument.example"]),
    "retry.enabled": (False, True, False, True, False),
    "retry.rules.429.max_retries": (4, 5, 6, 7, 8),
    "retry.rules.429.initial": (2.5, 3.0, 3.5, 4.0, 4.5),
    "retry.rules.429.multiplier": (3.0, 3.5, 4.0, 4.5, 5.0),
    "retry.rules.429.max_wait": (11.0, 12.0, 13.0, 14.0, 15.0),
    "retry.rules.my_code.max_retries": (4, 5, 6, 7, 8),
    "retry.max_retry_after": (11.0, 12.0, 13.0, 14.0, 15.0),
    "retry.deadline": (110.0, 120.0, 130.0, 140.0, 150.0),
    "retry.jitter": (0.1, 0.2, 0.3, 0.4, 0.5),
    "retry.throttle": (False, True, False, True, False),
    "errors.normalize": (False, True, False, True, False),
    "errors.max_body_bytes": (1001, 1002, 1003, 1004, 1005),
    "stream.on_error": ("raise", "observe", "normalize", "raise", "observe"),
    "stream.retry": ("buffered", "never", "before_content", "buffered", "never"),
    "stream.hold_bytes": (1001, 1002, 1003, 1004, 1005),
    "stream.hold_seconds": (1.5, 2.5, 3.5, 4.5, 5.5),
    "stream.detect_truncation": (False, True, False, True, False),
    "stream.explicit": (False, True, False, True, False),
    "stream.max_event_bytes": (1001, 1002, 1003, 1004, 1005),
    "limits.cooldown": (False, True, False),
    "limits.requests_per_second": (1.5, 2.5, 3.5),
    "limits.requests_per_minute": (600.0, 60.5, 60.0),
    "limits.burst": (4, 5, 6),
    "limits.max_concurrency": ("adaptive", 10, "adaptive"),
    "limits.storage": ("redis://file", "rediss://me:pw@environment/1", "valkey://argument"),
    "limits.lease": (11.0, 12.0, 13.0),
    "telemetry.enabled": (False, True, False, True, False),
    "telemetry.attempt_spans": (False, True, False, True, False),
    "telemetry.genai": (False, True, False, True, False),
}
OF_A_CALL = [name for name, levels in LEVELS.items() if len(levels) == 5]


def table(name: str, value: Any) -> Any:
    """`{"retry": {"deadline": 5}}` for `retry.deadline` and 5."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def read(settings: Settings, name: str) -> Any:
    here: Any = settings
    for part in name.split("."):
        if hasattr(here, "keys"):
            here = here[int(part) if part.isdigit() else part]
        else:
            here = getattr(here, part)
    return list(here) if name == "hosts" else here


def variable(name: str) -> str:
    return "CLINE_TRANSPORT_" + name.replace(".", "__").upper()


def as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, cast("list[object]", value)))
    return value if isinstance(value, str) else json.dumps(value)


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert settings.enabled
    assert settings.retry == RetryPolicy()
    assert settings.retry.rules == DEFAULT_RULES
    assert settings.errors == ErrorSettings(normalize=True, max_body_bytes=1024 * 1024)
    assert settings.stream == StreamSettings(on_error="normalize", max_event_bytes=8 * 1024 * 1024)
    assert settings.limits == LimitSettings(cooldown=True, max_concurrency=None, storage=None)
    assert settings.telemetry == TelemetrySettings(enabled=True, attempt_spans=True)


def test_the_environment_sets_nested_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "false")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__DEADLINE", "12.5")
    monkeypatch.setenv("CLINE_TRANSPORT_STREAM__ON_ERROR", "raise")
    monkeypatch.setenv("CLINE_TRANSPORT_TELEMETRY__ENABLED", "0")
    settings = Settings()
    assert not settings.enabled
    assert settings.retry == RetryPolicy(deadline=12.5)
    assert settings.stream.on_error == "raise"
    assert not settings.telemetry.enabled


def test_the_file_sets_what_the_environment_does_not(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[retry]\njitter = 0.1\ndeadline = 30\n[errors]\nnormalize = false\n")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__DEADLINE", "5")
    settings = Settings()
    assert settings.retry == RetryPolicy(jitter=0.1, deadline=5)
    assert not settings.errors.normalize


def test_an_argument_wins_over_both(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.write_text("enabled = false\n")
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "false")
    assert Settings(enabled=True).enabled


def test_a_rule_in_a_file_changes_that_rule_only(settings_file: Path) -> None:
    settings_file.write_text(
        "[retry.rules.429]\nmax_retries = 5\n"
        "[retry.rules.500]\ninitial = 2\n"
        '[retry.rules."my_code"]\nmax_retries = 1\n'
    )
    rules = Settings().retry.rules
    assert rules[429] == RetryRule(max_retries=5)
    assert rules[500] == RetryRule(max_retries=1, initial=2)
    assert rules["my_code"] == RetryRule(max_retries=1)
    assert rules[502] == DEFAULT_RULES[502]


def test_so_does_a_rule_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__RULES__429__MAX_RETRIES", "7")
    assert Settings().retry.rules[429] == RetryRule(max_retries=7)
    monkeypatch.delenv("CLINE_TRANSPORT_RETRY__RULES__429__MAX_RETRIES")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__RULES", '{"502": {"max_retries": 9}}')
    assert Settings().retry.rules[502] == RetryRule(max_retries=9)


def test_so_does_a_mapping_as_argument_while_a_policy_is_taken_as_it_is() -> None:
    merged = Settings.model_validate({"retry": {"rules": {429: RetryRule(max_retries=8)}}})
    assert merged.retry.rules[429].max_retries == 8
    assert merged.retry.rules[502] == DEFAULT_RULES[502]
    exact = Settings(retry=RetryPolicy(rules={429: RetryRule()}))
    assert set(exact.retry.rules) == {429}


def test_empty_rules_in_a_file_mean_none(settings_file: Path) -> None:
    settings_file.write_text("[retry]\nrules = {}\n")
    assert Settings().retry.rules == {}


def test_every_setting_is_in_the_table_of_levels() -> None:
    known = known_names()
    leaves = {name for name in known[""] if name not in known}
    leaves |= {f"{branch}.{name}" for branch in known if branch for name in known[branch]}
    told = {name.replace(".429", "").replace(".my_code", "") for name in LEVELS}
    assert told == leaves - {"retry.rules"}


@pytest.mark.parametrize("name", LEVELS)
def test_the_file_goes_over_the_default(settings_file: Path, name: str) -> None:
    settings_file.write_text(f"{name} = {json.dumps(LEVELS[name][0])}\n")
    assert read(Settings(), name) == LEVELS[name][0]
    if ".my_code." not in name:
        assert read(Settings.model_construct(), name) != LEVELS[name][0]


@pytest.mark.parametrize("name", LEVELS)
def test_the_environment_goes_over_the_file(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings_file.write_text(f"{name} = {json.dumps(LEVELS[name][0])}\n")
    monkeypatch.setenv(variable(name), as_text(LEVELS[name][1]))
    assert read(Settings(), name) == LEVELS[name][1]


@pytest.mark.parametrize("name", LEVELS)
def test_the_environment_alone_goes_over_the_default(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(variable(name), as_text(LEVELS[name][0]))
    assert read(Settings(), name) == LEVELS[name][0]


@pytest.mark.parametrize("name", LEVELS)
def test_an_argument_goes_over_the_environment_and_the_file(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, environment, argument, *_ = LEVELS[name]
    settings_file.write_text(f"{name} = {json.dumps(file)}\n")
    monkeypatch.setenv(variable(name), as_text(environment))
    assert read(Settings(**table(name, argument)), name) == argument


@pytest.mark.parametrize("name", OF_A_CALL)
def test_a_block_goes_over_the_transports_settings_and_a_request_over_both(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, environment, argument, block, request = LEVELS[name]
    settings_file.write_text(f"{name} = {json.dumps(file)}\n")
    monkeypatch.setenv(variable(name), as_text(environment))
    settings = Settings(**table(name, argument))
    with override(**table(name, block)):
        assert read(effective(settings, {}), name) == block
        own = {"cline_transport": table(name, request)}
        assert read(effective(settings, own), name) == request
    assert read(effective(settings, {}), name) == argument


def test_the_sources_set_one_rule_together(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("[retry.rules.429]\nmax_retries = 1\ninitial = 2\n")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__RULES__429__INITIAL", "3")
    arguments: Any = {"retry": {"rules": {429: {"multiplier": 4}}}}
    settings = Settings(**arguments)
    assert settings.retry.rules[429] == RetryRule(max_retries=1, initial=3, multiplier=4)
    block: Any = {"rules": {"429": {"max_wait": 50}}}
    with override(retry=block):
        assert effective(settings, {}).retry.rules[429] == RetryRule(
            max_retries=1, initial=3, multiplier=4, max_wait=50
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLINE_TRANSPORT_RETRY", '{"rules": {"429": {"max_retries": 5}}}'),
        ("CLINE_TRANSPORT_RETRY__RULES", '{"429": {"max_retries": 5}}'),
        ("CLINE_TRANSPORT_RETRY__RULES__429", '{"max_retries": 5}'),
        ("CLINE_TRANSPORT_RETRY__RULES__429__MAX_RETRIES", "5"),
        ("cline_transport_retry__rules__429__max_retries", "5"),
    ],
)
def test_a_rule_in_the_environment_is_json_or_a_variable_and_leaves_the_files_others(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    settings_file.write_text("[retry.rules.429]\ninitial = 2\n[retry.rules.502]\nmax_retries = 9\n")
    monkeypatch.setenv(name, value)
    rules = Settings().retry.rules
    assert rules[429] == RetryRule(max_retries=5, initial=2)
    assert rules[502] == RetryRule(max_retries=9)
    assert rules[503] == DEFAULT_RULES[503]


def test_a_rules_code_is_one_in_any_spelling(settings_file: Path) -> None:
    settings_file.write_text('[retry.rules]\n" 429 " = {initial = 2}\n0429 = {max_retries = 9}\n')
    rules = Settings().retry.rules
    assert rules[429] == RetryRule(max_retries=9, initial=2)
    assert rules.keys() == DEFAULT_RULES.keys()


def test_no_deadline_is_null_in_json(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.write_text("retry.deadline = 5\n")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY", '{"deadline": null}')
    assert Settings().retry.deadline is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), (" 7 ", 7), ("+3", 3), ("adaptive", "adaptive"), ("1" * 18, int("1" * 18))],
)
def test_a_concurrency_is_a_number_or_a_word(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: object
) -> None:
    settings_file.write_text('limits.max_concurrency = "adaptive"\n')
    monkeypatch.setenv("CLINE_TRANSPORT_LIMITS__MAX_CONCURRENCY", text)
    found: object = Settings().limits.max_concurrency
    assert (type(found), found) == (type(value), value)
    monkeypatch.setenv("CLINE_TRANSPORT_LIMITS", json.dumps({"max_concurrency": 2}))
    assert Settings().limits.max_concurrency == value
    monkeypatch.delenv("CLINE_TRANSPORT_LIMITS__MAX_CONCURRENCY")
    assert Settings().limits.max_concurrency == 2
    monkeypatch.delenv("CLINE_TRANSPORT_LIMITS")
    assert Settings().limits.max_concurrency == "adaptive"


def test_no_concurrency_is_null_in_json(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("limits.max_concurrency = 5\n")
    monkeypatch.setenv("CLINE_TRANSPORT_LIMITS", '{"max_concurrency": null}')
    assert Settings().limits.max_concurrency is None


@pytest.mark.parametrize(
    ("told", "hosts"),
    [
        ("api.example", ("api.example",)),
        ("a.example,b.example", ("a.example", "b.example")),
        (" a.example , ,b.example, ", ("a.example", "b.example")),
        ("*.example.com", ("*.example.com",)),
        ("localhost:8080", ("localhost:8080",)),
        ("*.example.com:8443", ("*.example.com:8443",)),
        ("[::1]", ("[::1]",)),
        ("[2001:DB8::1]:443", ("[2001:db8::1]:443",)),
        ("127.0.0.1:65535", ("127.0.0.1:65535",)),
        ("API.Example", ("api.example",)),
        ("sk-proxy.example", ("sk-proxy.example",)),
        ("", ()),
    ],
)
def test_hosts_are_a_list_in_the_file_and_commas_apart_in_the_environment(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, told: str, hosts: tuple[str, ...]
) -> None:
    parts = [part for part in told.split(",") if part.strip()]
    settings_file.write_text(f"hosts = {json.dumps(parts)}\n")
    assert Settings().hosts == hosts
    assert Settings(hosts=tuple(parts)).hosts == hosts
    monkeypatch.setenv("CLINE_TRANSPORT_HOSTS", told)
    settings_file.write_text('hosts = ["other.example"]\n')
    assert Settings().hosts == hosts


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("Off", False)],
)
def test_a_flag_in_the_environment_has_many_names(
    monkeypatch: pytest.MonkeyPatch, text: str, value: object
) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", text)
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__THROTTLE", text)
    assert (Settings().enabled, Settings().retry.throttle) == (value, value)


def test_an_empty_name_of_the_file_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", "")
    assert Settings() == Settings.model_construct()


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORTS", "1")
    monkeypatch.setenv("ENABLED", "false")
    assert Settings().enabled


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = Settings()
    with pytest.raises(ValidationError):
        settings.enabled = False
    with pytest.raises(AttributeError):
        settings.stream.on_error = "raise"


def test_a_branch_checks_its_own_values() -> None:
    wrong: Any = "ignore"
    with pytest.raises(ValueError, match=r"StreamSettings\.on_error must be 'normalize', 'raise'"):
        StreamSettings(on_error=wrong)
