# SPDX-License-Identifier: Apache-2.0
"""One contender, asked all its questions, in a process of its own; its last line is JSON.

An instrumentation must not see another's clients, and only here the clock is the process's own.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import version

from .questions import CONTENDERS, questions_of
from .waits import WAITS

__all__ = ["answers"]

SETTINGS = ("CLINE_TRANSPORT_", "OTEL_", "TRACELOOP_", "OPENINFERENCE_", "OPENAI_", "LITELLM_")


def answers(contender: str) -> Iterator[tuple[str, str]]:
    """Each question's name and the answer."""
    for name in list(os.environ):
        if name.startswith(SETTINGS) or name.upper().endswith("_PROXY"):
            del os.environ[name]
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # not from the network
    warnings.simplefilter("ignore")
    with ExitStack() as stack:
        stack.enter_context(WAITS.installed())
        calls = import_module("tests.comparison.calls")
        traces = import_module("tests.comparison.traces")
        callers = import_module("tests.comparison.callers")
        simulator = import_module("cline_transport.simulator")
        api = stack.enter_context(simulator.Simulator())
        bench = None
        if contender in callers.CALLERS:
            bench = calls.Bench(api, callers.CALLERS[contender])
        traced = None
        for name in questions_of(contender):
            if name in calls.CALLS:
                yield name, calls.CALLS[name](bench)
                continue
            if traced is None:
                traced = traces.Traced(api, contender)
            yield name, traces.TRACES[name](traced)


if __name__ == "__main__":
    who = CONTENDERS[sys.argv[1]]
    told = {name: version(name) for name in who.packages}
    print(json.dumps({"answers": dict(answers(who.name)), "versions": told}))  # noqa: T201
