# SPDX-License-Identifier: Apache-2.0
"""The metrics of calls: what the GenAI conventions ask for, and ours beside them.

Attributes are of low cardinality: never a message, a request ID or a URL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.util.types import AttributeValue

from cline_transport import _names as names
from cline_transport._version import __version__
from cline_transport.record import CallRecord

__all__ = ["Metrics"]

Attributes = Mapping[str, AttributeValue]

_INPUT: Final = {names.TOKEN_TYPE: "input"}
_OUTPUT: Final = {names.TOKEN_TYPE: "output"}


class Metrics:
    """The instruments of one transport.

    Args:
        meter_provider: Where they report; the global provider by default.
    """

    __slots__ = (
        "_concurrency", "_cost", "_duration", "_fallbacks", "_first_chunk", "_permits", "_retries",
        "_throttled", "_tokens", "_waits",
    )  # fmt: skip

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = metrics.get_meter(names.SCOPE, __version__, meter_provider, names.SCHEMA_URL)
        self._duration = meter.create_histogram(
            names.DURATION,
            unit="s",
            description="Duration of a call, with its retries and its body.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            names.TIME_TO_FIRST_CHUNK_DURATION,
            unit="s",
            description="Time from the start of a call to the first event of its stream.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Tokens that a call used, as the API reports them.",
            explicit_bucket_boundaries_advisory=names.TOKENS,
        )
        self._retries = meter.create_counter(
            names.RETRIES, unit="{retry}", description="Attempts after the first."
        )
        self._throttled = meter.create_counter(
            names.THROTTLED_RETRIES,
            unit="{retry}",
            description="Retries that were not made because too many calls were failing.",
        )
        self._cost = meter.create_counter(
            names.COST, unit="{credit}", description="Cost of calls, as the API reports it."
        )

        self._waits = meter.create_histogram(
            names.LIMIT_WAITS,
            unit="s",
            description="Time for which limits held an attempt back.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._permits = meter.create_up_down_counter(
            names.LIMIT_PERMITS, unit="{permit}", description="Permits in use."
        )
        self._concurrency = meter.create_gauge(
            names.LIMIT_CONCURRENCY,
            unit="{permit}",
            description="Permits that there are: set, or found by the adaptive limit.",
        )
        self._fallbacks = meter.create_counter(
            names.LIMIT_FALLBACKS,
            unit="{attempt}",
            description="Attempts that went by local limits because the storage did not answer.",
        )

    def on_held_back(self, seconds: float, attributes: Attributes, context: Context) -> None:
        """Limits held an attempt back."""
        self._waits.record(seconds, attributes, context)

    def on_fallback(self, attributes: Attributes, context: Context) -> None:
        """Local limits stood in for shared ones."""
        self._fallbacks.add(1, attributes, context)

    def on_permits(self, change: int, limit: int, attributes: Attributes, context: Context) -> None:
        """A permit was taken (1) or given back (-1); there are `limit` of them."""
        self._permits.add(change, attributes, context)
        self._concurrency.set(limit, attributes, context)

    def on_retry(self, attributes: Attributes, context: Context) -> None:
        """An attempt after the first begins."""
        self._retries.add(1, attributes, context)

    def on_throttled(self, attributes: Attributes, context: Context) -> None:
        """A failure was not retried because the throttle was closed."""
        self._throttled.add(1, attributes, context)

    def on_cost(self, cost: float | None, attributes: Attributes, context: Context) -> None:
        """A call is over that cost so many credits, if it was told."""
        if cost is not None and 0 <= cost < math.inf:
            self._cost.add(cost, attributes, context)

    def on_chat(
        self,
        record: CallRecord,
        attributes: Attributes,
        failed: Attributes,
        context: Context,
        *,
        duration: float,
        recorded: frozenset[str],
    ) -> None:
        """A chat call is over.

        Args:
            record: What became of it.
            attributes: What identifies the call: model, provider, server.
            failed: `error.type`, if it failed.
            context: The call's span, for exemplars.
            duration: Its duration in seconds.
            recorded: The metrics that somebody else records for this call.
        """
        usage = record.usage
        if names.DURATION not in recorded:
            self._duration.record(duration, {**attributes, **failed}, context)
        if (
            record.time_to_first_chunk is not None
            and names.TIME_TO_FIRST_CHUNK_DURATION not in recorded
        ):
            self._first_chunk.record(record.time_to_first_chunk, attributes, context)
        if names.TOKEN_USAGE in recorded:
            return
        for count, kind in ((usage.input_tokens, _INPUT), (usage.output_tokens, _OUTPUT)):
            if count is not None and count >= 0:
                self._tokens.record(count, {**attributes, **kind}, context)
