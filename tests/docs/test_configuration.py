# SPDX-License-Identifier: Apache-2.0
"""Configuration's page, table, file and schema: what the code says, all of it, and loadable."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cline_transport import DEFAULT_RULES, LimitSettings, RetryPolicy, Settings
from cline_transport._reference import CODE, RULES, Row, literal, rows, schema, toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"
COMMAND = "uv run python docs/make_configuration.py"
PAGE = (DOCS / "configuration.md").read_text(encoding="utf-8")
TABLE = (REFERENCE / "settings.md").read_text(encoding="utf-8")
ROWS = {row.name: row for row in rows()}
DEFAULTS = Settings.model_construct()


@pytest.mark.parametrize(
    "name", ["settings.md", "cline_transport.toml", "cline_transport.schema.json"]
)
def test_the_files_are_what_the_code_gives(name: str, tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "make_configuration.py"))
    assert script["main"](tmp_path) == 0
    made, held = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, REFERENCE))
    assert held == made, f"docs/reference/{name} is not what the code says: {COMMAND}"


def test_this_would_see_a_table_that_is_old(tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "make_configuration.py"))
    old = TABLE.replace("| number | `0.25` |", "| text | `0.25` |")
    assert old != TABLE
    (tmp_path / "settings.md").write_text(old, encoding="utf-8")
    script["main"].__globals__["REFERENCE"] = tmp_path
    assert dict(script["generated"]())["settings.md"] == TABLE


def test_the_table_has_a_row_for_every_setting() -> None:
    found = re.findall(r"^\| `([^`]+)` \|", TABLE, re.MULTILINE)
    assert found == list(ROWS)
    assert COMMAND in (DOCS / "make_configuration.py").read_text(encoding="utf-8")


def every_name() -> set[str]:
    """All that `Settings` takes, from its own schema."""
    made = Settings.model_json_schema()

    def walk(node: dict[str, Any], prefix: str) -> set[str]:
        node = made["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        if "properties" not in node:
            more = node.get("additionalProperties")
            own = {prefix.removesuffix(".")}
            return own | walk(more, f"{prefix}{CODE}.") if isinstance(more, dict) else own  # pyright: ignore[reportUnknownArgumentType]
        return set[str]().union(*(walk(n, f"{prefix}{k}.") for k, n in node["properties"].items()))

    return walk(made, "")


def test_no_setting_is_missing() -> None:
    assert set(ROWS) == every_name()
    assert len(ROWS) == 31


def test_a_row_is_read_from_the_code() -> None:
    assert ROWS["retry.deadline"] == Row(
        name="retry.deadline",
        type="number",
        unit="s",
        default=None,
        meaning="Seconds for the whole call: no attempt starts, and no wait runs, past it.",
    )
    assert ROWS["retry.deadline"].environment == "CLINE_TRANSPORT_RETRY__DEADLINE"
    assert ROWS["hosts"].type == "text list"
    assert ROWS["hosts"].default == ("api.cline.bot",)
    assert ROWS["retry.rules"].type == "table"
    assert ROWS["retry.rules"].default == DEFAULT_RULES
    assert ROWS["stream.retry"].type == "one of before_content, buffered, never"
    assert ROWS["errors.max_body_bytes"][1:4] == ("whole number", "bytes", 1024 * 1024)
    assert ROWS["telemetry.enabled"].type == "boolean"
    assert ROWS["limits.max_concurrency"][1:4] == ("whole number or adaptive", None, None)
    assert ROWS["limits.storage"][1:4] == ("text", None, None)
    assert ROWS["limits.requests_per_minute"].type == "number"
    assert ROWS["limits.burst"].type == "whole number"
    assert ROWS["limits.lease"][1:4] == ("number", "s", 10.0)
    assert ROWS["retry.rules.<code>.initial"][1:4] == ("number", "s", 1.0)


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_every_setting_has_a_meaning_of_one_paragraph(row: Row) -> None:
    assert re.fullmatch(r"(\S+ )+\S+\.", row.meaning), row.meaning
    assert "`True`" not in row.meaning
    assert "`False`" not in row.meaning
    assert (row.unit == "bytes") == row.name.endswith("_bytes")
    if row.name.endswith("_seconds"):
        assert row.unit == "s"


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_the_variable_of_a_row_sets_it(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    value: object = row.default
    if row.name == RULES:
        text = '{"429": {"max_retries": 4}}'
    elif row.name == "hosts":
        text = "a.example,b.example"
    elif isinstance(value, bool):
        text = str(not value).lower()
    elif row.type.startswith("one of"):
        text = row.type.split(", ")[-1]
    elif row.type == "text":
        text = "redis://localhost"
    else:
        text = (
            "1" if value is None else str(int(float(str(value)) * 2 or 1) if value != 0.25 else 1)
        )
    before = Settings()
    monkeypatch.setenv(row.environment.replace("<CODE>", "429"), text)
    assert Settings() != before
    changed, unchanged = in_effect(Settings()), in_effect(before)
    name = row.name.replace(CODE, "429")
    name = "retry.rules.429.max_retries" if name == RULES else name
    assert {n for n in changed if changed[n] != unchanged[n]} == {name}


def in_effect(settings: Settings) -> dict[str, object]:
    found: dict[str, object] = {"enabled": settings.enabled, "hosts": settings.hosts}
    for branch in ("errors", "stream", "limits", "telemetry"):
        values = asdict(getattr(settings, branch))
        found |= {f"{branch}.{name}": value for name, value in values.items()}
    for name in RetryPolicy.__slots__:
        if name != "rules":
            found[f"retry.{name}"] = getattr(settings.retry, name)
    for code, rule in settings.retry.rules.items():
        found |= {f"retry.rules.{code}.{name}": value for name, value in asdict(rule).items()}
    return found


def test_the_file_is_the_defaults(settings_file: Path) -> None:
    settings_file.write_text(toml(), encoding="utf-8")
    settings = Settings()
    assert settings == DEFAULTS
    assert settings.retry.rules == DEFAULT_RULES


def uncommented() -> str:
    """The file with what stands in it as a comment, but for its words."""
    return re.sub(r"^# (?=\w+ = |\[\S+\]$)", "", toml(), flags=re.MULTILINE)


def test_what_is_commented_in_it_may_be_used(settings_file: Path) -> None:
    settings_file.write_text(uncommented(), encoding="utf-8")
    settings = Settings()
    assert settings.retry == RetryPolicy(deadline=120)
    assert settings.limits == LimitSettings(
        requests_per_second=10,
        requests_per_minute=600,
        burst=2,
        max_concurrency=10,
        storage="redis://localhost:6379",
    )
    usual = {"retry": RetryPolicy(), "limits": LimitSettings()}
    assert settings.model_copy(update=usual) == DEFAULTS
    given = tomllib.loads(uncommented())["retry"]["rules"]
    assert given == {str(code): asdict(rule) for code, rule in DEFAULT_RULES.items()}


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_every_setting_is_in_it_beneath_its_meaning(row: Row) -> None:
    *branch, name = row.name.replace(CODE, "429").split(".")
    value: Any = tomllib.loads(uncommented())
    for part in [*branch, name]:
        value = value[part]
    lines = toml().partition(f"\n[{'.'.join(branch)}]\n")[2] if branch else toml()
    end = r"# See \[retry\.rules\.429\] below\." if row.name == RULES else rf"(?:# )?{name} = .*"
    found = re.search(rf"(?:^|\n\n)((?:# .*\n)+){end}(?:\n|$)", f"\n\n{lines}")
    assert found is not None
    words = " ".join(line.removeprefix("# ") for line in found.group(1).splitlines())
    assert words.endswith(row.meaning)
    assert max(map(len, toml().splitlines())) <= 100


def test_it_names_its_schema() -> None:
    first = toml().splitlines()[0]
    assert first == "#:schema ./cline_transport.schema.json"
    assert f"```toml\n{first}\n" in PAGE


KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def words(kind: str | list[str]) -> list[str]:
    return [kind] if isinstance(kind, str) else kind


def wrong(node: dict[str, Any], value: Any, name: str = "") -> list[str]:
    """What does not fit a schema, as far as ours goes."""
    kind = tuple(kind for name in words(node["type"]) for kind in KINDS[name])
    if not isinstance(value, kind) or (type(value) is bool and bool not in kind):
        return [name]
    if value not in node.get("enum", [value]):
        return [name]
    if isinstance(value, str) and not re.search(node.get("pattern", ""), value):
        return [name]
    given: Any = value  # its type is known to the schema alone
    found: list[str] = []
    if node["type"] == "array":
        for part in given:
            found += wrong(node["items"], part, name)
    if node["type"] == "object":
        for key, inner in given.items():
            known = node.get("properties", {}).get(key, node["additionalProperties"])
            found += [f"{name}.{key}"] if known is False else wrong(known, inner, f"{name}.{key}")
    return found


def test_the_schema_takes_the_file() -> None:
    assert wrong(schema(), tomllib.loads(toml())) == []
    assert wrong(schema(), tomllib.loads(uncommented())) == []


@pytest.mark.parametrize(
    "text",
    [
        "enable = true",
        "retry.jiter = 0",
        "retry.rules.429.retries = 3",
        'retry.rules.429.max_retries = "many"',
        "retry.rules.429 = 3",
        "retry.jitter = true",
        'stream.retry = "always"',
        "stream.hold_bytes = 1.5",
        'hosts = "api.cline.bot"',
        "hosts = [1]",
        "errors = 1",
        'limits.max_concurrency = "fast"',
        "limits.max_concurrency = 1.5",
        "limits.max_concurrency = true",
        "limits.storage = 1",
        'limits.burst = "adaptive"',
    ],
)
def test_the_schema_refuses_what_the_settings_do_not_have(text: str) -> None:
    name = text.partition(" = ")[0]
    assert wrong(schema(), tomllib.loads(text)) == [f".{name}"]


@pytest.mark.parametrize("value", ['"adaptive"', "10"])
def test_it_takes_a_number_or_a_word_where_the_settings_do(value: str) -> None:
    assert wrong(schema(), tomllib.loads(f"limits.max_concurrency = {value}")) == []


def nodes(node: dict[str, Any], name: str = "") -> dict[str, dict[str, Any]]:
    found = {name: node}
    inner = dict(node.get("properties", {}))
    if isinstance(node.get("additionalProperties"), dict):
        inner[CODE] = node["additionalProperties"]
    for key, child in inner.items():
        found |= nodes(child, f"{name}.{key}".removeprefix("."))
    return found


BRANCHES = ("", "retry", "errors", "stream", "limits", "telemetry")


def test_the_schema_says_what_the_rows_say() -> None:
    found = nodes(schema())
    assert set(found) == {*BRANCHES, f"{RULES}.{CODE}", *ROWS}
    for name, node in found.items():
        assert node["description"]
        if node["type"] == "object" and name != RULES:
            assert node["additionalProperties"] is False
        if name in ROWS:
            row = ROWS[name]
            assert node["description"] == row.meaning
            assert ("default" in node) == (row.default is not None)
            assert "default" not in node or wrong(node, node["default"]) == []
    assert found["stream.on_error"]["enum"] == ["normalize", "raise", "observe"]
    assert found["retry.deadline"]["type"] == "number"
    assert found["limits.max_concurrency"]["type"] == ["integer", "string"]
    assert found["limits.storage"]["type"] == "string"
    assert found["hosts"]["default"] == ["api.cline.bot"]
    assert found["errors"]["description"] == "How HTTP errors are delivered."


def test_the_schema_needs_no_more_than_editors_have() -> None:
    made = schema()
    assert made["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert made["title"] == "cline_transport.toml"
    for word in ('"$ref"', '"$defs"', '"anyOf"', '"null"'):
        assert word not in json.dumps(made)


@pytest.mark.parametrize(
    "line", re.findall(r"^export (.*)$", PAGE, re.MULTILINE), ids=lambda line: line[16:40]
)
def test_the_variables_on_the_page_are_good_ones(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [assignment] = shlex.split(line)
    name, _, value = assignment.partition("=")
    monkeypatch.setenv(name, value)
    assert Settings() != DEFAULTS


def test_the_excerpt_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cline_transport.toml").write_text('[stream]\non_error = "raise"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLINE_TRANSPORT_CONFIG", "cline_transport.toml")
    monkeypatch.setenv("CLINE_TRANSPORT_RETRY__DEADLINE", "120")
    command = [sys.executable, "-m", "cline_transport", "config"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    [excerpt] = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(excerpt.splitlines()) == 3
    for line in excerpt.splitlines():
        assert line in done.stdout.splitlines()


def test_a_value_as_toml_has_it() -> None:
    for value in (True, 3, 60.0, 1e22, float("inf"), 'a "b" \\ é', ["a", "b"], {"a": 1.5}):
        assert tomllib.loads(f"x = {literal(value)}")["x"] == value
