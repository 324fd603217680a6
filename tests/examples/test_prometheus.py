# SPDX-License-Identifier: Apache-2.0
"""The Prometheus example: its rules by promtool, and everything at once by a real Prometheus."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import httpx
import pytest

from cline_transport.simulator import ReceivedRequest, Reply, Simulator

HERE = Path(__file__).parents[2] / "examples" / "observability" / "prometheus"
DASHBOARD = json.loads((HERE / "grafana-dashboard.json").read_text())
PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
VARIABLE = re.compile(r"\$\{?(\w+)\}?")

P = ParamSpec("P")
T = TypeVar("T")

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="Prometheus is not installed"
)


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "--lint=all", "--lint-fatal", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_approves(arguments: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 -- an installed program, our own files
        [str(PROMTOOL), *arguments], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules(kind: str) -> list[str]:
    return re.findall(rf"- {kind}: (\S+)$", (HERE / "rules.yml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("kind", ["record", "alert"])
def test_every_rule_has_a_unit_test(kind: str) -> None:
    tests = (HERE / "rules_test.yml").read_text()
    subject = {"record": "expr", "alert": "alertname"}[kind]
    assert rules(kind)
    assert [name for name in rules(kind) if f"- {subject}: {name}\n" not in tests] == []


def test_every_alert_is_explained() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "reference" / "backends" / "prometheus.md").read_text()
    assert re.findall(r"^\| `(Cline\w+)`", page, re.MULTILINE) == rules("alert")


def test_the_panels_are_described_and_use_the_chosen_data_source() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    seen = [panel["id"] for panel in DASHBOARD["panels"]]
    assert sorted(seen) == sorted(set(seen))
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])


def test_what_the_alerts_say_is_on_the_dashboard() -> None:
    text = " ".join((HERE / "rules.yml").read_text().split())
    named = re.findall(r'[Ss]ee "([^"]+)"', text)
    assert named
    assert set(named) <= {panel["title"] for panel in panels()}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def substitute(text: str) -> str:
    """What Grafana does with variables when "All" is chosen; an unknown one is a KeyError."""
    values = {"__rate_interval": "10s", "__range": "10s"}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            values[variable["name"]] = variable["allValue"]
    return VARIABLE.sub(lambda match: values[match.group(1)], text)


def eventually(
    process: subprocess.Popen[bytes], look: Callable[P, T | None], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What `look` finds, once another process has brought it about: it can only be asked."""
    pause = threading.Event()
    end = time.monotonic() + 30
    while not (found := look(*args, **kwargs)):
        assert process.poll() is None, f"{process.args!r} ended"
        assert time.monotonic() < end, f"nothing yet for {args}"
        pause.wait(0.05)
    return found


@contextmanager
def running(
    log: Path, *command: str, **environment: str
) -> Generator[subprocess.Popen[bytes], None, None]:
    """A program whose output goes to a file; asked to stop at the end."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CLINE_TRANSPORT_")}
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 -- our own interpreter, or an installed program
            command, env=inherited | environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield process
            process.terminate()
            process.wait(timeout=10)
        finally:
            process.kill()  # does nothing to one that has ended


def search(log: Path, pattern: str) -> str | None:
    match = re.search(pattern, log.read_text())
    return match and match.group(1)


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


class Prometheus:
    """The HTTP API of a Prometheus, as far as Grafana uses it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.start = time.time()

    def ready(self) -> bool:
        return self.client.get("/-/ready").is_success

    def get(self, path: str, **params: str | float) -> Any:
        response = self.client.get(f"/api/v1/{path}", params=params)
        assert response.is_success, response.text
        return response.json()["data"]

    def good(self, expr: str) -> list[dict[str, str]]:
        """The labels of every series that was a number above 0 at some time."""
        found = self.get("query_range", query=expr, start=self.start, end=time.time(), step=0.5)
        return [
            series["metric"]
            for series in found["result"]
            if any(0 < float(value) < math.inf for _, value in series["values"])
        ]

    def alerts(self, *names: str) -> dict[str, Any] | None:
        """All alerts, once these are among them."""
        found = {alert["labels"]["alertname"]: alert for alert in self.get("alerts")["alerts"]}
        return found if found.keys() >= set(names) else None


def misbehave(api: Simulator, *, failing: int) -> None:
    """Of ten requests refuse one and fail so many."""

    def answer(_: ReceivedRequest) -> Reply | None:
        which = len(api.requests) % 10
        if which == 0:
            return Reply.error(402)
        return Reply.error(503) if which <= failing else None

    api.respond = answer


@needs_prometheus
def test_a_real_prometheus_has_data_for_every_panel_and_every_rule(
    cline_api: Simulator, tmp_path: Path
) -> None:
    misbehave(cline_api, failing=1)
    app_log, log = tmp_path / "app.log", tmp_path / "prometheus.log"
    with running(
        app_log,
        *(sys.executable, "-W", "error", str(HERE / "app.py")),
        *("--interval", "0.01", "--at-once", "4", "cline/ok"),
        CLINE_BASE_URL=cline_api.base_url,
        CLINE_API_KEY=cline_api.api_key,
        CLINE_METRICS_PORT="0",
        CLINE_TRANSPORT_RETRY__RULES='{"503": {"initial": 0.001}}',
        CLINE_TRANSPORT_LIMITS__MAX_CONCURRENCY="1",
        CLINE_TRANSPORT_LIMITS__STORAGE="redis://127.0.0.1:1",  # where nobody listens
    ) as app:
        config = (HERE / "prometheus.yml").read_text()
        config = replaced(config, " scrape_interval: 15s", " scrape_interval: 500ms")
        config = replaced(config, " evaluation_interval: 15s", " evaluation_interval: 500ms")
        target = eventually(app, search, app_log, r"metrics at http://(\S+)/metrics\n")
        config = replaced(config, "localhost:9464", target)
        (tmp_path / "prometheus.yml").write_text(config)
        shutil.copy(HERE / "rules.yml", tmp_path)
        with running(
            log,
            str(PROMETHEUS),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ) as server:
            where = eventually(server, search, log, r'"Listening on".* address=(\S+)\n')
            with httpx.Client(base_url=f"http://{where}", trust_env=False) as client:
                prometheus = Prometheus(client)
                eventually(server, prometheus.ready)
                # Retries first: after the outage that follows, the throttle allows none.
                eventually(server, prometheus.good, "rate(cline_client_retries_total[10s])")
                misbehave(cline_api, failing=5)
                every_panel_has_data(prometheus, server)
                every_variable_has_values(prometheus)
                every_rule_is_healthy(prometheus, server)
                the_alerts_see_what_happens(prometheus, server)
    assert (app.returncode, server.returncode) == (0, 0)
    assert "Traceback" not in app_log.read_text()


def every_panel_has_data(prometheus: Prometheus, server: subprocess.Popen[bytes]) -> None:
    for panel in panels():
        for query in panel["targets"]:
            expr = substitute(query["expr"])
            found = eventually(server, prometheus.good, expr)
            for label in re.findall(r"{{(\w+)}}", query["legendFormat"]):
                assert all(metric.get(label) for metric in found), (panel["title"], label)


def every_variable_has_values(prometheus: Prometheus) -> None:
    variables = [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    for variable in variables:
        query = variable["query"]["query"]
        assert variable["definition"] == query
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", substitute(query))
        assert match is not None, query
        selector, label = match.groups()
        assert prometheus.get(f"label/{label}/values", **{"match[]": selector}), query


def every_rule_is_healthy(prometheus: Prometheus, server: subprocess.Popen[bytes]) -> None:
    for name in rules("record"):
        eventually(server, prometheus.good, name)
    loaded = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == {*rules("record"), *rules("alert")}
    problems = [rule for rule in loaded if rule["health"] != "ok" or rule.get("lastError")]
    assert problems == []


def the_alerts_see_what_happens(prometheus: Prometheus, server: subprocess.Popen[bytes]) -> None:
    """They wait for minutes before they fire: pending is as far as they come here."""
    expected = ("ClineAccessRefused", "ClineRetryThrottleExhausted", "ClineLimitsNotShared")
    alerts = eventually(server, prometheus.alerts, *expected)
    assert {alert["state"] for alert in alerts.values()} == {"pending"}
    assert alerts["ClineAccessRefused"]["labels"]["error_type"] == "402"
    assert "add credits" in alerts["ClineAccessRefused"]["annotations"]["description"]
    assert "error expanding" not in json.dumps(alerts)
