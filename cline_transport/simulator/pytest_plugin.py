# SPDX-License-Identifier: Apache-2.0
"""The pytest fixture `cline_api`: a simulated Cline API for one test.

pytest loads this module in every session of everyone who has installed the package (entry point
`pytest11`), so it imports nothing but pytest until the fixture is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cline_transport.simulator._simulator import Simulator


@pytest.fixture
def cline_api() -> Iterator[Simulator]:
    """A started `Simulator`, stopped after the test.

    Raises `ImportError` if h11 (the extra `simulator`) is not installed.

    Example:
        ```python
        def test_a_rate_limit_is_reported(cline_api):
            cline_api.enqueue(Reply.error(429, retry_after=1))
            client = OpenAI(base_url=cline_api.base_url, api_key=cline_api.api_key)
        ```
    """
    from cline_transport.simulator._simulator import Simulator  # noqa: PLC0415 - see above

    with Simulator() as api:
        yield api
