# SPDX-License-Identifier: Apache-2.0
"""Each test in each way that its framework can be asked in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # support.py needs the SDK
    from cline_transport.simulator import Simulator

    from .support import Adapter, Asker, Way


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "modes(names): what a framework is asked for: call, stream")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" not in metafunc.fixturenames:
        return
    from .support import Way  # noqa: PLC0415 -- see above

    asked: Any = metafunc
    adapter: type[Adapter] = asked.module.ADAPTER
    marked = metafunc.definition.get_closest_marker("modes")
    assert marked is not None, f"{metafunc.definition.name} says no modes"
    ways = [
        Way(colour, mode)
        for colour in ("sync", "async")
        for mode in marked.args[0]
        if colour == "async" or mode in adapter.sync_modes
    ]
    metafunc.parametrize("way", ways, ids=[way.id for way in ways])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no setting or key, but a test's own."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(
            ("CLINE_", "OPENAI_", "LANGCHAIN_", "LANGSMITH_", "OPENROUTER_", "OTEL_")
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> type[Adapter]:
    """The framework of the test's module."""
    asking: Any = request
    kind: type[Adapter] = asking.module.ADAPTER
    return kind


@pytest.fixture
def ask(adapter: type[Adapter], way: Way, cline_api: Simulator) -> Asker:
    from .support import Asker  # noqa: PLC0415 -- see above

    return Asker(adapter, way, cline_api)
