# SPDX-License-Identifier: Apache-2.0
"""The transport within the OpenAI instrumentations that people have, each in its own environment.

`specification.py` says what holds within all of them, one module for each says what is its own.
"""

import pytest

pytest.register_assert_rewrite("tests.instrumentations.specification")
