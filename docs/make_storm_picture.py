# SPDX-License-Identifier: Apache-2.0
"""Simulate a retry storm for `docs/reliability.md`, and draw `docs/assets/storm-{light,dark}.svg`.

    uv run python docs/make_storm_picture.py           # simulate, and draw
    uv run python docs/make_storm_picture.py --draw    # only draw

Clients with our own `RetryPolicy` and `RetryThrottle` call a server that can do less than they ask
for. Nobody sleeps: events are taken from a heap, in the order of their time, and the seed is fixed,
so the figures are the same each time. The pictures show what the table says.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from html import escape
from itertools import count
from pathlib import Path
from typing import NamedTuple

from cline_transport.retry import GiveUp, RetryPolicy, RetryThrottle, ServerAdvice
from tests.pages import Marks, Theme, draw_themes, opening, table

DOCS = Path(__file__).parent
PAGE = DOCS / "reliability.md"
ASSETS = DOCS / "assets"

MARKS = Marks(PAGE, "storms")

CLIENTS = 200
CAPACITY = 400.0
"""Answers a second that the server is good for."""
QUEUE = 1.0
"""Seconds of work that it lets wait; what comes then it refuses with 503."""
REFUSAL = 0.15
"""What a refusal costs it, as a share of an answer: it was received and looked at as well."""

OVERLOAD, OVERLOAD_SECONDS = 1.2, 300.0
"""Calls, as a share of the capacity, and for how long."""
NORMAL, BEFORE, OUTAGE, AFTER = 0.85, 30.0, 30.0, 240.0
"""The same where the server answers each request with 503 for a while, and the times around it."""
SEED = 7

HEADINGS = (
    "Clients have", "Overload: attempts per call", "Useful throughput", "Calls failed",
    "Outage: attempts per call", "Time to recover",
)  # fmt: skip

POLICIES = {
    "no retries": RetryPolicy(enabled=False),
    "plain retries": RetryPolicy(throttle=False),
    "retries with the throttle (default)": RetryPolicy(),
}
OURS = "retries with the throttle (default)"

PICTURE = (
    "<picture>\n"
    '  <source media="(prefers-color-scheme: dark)" srcset="assets/storm-dark.svg">\n'
    '  <img alt="Attempts per call, useful throughput and time to recover, by what clients have" '
    'src="assets/storm-light.svg">\n'
    "</picture>"
)


class Server:
    """Serves one request after another, and refuses those that would wait too long."""

    def __init__(self, capacity: float, outage: tuple[float, float]) -> None:
        self._capacity = capacity
        self._outage = outage
        self._busy = 0.0

    def serve(self, now: float) -> float | None:
        """The time at which a request is answered; `None`: it is refused."""
        begin, end = self._outage
        if begin <= now < end:
            self._busy = end
            return None
        waiting = max(self._busy, now)
        if waiting - now > QUEUE:
            self._busy = waiting + REFUSAL / self._capacity
            return None
        self._busy = waiting + 1 / self._capacity
        return self._busy


@dataclass
class Storm:
    """What became of a simulated time; the lists have an element for each second."""

    seconds: float
    capacity: float
    calls: int = 0
    failed: int = 0
    attempts: list[int] = field(default_factory=list[int])
    refused: list[int] = field(default_factory=list[int])
    served: list[int] = field(default_factory=list[int])

    def amplification(self, begin: float = 0.0, end: float | None = None) -> float:
        """Attempts for each call in a part of the time; calls come evenly."""
        seconds = self.attempts[int(begin) : int(self.seconds if end is None else end)]
        return sum(seconds) / (self.calls * len(seconds) / self.seconds)

    @property
    def goodput(self) -> float:
        """Requests served, as a share of what the server is good for."""
        return sum(self.served) / (self.capacity * self.seconds)

    def recovery(self, since: float) -> float | None:
        """Seconds until nothing is refused any more; `None`: it still is at the end."""
        last = max(second for second, refused in enumerate(self.refused) if refused)
        return None if last >= self.seconds - 5 else max(0.0, last + 1 - since)


def simulate(
    policy: RetryPolicy,
    *,
    load: float,
    seconds: float,
    outage: tuple[float, float] = (0.0, 0.0),
    clients: int = CLIENTS,
    capacity: float = CAPACITY,
    seed: int = SEED,
) -> Storm:
    """Let clients call; each has a throttle of its own, as each transport has.

    Args:
        policy: How they retry.
        load: Calls, as a share of the capacity; they come at random (a Poisson process).
        seconds: For how long.
        outage: From when to when each request is answered with 503.
        clients: How many there are.
        capacity: Requests that the server can answer in a second.
        seed: Of the random numbers.
    """
    rng = random.Random(seed)  # noqa: S311 - chance that can be repeated
    server = Server(capacity, outage)
    throttles = [RetryThrottle() for _ in range(clients)]
    storm = Storm(seconds, capacity)
    for counts in (storm.attempts, storm.refused, storm.served):
        counts.extend([0] * int(seconds))
    order = count()
    # When, a number that breaks ties, the client, when the call began, and its retries so far;
    # -1 for the answer.
    events: list[tuple[float, int, int, float, int]] = []
    at = 0.0
    while (at := at + rng.expovariate(load * capacity)) < seconds:
        storm.calls += 1
        events.append((at, next(order), rng.randrange(clients), at, 0))
    while events:  # in order of time already: a heap
        now, _, client, began, retries = heappop(events)
        if now >= seconds:
            break
        throttle = throttles[client]
        if retries < 0:
            storm.served[int(now)] += 1
            if policy.throttle:
                throttle.succeeded()
            continue
        storm.attempts[int(now)] += 1
        answered = server.serve(now)
        if answered is not None:
            heappush(events, (answered, next(order), client, began, -1))
            continue
        storm.refused[int(now)] += 1
        ruling = policy.decide(
            503,
            503,
            retries=retries,
            advice=ServerAdvice(),
            elapsed=now - began,
            random=rng.random(),
            throttle=throttle,
        )
        if isinstance(ruling, GiveUp):
            storm.failed += 1
        else:
            heappush(events, (now + ruling.wait, next(order), client, began, retries + 1))
    return storm


class Row(NamedTuple):
    """A line of the table, as text."""

    name: str
    attempts: str
    goodput: str
    failed: str
    outage: str
    recovery: str


def row_of(name: str) -> Row:
    """The figures of one policy."""
    over = simulate(POLICIES[name], load=OVERLOAD, seconds=OVERLOAD_SECONDS)
    end = BEFORE + OUTAGE
    out = simulate(POLICIES[name], load=NORMAL, seconds=end + AFTER, outage=(BEFORE, end))
    recovery = out.recovery(end)
    return Row(
        name=name,
        attempts=f"{over.amplification():.2f}",
        goodput=f"{over.goodput:.0%}",
        failed=f"{over.failed / over.calls:.0%}",
        outage=f"{out.amplification(BEFORE, end):.2f}",
        recovery=f"over {AFTER:.0f} s" if recovery is None else f"{recovery:.0f} s",
    )


def text_of(rows: Sequence[Row]) -> str:
    """What stands between the marks of the page."""
    lines = table([HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows])
    return "\n".join(
        [
            f"{CLIENTS} clients call a server that can give {CAPACITY:.0f} answers a second. It "
            f"lets {QUEUE:.0f} s of work wait",
            "and refuses the rest with 503; a refusal costs it "
            f"{REFUSAL:.0%} of what an answer does.",
            "",
            PICTURE,
            "",
            *lines,
            "",
            f"*Overload*: for {OVERLOAD_SECONDS:.0f} s there are {OVERLOAD:.0%} of the calls that "
            "the server can answer, and so at least",
            f"{1 - 1 / OVERLOAD:.0%} fail. *Useful throughput*: requests answered, as a share of "
            "what the server is good for.",
            f"*Outage*: at a load of {NORMAL:.0%} each request is answered with 503 for "
            f"{OUTAGE:.0f} s. *Time to recover*: from its end",
            f"until nothing is refused any more; {AFTER:.0f} s are simulated.",
            "",
            "Simulated by `docs/make_storm_picture.py` with the `RetryPolicy` and the "
            "`RetryThrottle` of this package.",
            "The clock is simulated too and the seed is fixed: the figures are the same each time.",
        ]
    )


def read_rows(page: str) -> list[Row]:
    """The table of the page."""
    return [Row(*cells) for cells in MARKS.rows(page)]


WIDTH, MARGIN = 800, 20
TOP, STEP, BAR = 84, 36, 16
"""The first row's middle, from row to row, and a bar's height."""
FULL = 108
"""The length of a whole bar."""


class Column(NamedTuple):
    """A figure that is drawn: where, to which number, and which numbers are good."""

    name: str
    heading: str
    x: int
    most: float
    unit: str
    least_good: float
    most_good: float


COLUMNS = (
    Column("attempts", "Attempts per call", 260, 4, "", 0, 1.2),
    Column("goodput", "Useful throughput", 440, 100, "%", 90, 100),
    Column("recovery", "Recovery", 620, 60, " s", 0, 10),
)


def draw(rows: Sequence[Row], theme: Theme) -> str:
    """The picture as SVG: no script, no font, no outside reference."""
    height = TOP + STEP * (len(rows) - 1) + 32
    title = "Attempts per call and useful throughput in an overload: " + ", ".join(
        f"{row.name} {row.attempts} and {row.goodput}" for row in rows
    )  # fmt: skip
    parts = [
        *opening(title, WIDTH, height, theme),
        f'<text class="b" x="{MARGIN}" y="30">Clients have</text>',
        *_grid(height - 16, theme),
    ]
    for number, row in enumerate(rows):
        parts += _line(row, TOP + STEP * number, theme)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(bottom: int, theme: Theme) -> Iterator[str]:
    for column in COLUMNS:
        yield f'<text class="b" x="{column.x}" y="30">{column.heading}</text>'
        for share in (0, 0.5, 1):
            x = column.x + round(FULL * share)
            told = f"{column.most * share:g}{column.unit}"
            yield f'<text class="q" x="{x}" y="52" text-anchor="middle">{told}</text>'
            yield f'<path d="M{x}.5 60V{bottom}" stroke="{theme.grid}"/>'


def _line(row: Row, y: int, theme: Theme) -> Iterator[str]:
    weight = ' class="b"' if row.name == OURS else ""
    yield f'<text{weight} x="{MARGIN}" y="{y + 4.5}">{escape(row.name)}</text>'
    for column in COLUMNS:
        told: str = getattr(row, column.name)
        beyond = told.startswith("over ")
        number = float(told.removeprefix("over ").rstrip("% s"))
        good = column.least_good <= number <= column.most_good and not beyond
        length = max(2.0, FULL * min(1.0, number / column.most))
        yield (
            f'<rect x="{column.x}" y="{y - BAR / 2:g}" width="{length:.1f}" height="{BAR}" rx="2" '
            f'fill="{theme.good if good else theme.bad}"/>'
        )
        yield f'<text class="q" x="{column.x + length + 6:.1f}" y="{y + 4}">{told}</text>'


def write_pictures(page: str, assets: Path = ASSETS) -> None:
    """Draw what the page's table says.

    Args:
        page: The page.
        assets: The directory to write the pictures to.
    """
    rows = read_rows(page)
    draw_themes("storm", lambda theme: draw(rows, theme), assets)


def main() -> int:
    """Simulate, and write the table and the pictures."""
    if "--draw" not in sys.argv[1:]:
        MARKS.write(text_of([row_of(name) for name in POLICIES]))
    write_pictures(PAGE.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
