# SPDX-License-Identifier: Apache-2.0
"""httpx alone, httpx2 alone, both, and `httpx2.alias_httpx()`: each way in, whichever is there."""
