# SPDX-License-Identifier: Apache-2.0
"""The official SDK, as it is installed."""

import pytest

# What their assertions compare is told when they fail, as in a test module.
pytest.register_assert_rewrite("tests.clients.support", "tests.clients.stream_cases")
