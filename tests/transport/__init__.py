# SPDX-License-Identifier: Apache-2.0
"""The transport over real sockets."""

import pytest

# What its assertions compare is told when they fail, as in a test module.
pytest.register_assert_rewrite("tests.transport.spans")
