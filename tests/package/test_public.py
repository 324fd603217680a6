# SPDX-License-Identifier: Apache-2.0
"""The public names, and what importing them loads."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import cline_transport

from . import signatures

NAMES = {
    "DEFAULT_RULES",
    "AsyncClineTransport",
    "Attempt",
    "CallRecord",
    "ClineTransport",
    "ErrorInfo",
    "ErrorSettings",
    "LimitSettings",
    "RetryPolicy",
    "RetryRule",
    "Settings",
    "SettingsError",
    "StreamSettings",
    "TelemetrySettings",
    "__version__",
    "attach",
    "call_record",
    "detach",
    "error_info",
    "override",
}


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter has after a statement."""
    return {name.partition(".")[0] for name in loaded_modules(statement)}


def loaded_modules(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603 -- our own interpreter
    return set(json.loads(out.stdout))


def test_the_public_names_are_these() -> None:
    assert set(cline_transport.__all__) == NAMES
    assert set(dir(cline_transport)) == NAMES
    for name in NAMES:
        assert getattr(cline_transport, name) is not None


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("httpx", {"AsyncClineTransport", "ClineTransport", "StreamError"}),
        ("httpx2", {"AsyncClineTransport", "ClineTransport", "StreamError"}),
        ("instrumentor", {"ClineTransportInstrumentor"}),
        ("openai", {"async_http_client", "http_client"}),
        (
            "simulator",
            {
                "ApiLimits",
                "Gate",
                "LimitCounts",
                "ReceivedRequest",
                "Reply",
                "Simulator",
                "serve_forever",
            },
        ),
    ],
)
def test_so_are_those_of_the_modules(module: str, names: set[str]) -> None:
    if module == "httpx2":
        pytest.importorskip("httpx2")
    assert set(importlib.import_module(f"cline_transport.{module}").__all__) == names


@pytest.mark.parametrize("module", signatures.MODULES)
def test_their_parameters_are_those_that_callers_know(module: str) -> None:
    if module.endswith("httpx2"):
        pytest.importorskip("httpx2")
    frozen = json.loads(signatures.FROZEN.read_text(encoding="utf-8"))
    assert signatures.of_module(module) == frozen[module]


def test_a_signature_shows_names_order_kinds_and_what_may_be_left_out() -> None:
    def function(a: int, b: int = 0, *more: int, c: int, d: int = 0, **rest: int) -> None: ...

    assert signatures.parameters(function) == "a, b=, *more, c, d=, **rest"

    def other(a: int, *, b: int = 1) -> None: ...

    assert signatures.parameters(other) == "a, *, b="


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cline_transport.nonsense  # noqa: B018


def test_a_name_is_what_it_says_whatever_was_imported_before() -> None:
    code = (
        "import cline_transport.openai, cline_transport.httpx, cline_transport.errors\n"
        "from cline_transport import attach, error_info, Settings\n"
        "assert callable(attach) and callable(error_info) and isinstance(Settings, type)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 -- our own interpreter


def test_importing_the_package_loads_no_client_and_no_pydantic() -> None:
    loaded = loaded_by("import cline_transport")
    assert not loaded & {"httpx", "httpx2", "openai", "pydantic", "opentelemetry", "anyio", "h11"}


def test_explaining_an_error_needs_neither() -> None:
    loaded = loaded_by("from cline_transport import error_info, ErrorInfo")
    assert not loaded & {"httpx", "httpx2", "openai", "pydantic", "opentelemetry"}


def test_the_clients_for_the_sdk_load_nothing_heavy_before_there_is_one() -> None:
    added = loaded_modules("import openai, cline_transport.openai") - loaded_modules(
        "import openai"
    )
    for heavy in ("pydantic_settings", "opentelemetry.sdk", "opentelemetry.instrumentation.httpx"):
        assert not any(name.startswith(heavy) for name in added), heavy
