# SPDX-License-Identifier: Apache-2.0
"""What a caller's type checker says of the public API: mypy and pyright, both strict.

Nothing here is run. `accepted` must pass; each line of `refused` must not: the comment that
silences its error is itself an error where there is none to silence.
"""
