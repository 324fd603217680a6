# SPDX-License-Identifier: Apache-2.0
"""What the simulator answers by itself: the documented checks, then the model's scenario."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from cline_transport.simulator._reply import JSON, Reply, json_object
from cline_transport.simulator.scenarios import SCENARIOS, Scenario, always

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cline_transport.simulator._request import ReceivedRequest

# The API's own prefix; and what is left of it where a client or a proxy drops some.
PREFIXES = ("/api/v1", "/v1", "")


class Gateway:
    """Answers one request after the other; not thread-safe."""

    def __init__(self, api_key: str, models: Iterable[str]) -> None:
        self._api_key = api_key
        good = Scenario("a good answer", always(Reply.ok()))
        self._scenarios = {**SCENARIOS, **dict.fromkeys(models, good)}
        self._attempts: Counter[tuple[str, str]] = Counter()

    def reset(self) -> None:
        """Count the attempts from the beginning."""
        self._attempts.clear()

    def answer(self, request: ReceivedRequest) -> Reply:
        """The reply to `request`: path, key, body and model are checked in this order."""
        route = (request.method, request.path)
        is_list = route in {("GET", f"{prefix}/models") for prefix in PREFIXES}
        if not is_list and route not in {("POST", f"{p}/chat/completions") for p in PREFIXES}:
            return Reply.error(404, message=f"Invalid endpoint: {request.method} {request.path}")
        key = request.headers.get("authorization", "")
        if key != f"Bearer {self._api_key}":
            return Reply.error(401)
        return self._models() if is_list else self._chat(request.body, key)

    def _models(self) -> Reply:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}
            for name in self._scenarios
        ]
        body = json.dumps({"object": "list", "data": models}).encode()
        return Reply.raw(headers={"content-type": JSON}, body=body)

    def _chat(self, body: bytes, key: str) -> Reply:
        asked = json_object(body)
        if asked is None:
            return Reply.error(400, message="Malformed JSON: the body must be a JSON object")
        model, messages = asked.get("model"), asked.get("messages")
        if not isinstance(model, str) or not model:
            return Reply.error(400, message="Missing required field: model")
        if not isinstance(messages, list) or not messages:
            return Reply.error(400, message="Missing required field: messages")
        scenario = self._scenarios.get(model)
        if scenario is None:
            return Reply.error(404, message=f"Invalid model ID: {model}")
        self._attempts[model, key] += 1
        return scenario.reply(self._attempts[model, key])
