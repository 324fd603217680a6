"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No test depends on wall time. HYPOTHESIS_EXAMPLES raises the count for a longer run.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    database=None,
)
settings.load_profile("project")
