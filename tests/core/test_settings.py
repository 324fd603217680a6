"""Settings from arguments, the environment and a file, in this order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cline_transport import (
    ErrorSettings,
    RetryPolicy,
    RetryRule,
    Settings,
    StreamSettings,
    TelemetrySettings,
)
from cline_transport.retry import DEFAULT_RULES


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 -- only to look at what is there

    for name in os.environ:
        if name.startswith("CLINE_TRANSPORT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cline_transport.toml"
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", str(path))
    return path


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert settings.enabled
    assert settings.retry == RetryPolicy()
    assert settings.retry.rules == DEFAULT_RULES
    assert settings.errors == ErrorSettings(normalize=True, max_body_bytes=1024 * 1024)
    assert settings.stream == StreamSettings(on_error="normalize", max_event_bytes=8 * 1024 * 1024)
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
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("[retry]\njitter = 0.1\ndeadline = 30\n[errors]\nnormalize = false\n")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__DEADLINE", "5")
    settings = Settings()
    assert settings.retry == RetryPolicy(jitter=0.1, deadline=5)
    assert not settings.errors.normalize


def test_an_argument_wins_over_both(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("enabled = false\n")
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "false")
    assert Settings(enabled=True).enabled


def test_a_rule_in_a_file_changes_that_rule_only(config: Path) -> None:
    config.write_text(
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


def test_empty_rules_in_a_file_mean_none(config: Path) -> None:
    config.write_text("[retry]\nrules = {}\n")
    assert Settings().retry.rules == {}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CLINE_TRANSPORT_ENABLED", "perhaps", ["enabled", "boolean", "perhaps"]),
        ("CLINE_TRANSPORT_RETRY__JITTER", "7", ["RetryPolicy.jitter", "between 0 and 1", "7.0"]),
        ("CLINE_TRANSPORT_RETRY__DEADLINE", "-1", ["RetryPolicy.deadline", ">= 0", "-1"]),
        ("CLINE_TRANSPORT_RETRY__NOPE", "1", ["retry.nope"]),
        (
            "CLINE_TRANSPORT_STREAM__ON_ERROR",
            "ignore",
            ["stream.on_error", "'normalize'", "ignore"],
        ),
        ("CLINE_TRANSPORT_STREAM__MAX_EVENT_BYTES", "0", ["max_event_bytes", ">= 1", "0"]),
        ("CLINE_TRANSPORT_ERRORS__MAX_BODY_BYTES", "-5", ["max_body_bytes", ">= 1", "-5"]),
        ("CLINE_TRANSPORT_RETRY__RULES", "{", ["retry.rules must be a JSON object", "'{'"]),
        ("CLINE_TRANSPORT_RETRY__RULES", '{"429": 3}', ["retry.rules.429"]),
    ],
)
def test_a_wrong_value_names_the_setting_the_value_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_name_in_the_file_is_an_error(config: Path) -> None:
    config.write_text("retries = 3\n")
    with pytest.raises(ValidationError, match="retries"):
        Settings()


def test_a_file_that_is_none_is_named(config: Path) -> None:
    with pytest.raises(FileNotFoundError, match="CLINE_TRANSPORT_CONFIG must name a TOML file"):
        Settings()


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
