# SPDX-License-Identifier: Apache-2.0
"""The matrix: every failure, in the order of the page's tables."""

from __future__ import annotations

from typing import Final

from .connections import CONNECTIONS
from .failure import Failure
from .http_errors import ADVICE, BODIES, ENDED, IN_200, STATUSES
from .streams import AFTER_CONTENT, BEFORE_CONTENT, CONFIGURED, ENCODED

SECTIONS: Final[dict[str, tuple[Failure, ...]]] = {
    "HTTP statuses and codes": STATUSES,
    "What the server says of retrying": ADVICE,
    "Error bodies": BODIES,
    "Errors in a JSON answer": IN_200,
    "Streams, before content": BEFORE_CONTENT,
    "Streams, after content": AFTER_CONTENT,
    "Streams in gzip, deflate, br and zstd": ENCODED,
    "Connections": CONNECTIONS,
    "Bodies that are sent once, deadline, settings": (*ENDED, *CONFIGURED),
}

FAILURES: Final = tuple(failure for section in SECTIONS.values() for failure in section)
