# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: the tests run in processes where `import httpx` gives httpx2.

`python -m pytest -p tests.families.alias ...`; it has to be loaded before anything imports httpx.
"""

from __future__ import annotations

import httpx2

httpx2.alias_httpx()
