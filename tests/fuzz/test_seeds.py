# SPDX-License-Identifier: Apache-2.0
"""Each target's check over its seeds: what the fuzzer starts from, and what it has found."""

from __future__ import annotations

from typing import Any

import pytest

from .targets import SEEDS, TARGETS


def seeds() -> list[Any]:
    return [
        pytest.param(target, seed.read_bytes(), id=f"{target}-{seed.name}")
        for target in TARGETS
        for seed in sorted((SEEDS / target).iterdir())
    ]


@pytest.mark.parametrize(("target", "data"), seeds())
def test_a_seed_passes(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_each_target_has_seeds() -> None:
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)
