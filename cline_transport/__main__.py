# SPDX-License-Identifier: Apache-2.0
"""`python -m cline_transport`: the command `cline-transport`."""

from __future__ import annotations

import sys

from cline_transport.cli import main

if __name__ == "__main__":
    sys.exit(main())
