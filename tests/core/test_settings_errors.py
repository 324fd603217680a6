# SPDX-License-Identifier: Apache-2.0
"""What is said of settings that are wrong: name, source, value and rule, all in one error."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import cline_transport.httpx
from cline_transport import RetryRule, Settings, SettingsError, attach, openai

from .wrong_settings import HOSTS, KEY, message, unreadable

PREFIX = "CLINE_TRANSPORT_"
ROOT = "enabled, errors, hosts, limits, retry, stream, telemetry"
RETRY = "deadline, enabled, jitter, max_retry_after, rules, throttle"
RULE = "initial, max_retries, max_wait, multiplier"
VARIABLES = ", ".join(PREFIX + name.upper() for name in [*ROOT.split(", "), "config"])
CONCURRENCY = "limits.max_concurrency must be a whole number >= 1 or 'adaptive'"
STORAGE = (
    "limits.storage must be a URL that begins with one of redis://, rediss://, redis+unix://, "
    "redis+sentinel://, redis+cluster://, valkey://, valkeys://, valkey+unix://, "
    "valkey+sentinel://, valkey+cluster://"
)
BUFFERED = (
    "stream.retry must be 'before_content' or 'never' where on_error is 'observe', which holds "
    "nothing (got 'buffered', from "
)


# The variable without its prefix, its value, and what is said before its source.
IN_THE_ENVIRONMENT = [
    # A wrong type
    ("ENABLED", "perhaps", "enabled must be true or false (got 'perhaps'"),
    ("ENABLED", "2", "enabled must be true or false (got '2'"),
    ("ENABLED", "", "enabled must be true or false (got ''"),
    ("RETRY__THROTTLE", "maybe", "retry.throttle must be true or false (got 'maybe'"),
    ("RETRY__DEADLINE", "soon", "retry.deadline must be a number (got 'soon'"),
    ("RETRY__DEADLINE", "", "retry.deadline must be a number (got ''"),
    ("RETRY__JITTER", "true", "retry.jitter must be a number (got 'true'"),
    ("ERRORS__MAX_BODY_BYTES", "1.5", "errors.max_body_bytes must be a whole number (got '1.5'"),
    ("ERRORS__MAX_BODY_BYTES", "1 MB", "errors.max_body_bytes must be a whole number (got '1 MB'"),
    ("STREAM__HOLD_BYTES", "1e6", "stream.hold_bytes must be a whole number (got '1e6'"),
    ("TELEMETRY__GENAI", "none", "telemetry.genai must be true or false (got 'none'"),
    (
        "RETRY__RULES__429__MAX_RETRIES",
        "many",
        "retry.rules.429.max_retries must be a whole number (got 'many'",
    ),
    ("RETRY__DEADLINE__SECONDS", "3", "retry.deadline must be a number (got a table"),
    # Out of range
    ("RETRY__JITTER", "7", "retry.jitter must be a number between 0 and 1 (got 7.0"),
    ("RETRY__JITTER", "nan", "retry.jitter must be a number between 0 and 1 (got nan"),
    ("RETRY__JITTER", "-inf", "retry.jitter must be a number between 0 and 1 (got -inf"),
    ("RETRY__DEADLINE", "-1", "retry.deadline must be a number >= 0 (got -1.0"),
    ("RETRY__DEADLINE", "nan", "retry.deadline must be a number >= 0 (got nan"),
    ("RETRY__DEADLINE", "0", "retry.deadline must be > 0 seconds, or None (got 0"),
    (
        "RETRY__MAX_RETRY_AFTER",
        "inf",
        "retry.max_retry_after must be a number between 0 and 86400 (got inf",
    ),
    (
        "RETRY__RULES__429__MAX_RETRIES",
        "-1",
        "retry.rules.429.max_retries must be a whole number >= 0 (got -1",
    ),
    (
        "RETRY__RULES__MY_CODE__MULTIPLIER",
        "0.5",
        "retry.rules.my_code.multiplier must be a number >= 1 (got 0.5",
    ),
    (
        "ERRORS__MAX_BODY_BYTES",
        "-5",
        "errors.max_body_bytes must be a whole number of bytes >= 1 (got -5",
    ),
    ("STREAM__HOLD_BYTES", "0", "stream.hold_bytes must be a whole number of bytes >= 1 (got 0"),
    ("STREAM__HOLD_SECONDS", "-0.1", "stream.hold_seconds must be a number >= 0 (got -0.1"),
    (
        "STREAM__MAX_EVENT_BYTES",
        "0",
        "stream.max_event_bytes must be a whole number of bytes >= 1 (got 0",
    ),
    (
        "STREAM__ON_ERROR",
        "ignore",
        "stream.on_error must be 'normalize', 'raise' or 'observe' (got 'ignore'",
    ),
    (
        "STREAM__RETRY",
        "BUFFERED",
        "stream.retry must be 'before_content', 'buffered' or 'never' (got 'BUFFERED'",
    ),
    (
        "LIMITS__REQUESTS_PER_MINUTE",
        "0",
        "limits.requests_per_minute must be a number between 0.0001 and 1000000 (got 0.0",
    ),
    ("LIMITS__BURST", "0", "limits.burst must be a whole number between 1 and 1000000 (got 0"),
    ("LIMITS__LEASE", "0.5", "limits.lease must be a number between 1 and 3600 (got 0.5"),
    # A number or a word
    ("LIMITS__MAX_CONCURRENCY", "0", f"{CONCURRENCY} (got '0'"),
    ("LIMITS__MAX_CONCURRENCY", "-1", f"{CONCURRENCY} (got '-1'"),
    ("LIMITS__MAX_CONCURRENCY", "1.5", f"{CONCURRENCY} (got '1.5'"),
    ("LIMITS__MAX_CONCURRENCY", "1e3", f"{CONCURRENCY} (got '1e3'"),
    ("LIMITS__MAX_CONCURRENCY", "fast", f"{CONCURRENCY} (got 'fast'"),
    ("LIMITS__MAX_CONCURRENCY", "Adaptive", f"{CONCURRENCY} (got 'Adaptive'"),
    ("LIMITS__MAX_CONCURRENCY", "true", f"{CONCURRENCY} (got 'true'"),
    ("LIMITS__MAX_CONCURRENCY", "", f"{CONCURRENCY} (got ''"),
    ("LIMITS__MAX_CONCURRENCY__X", "3", f"{CONCURRENCY} (got a table"),
    ("LIMITS", '{"max_concurrency": true}', f"{CONCURRENCY} (got True"),
    # A URL, without what could be a password
    ("LIMITS__STORAGE", "", f"{STORAGE} (got ''"),
    ("LIMITS__STORAGE", "localhost:6379", f"{STORAGE} (got 'localhost:6379'"),
    ("LIMITS__STORAGE", "redis://", f"{STORAGE} (got 'redis://'"),
    ("LIMITS__STORAGE", "http://me:hunter2@host", f"{STORAGE} (got 'http://[redacted]@host'"),
    ("LIMITS__STORAGE", "http://:hun/ter2@host", f"{STORAGE} (got 'http://[redacted]@host'"),
    ("LIMITS__STORAGE", "http://:hun?ter2@host", f"{STORAGE} (got 'http://[redacted]'"),
    ("LIMITS__STORAGE", "http://:hun#ter2", f"{STORAGE} (got 'http://[redacted]'"),
    ("LIMITS__STORAGE", "me:hunter2@host:6379", f"{STORAGE} (got '[redacted]@host:6379'"),
    (
        "LIMITS__STORAGE",
        "http://host?password=hunter2&hunter2",
        f"{STORAGE} (got 'http://host?password=[redacted]&[redacted]'",
    ),
    ("LIMITS__STORAGE", f"http://{'host,' * 20}", f"{STORAGE} (got 'http://{'host,' * 10}ho…"),
    ("LIMITS__STORAGE", KEY, f"{STORAGE} (got [redacted]"),
    ("LIMITS__STORAGE", f"http://{KEY}", f"{STORAGE} (got [redacted]"),
    (
        "LIMITS",
        '{"storage": "http://me:hunter2@host"}',
        f"{STORAGE} (got 'http://[redacted]@host'",
    ),
    (
        "LIMITS",
        '{"storage": "redis://host?password=hunter2"',
        "limits must be a table of settings, in JSON (got [redacted]",
    ),
    (
        "LIMITS",
        "redis://:hun/ter2@host",
        "limits must be a table of settings, in JSON (got [redacted]",
    ),
    # JSON in one variable
    ("STREAM", "{", "stream must be a table of settings, in JSON (got '{'"),
    ("RETRY", "", "retry must be a table of settings, in JSON (got ''"),
    ("ERRORS", "[1]", "errors must be a table of settings, in JSON (got [1]"),
    ("TELEMETRY", "false", "telemetry must be a table of settings, in JSON (got False"),
    ("RETRY__RULES", "{", "retry.rules must be a table, in JSON (got '{'"),
    ("RETRY__RULES", "3", "retry.rules must be a table, in JSON (got 3"),
    ("RETRY__RULES__429", "3", "retry.rules.429 must be a table of settings, in JSON (got 3"),
    ("RETRY", '{"jitter": NaN}', "retry.jitter must be a number between 0 and 1 (got nan"),
    ("RETRY", '{"throttle": 1}', "retry.throttle must be true or false (got 1"),
    ("RETRY__RULES", '{"429": 3}', "retry.rules.429 must be a table of settings, in JSON (got 3"),
    # Hosts
    ("HOSTS", "*", f"hosts {HOSTS} (got '*'"),
    ("HOSTS", "https://api.cline.bot", f"hosts {HOSTS} (got 'https://api.cline.bot'"),
    ("HOSTS", "api.cline.bot/v1", f"hosts {HOSTS} (got 'api.cline.bot/v1'"),
    ("HOSTS", "a.example;b.example", f"hosts {HOSTS} (got 'a.example;b.example'"),
    ("HOSTS", "::1", f"hosts {HOSTS} (got '::1'"),
    ("HOSTS", "localhost:0", f"hosts {HOSTS} (got 'localhost:0'"),
    ("HOSTS", "localhost:65536", f"hosts {HOSTS} (got 'localhost:65536'"),
    ("HOSTS", '["a.example"]', f"hosts {HOSTS} (got '[\"a.example\"]'"),
    # Secrets in the wrong place
    ("ENABLED", KEY, "enabled must be true or false (got [redacted]"),
    ("RETRY__DEADLINE", f"Bearer {KEY}", "retry.deadline must be a number (got [redacted]"),
    ("HOSTS", KEY, f"hosts {HOSTS} (got [redacted]"),
    ("HOSTS", f"a.example,{KEY}", f"hosts {HOSTS} (got [redacted]"),
    ("HOSTS", "https://me:hunter2@a.example", f"hosts {HOSTS} (got [redacted]"),
    ("STREAM", KEY, "stream must be a table of settings, in JSON (got [redacted]"),
    (
        "STREAM__ON_ERROR",
        "9f86d081884c7d659a2feaa0c55ad015",
        "stream.on_error must be 'normalize', 'raise' or 'observe' (got [redacted]",
    ),
    # A long one
    ("ENABLED", "y" * 99, f"enabled must be true or false (got '{'y' * 59}…"),
]


@pytest.mark.parametrize(("name", "value", "told"), IN_THE_ENVIRONMENT)
def test_a_wrong_value_in_the_environment_is_told_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    assert message() == f"{told}, from the environment variable {PREFIX}{name})"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("RETRI", f"is no setting; did you mean {PREFIX}RETRY?"),
        ("STREAMS__RETRY", f"is no setting; did you mean {PREFIX}STREAM?"),
        ("CONFIGS", f"is no setting; known: {VARIABLES}"),
        ("API_KEY", f"is no setting; known: {VARIABLES}"),
        ("", f"is no setting; known: {VARIABLES}"),
        ("ENABLED__X", f"is no setting; did you mean {PREFIX}ENABLED?"),
        ("HOSTS__0", f"is no setting; did you mean {PREFIX}HOSTS?"),
    ],
)
def test_an_unknown_variable_is_told_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setenv(PREFIX + name, KEY)
    assert message() == f"{PREFIX}{name} {told} (from the environment)"


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("RETRY__NOPE", "retry.nope", f"known: {RETRY}"),
        ("RETRY__DEADLINES", "retry.deadlines", "did you mean retry.deadline?"),
        (
            "RETRY__RULES__429__RETRIES",
            "retry.rules.429.retries",
            "did you mean retry.rules.429.max_retries?",
        ),
        ("RETRY__RULES__429__X__Y", "retry.rules.429.x", f"known: {RULE}"),
        ("STREAM__ONERROR", "stream.onerror", "did you mean stream.on_error?"),
    ],
)
def test_so_is_an_unknown_name_within_a_branch(
    monkeypatch: pytest.MonkeyPatch, name: str, setting: str, told: str
) -> None:
    monkeypatch.setenv(PREFIX + name, KEY)
    source = f"the environment variable {PREFIX}{name}"
    assert message() == f"{setting} is no setting; {told} (from {source})"


IN_THE_FILE = [
    # A wrong type
    ('enabled = "perhaps"', "enabled must be true or false (got 'perhaps', "),
    ("enabled = 1", "enabled must be true or false (got 1, "),
    ("enabled = []", "enabled must be true or false (got [], "),
    ('enabled = {password = "hunter2"}', "enabled must be true or false (got a table, "),
    (
        "enabled = 2026-01-01",
        "enabled must be true or false (got datetime.date(2026, 1, 1), ",
    ),
    ("retry.throttle = 0", "retry.throttle must be true or false (got 0, "),
    ("retry.deadline = true", "retry.deadline must be a number (got True, "),
    ("retry.jitter = false", "retry.jitter must be a number (got False, "),
    ("retry.max_retry_after = [60]", "retry.max_retry_after must be a number (got [60], "),
    ("stream.hold_bytes = true", "stream.hold_bytes must be a whole number (got True, "),
    ("stream.hold_bytes = 0.5", "stream.hold_bytes must be a whole number (got 0.5, "),
    (
        "stream.retry = 3",
        "stream.retry must be 'before_content', 'buffered' or 'never' (got 3, ",
    ),
    ("errors.normalize = 1.0", "errors.normalize must be true or false (got 1.0, "),
    (
        "retry.rules.429.max_retries = true",
        "retry.rules.429.max_retries must be a whole number (got True, ",
    ),
    ("limits.cooldown = 1", "limits.cooldown must be true or false (got 1, "),
    (
        "limits.requests_per_second = true",
        "limits.requests_per_second must be a number (got True, ",
    ),
    ("limits.burst = true", "limits.burst must be a whole number (got True, "),
    ("limits.burst = 1.5", "limits.burst must be a whole number (got 1.5, "),
    ("limits.max_concurrency = true", f"{CONCURRENCY} (got True, "),
    ("limits.max_concurrency = false", f"{CONCURRENCY} (got False, "),
    ("limits.max_concurrency = 0", f"{CONCURRENCY} (got 0, "),
    ("limits.max_concurrency = 1.5", f"{CONCURRENCY} (got 1.5, "),
    ("limits.max_concurrency = [1]", f"{CONCURRENCY} (got [1], "),
    (f'limits.max_concurrency = "{KEY}"', f"{CONCURRENCY} (got [redacted], "),
    ("limits.storage = 3", "limits.storage must be text (got 3, "),
    ("limits.storage = true", "limits.storage must be text (got True, "),
    ("hosts = 3", "hosts must be a list of host names (got 3, "),
    ("hosts = {}", "hosts must be a list of host names (got a table, "),
    ("hosts = [3]", f"hosts {HOSTS} (got 3, "),
    ('hosts = [""]', f"hosts {HOSTS} (got '', "),
    # What is no table
    ("retry = 3", "retry must be a table of settings (got 3, "),
    ("stream = []", "stream must be a table of settings (got [], "),
    ('errors = ""', "errors must be a table of settings (got '', "),
    ("telemetry = true", "telemetry must be a table of settings (got True, "),
    ("retry.rules = [429]", "retry.rules must be a table (got [429], "),
    ("retry.rules.429 = 3", "retry.rules.429 must be a table of settings (got 3, "),
    # Out of range
    ("retry.jitter = nan", "retry.jitter must be a number between 0 and 1 (got nan, "),
    ("retry.deadline = -inf", "retry.deadline must be a number >= 0 (got -inf, "),
    ("retry.rules.429.initial = -1", "retry.rules.429.initial must be a number >= 0 (got -1.0, "),
    (
        "retry.rules.429.multiplier = nan",
        "retry.rules.429.multiplier must be a number >= 1 (got nan, ",
    ),
    (
        'retry.rules."" = {}',
        "retry.rules must be keyed by an HTTP status or an error code (got '', ",
    ),
    # Unknown names
    ("retries = 3", "retries is no setting; did you mean retry? ("),
    ("api_key = 3", f"api_key is no setting; known: {ROOT} ("),
    (f'api_key = "{KEY}"', f"api_key is no setting; known: {ROOT} ("),
    (f'"{KEY}" = true', f"[redacted] is no setting; known: {ROOT} ("),
    (
        "retry.max_retries = 3",
        "retry.max_retries is no setting; did you mean retry.max_retry_after? (",
    ),
    (f'retry.key = "{KEY}"', f"retry.key is no setting; known: {RETRY} ("),
    (
        "limits.concurrency = 1",
        "limits.concurrency is no setting; did you mean limits.max_concurrency? (",
    ),
    ("errors.max = 1", "errors.max is no setting; known: max_body_bytes, normalize ("),
    (
        "telemetry.attempts = 1",
        "telemetry.attempts is no setting; did you mean telemetry.attempt_spans? (",
    ),
    (
        "retry.rules.429.max_retry = 3",
        "retry.rules.429.max_retry is no setting; did you mean retry.rules.429.max_retries? (",
    ),
    (
        "retry.rules.my_code.xyz = 3",
        f"retry.rules.my_code.xyz is no setting; known: {RULE} (",
    ),
    # Secrets in the wrong place
    (
        f'stream.retry = "{KEY}"',
        "stream.retry must be 'before_content', 'buffered' or 'never' (got [redacted], ",
    ),
    (f'retry = ["{KEY}"]', "retry must be a table of settings (got [redacted], "),
    (f'hosts = ["a.example", "{KEY}"]', f"hosts {HOSTS} (got [redacted], "),
    ('hosts = ["ws://me:hunter2@a.example"]', f"hosts {HOSTS} (got [redacted], "),
    # Contradictions
    ('stream.on_error = "observe"\nstream.retry = "buffered"', BUFFERED.removesuffix("from ")),
    (
        "[retry.rules.429]\ninitial = 9\nmax_wait = 8",
        "retry.rules.429.initial must be at most max_wait, 8 s (got 9.0, ",
    ),
    (
        "retry.rules.429.initial = 61",
        "retry.rules.429.initial must be at most max_wait, 60 s (got 61.0, ",
    ),
]


@pytest.mark.parametrize(("text", "told"), IN_THE_FILE)
def test_a_wrong_value_in_the_file_is_told_with_its_path(
    settings_file: Path, text: str, told: str
) -> None:
    settings_file.write_text(text)
    others = "; max_wait from the default" if "initial = 61" in text else ""
    assert message() == f"{told}from the file {settings_file}{others})"


AS_ARGUMENTS: list[tuple[Any, str]] = [
    ({"enabled": None}, "enabled must be true or false (got None, "),
    ({"enabled": 0}, "enabled must be true or false (got 0, "),
    ({"retry": None}, "retry must be a table of settings (got None, "),
    ({"retry": RetryRule}, f"retry must be a table of settings (got {RetryRule!r}, "),
    ({"retry": {"deadline": True}}, "retry.deadline must be a number (got True, "),
    ({"retry": {"rules": None}}, "retry.rules must be a table (got None, "),
    ({"retry": {"rules": {429: 3}}}, "retry.rules.429 must be a table of settings (got 3, "),
    (
        {"retry": {"rules": {429: {"initial": -1}}}},
        "retry.rules.429.initial must be a number >= 0 (got -1.0, ",
    ),
    ({"retry": {1: 2}}, f"retry.1 is no setting; known: {RETRY} ("),
    ({"retri": KEY}, "retri is no setting; did you mean retry? ("),
    ({"hosts": {"a.example"}}, "hosts must be a list of host names (got {'a.example'}, "),
    ({"hosts": [None]}, f"hosts {HOSTS} (got None, "),
    (
        {"stream": {"on_error": "observe", "retry": "buffered"}},
        BUFFERED.removesuffix("from "),
    ),
    ({"limits": 3}, "limits must be a table of settings (got 3, "),
    ({"limits": {"max_concurrency": {"password": "hunter2"}}}, f"{CONCURRENCY} (got a table, "),
    ({"telemetry": KEY}, "telemetry must be a table of settings (got [redacted], "),
]


@pytest.mark.parametrize(("arguments", "told"), AS_ARGUMENTS)
def test_a_wrong_argument_is_told_as_one(arguments: Any, told: str) -> None:
    assert message(**arguments) == f"{told}from an argument)"


def test_the_source_is_the_one_whose_value_holds(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("retry.jitter = 7\n")
    told = "retry.jitter must be a number between 0 and 1 (got"
    assert message() == f"{told} 7.0, from the file {settings_file})"
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY", '{"deadline": 5}')
    assert message() == f"{told} 7.0, from the file {settings_file})"
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY", '{"deadline": 5, "jitter": 8}')
    assert message() == f"{told} 8.0, from the environment variable CLINE_TRANSPORT_RETRY)"
    monkeypatch.setenv("cline_transport_Retry__Jitter", "9")
    assert message() == f"{told} 9.0, from the environment variable cline_transport_Retry__Jitter)"
    assert message(retry={"jitter": 10}) == f"{told} 10.0, from an argument)"
    assert Settings(retry={"jitter": 1}).retry.jitter == 1  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_wrong_value_that_is_overruled_is_none(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text("retry.jitter = 7\nstream = 3\n")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__JITTER", "0.5")
    monkeypatch.setenv("CLINE_TRANSPORT_STREAM", "{}")
    assert Settings().retry.jitter == 0.5


def test_a_contradiction_names_the_sources_of_both(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text('stream.on_error = "observe"\n')
    monkeypatch.setenv("CLINE_TRANSPORT_STREAM__RETRY", "buffered")
    variable = "the environment variable CLINE_TRANSPORT_STREAM__RETRY"
    assert message() == f"{BUFFERED}{variable}; on_error from the file {settings_file})"


def test_a_contradiction_with_a_default_says_so(settings_file: Path) -> None:
    settings_file.write_text("retry.rules.429.max_wait = 0.5\n")
    assert message() == (
        "retry.rules.429.initial must be at most max_wait, 0.5 s "
        f"(got 1.0, from the default; max_wait from the file {settings_file})"
    )


def test_a_variable_that_is_overruled_whole_is_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY", "{")
    assert message(retry={"rules": {429: {"max_wait": 0.5}}}) == (
        "retry.rules.429.initial must be at most max_wait, 0.5 s "
        "(got 1.0, from the default; max_wait from an argument)"
    )


def test_what_follows_from_another_wrong_value_is_not_told(settings_file: Path) -> None:
    settings_file.write_text("[retry.rules.429]\ninitial = 100\nmax_wait = -1\n")
    assert message() == (
        f"retry.rules.429.max_wait must be a number >= 0 (got -1.0, from the file {settings_file})"
    )


def test_all_that_is_wrong_is_told_at_once(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(
        "[retry]\njitter = 7\nmax_retry_after = -1\nthrottle = 1\nnope = 1\n"
        "[retry.rules.429]\nmax_retries = true\ninitial = -1\n"
        "[retry.rules.502]\nmax_retries = -1\nmultiplier = 0\n"
    )
    monkeypatch.setenv("CLINE_TRANSPORT_ENABLED", "perhaps")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRI", "1")
    arguments: Any = {"stream": {"on_error": "x", "hold_bytes": 0, "hold_seconds": -1}}
    with pytest.raises(SettingsError) as caught:
        Settings(**arguments)
    file = f"the file {settings_file}"
    assert [(problem.setting, problem.source) for problem in caught.value.problems] == [
        ("CLINE_TRANSPORT_RETRI", "the environment"),
        ("enabled", "the environment variable CLINE_TRANSPORT_ENABLED"),
        ("retry.rules.429.max_retries", file),
        ("retry.throttle", file),
        ("retry.rules.502.max_retries", file),
        ("retry.rules.429.initial", file),
        ("retry.nope", file),
        ("retry.rules.502.multiplier", file),
        ("retry.max_retry_after", file),
        ("retry.jitter", file),
        ("stream.on_error", "an argument"),
        ("stream.hold_bytes", "an argument"),
        ("stream.hold_seconds", "an argument"),
    ]
    for problem in caught.value.problems:
        assert str(problem) in str(caught.value)


def test_the_error_can_be_asked_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__JITTER", "7")
    with pytest.raises(ValueError, match=r"retry\.jitter") as caught:
        Settings()
    error = caught.value
    assert isinstance(error, SettingsError)
    (problem,) = error.problems
    assert problem.setting == "retry.jitter"
    assert problem.source == "the environment variable CLINE_TRANSPORT_RETRY__JITTER"
    assert problem.value == "7.0"
    assert problem.rule == "must be a number between 0 and 1"


def test_the_error_goes_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__JITTER", "7")
    with pytest.raises(SettingsError) as caught:
        Settings()
    for twin in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):  # noqa: S301
        assert type(twin) is SettingsError
        assert str(twin) == str(caught.value)
        assert twin.problems == caught.value.problems


def test_a_secret_is_nowhere_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_STREAM", KEY)
    with pytest.raises(SettingsError) as caught:
        Settings(enabled=KEY, retry={"key": KEY})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


def of_httpx2(module: str, name: str) -> Any:
    """A class of the other family, which needs Python 3.11."""
    pytest.importorskip("httpx2")
    return getattr(importlib.import_module(module), name)()


MAKERS: dict[str, Callable[[], object]] = {
    "httpx.ClineTransport": cline_transport.httpx.ClineTransport,
    "httpx.AsyncClineTransport": cline_transport.httpx.AsyncClineTransport,
    "httpx2.ClineTransport": lambda: of_httpx2("cline_transport.httpx2", "ClineTransport"),
    "httpx2.AsyncClineTransport": lambda: of_httpx2(
        "cline_transport.httpx2", "AsyncClineTransport"
    ),
    "attach httpx": lambda: attach(httpx.Client()),
    "attach httpx2": lambda: attach(of_httpx2("httpx2", "AsyncClient")),
    "http_client": openai.http_client,
    "async_http_client": openai.async_http_client,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_it_is_raised_when_the_transport_is_made(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]
) -> None:
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__JITTER", "7")
    assert message(make) == (
        "retry.jitter must be a number between 0 and 1 "
        "(got 7.0, from the environment variable CLINE_TRANSPORT_RETRY__JITTER)"
    )


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_so_is_what_is_wrong_with_the_file(settings_file: Path, make: Callable[[], object]) -> None:
    assert message(make) == unreadable(settings_file, "TOML file, and there is none of this name")


def test_a_client_that_could_not_be_attached_to_is_as_it_was(settings_file: Path) -> None:
    client = httpx.Client()
    before = client._transport
    message(lambda: attach(client))
    assert client._transport is before
