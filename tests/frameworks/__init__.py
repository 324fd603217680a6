# SPDX-License-Identifier: Apache-2.0
"""The transport under the frameworks that people use, each in an environment of its own.

`python -m tests.frameworks` makes the environments and runs the tests there; where a framework is
not installed its module skips. `specification.py` says what holds under all of them, one module for
each has its adapter and what is its own.
"""

import pytest

pytest.register_assert_rewrite("tests.frameworks.specification")
