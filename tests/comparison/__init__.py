# SPDX-License-Identifier: Apache-2.0
"""What other tools do where ours does something, and what only they do: `docs/comparison.md`."""
