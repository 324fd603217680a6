# SPDX-License-Identifier: Apache-2.0
"""The questions, and who is asked which: the tables of `docs/comparison.md`. No library is needed.

The functions that answer them are in `calls.py` and `traces.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CONTENDERS", "TABLES", "Contender", "Table", "questions_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One tool.

    Attributes:
        name: The head of its column.
        packages: What its versions are told of.
        group: The dependency group of `pyproject.toml` that installs it; `None`: none does.
        requirements: The file beside this one that does.
    """

    name: str
    packages: tuple[str, ...]
    group: str | None = None
    requirements: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether the environment of the tests has it."""
        return self.group is None and self.requirements is None


_ALL: Final = (
    Contender(name="SDK alone", packages=("openai",)),
    Contender(name="httpx-retries", packages=("httpx-retries", "httpx"), group="benchmark"),
    Contender(name="pydantic-ai", packages=("pydantic-ai-slim", "tenacity"), group="benchmark"),
    Contender(name="LiteLLM", packages=("litellm", "openai"), requirements="litellm.txt"),
    Contender(name="cline-transport", packages=("openai", "httpx2", "opentelemetry-sdk")),
    Contender(name="OTel httpx", packages=("opentelemetry-instrumentation-httpx",)),
    Contender(
        name="OTel genai",
        packages=("opentelemetry-instrumentation-genai-openai",),
        group="genai",
    ),
    Contender(
        name="OpenInference",
        packages=("openinference-instrumentation-openai",),
        group="openinference",
    ),
    Contender(
        name="OpenLLMetry",
        packages=("opentelemetry-instrumentation-openai",),
        group="openllmetry",
    ),
)
CONTENDERS: Final = {contender.name: contender for contender in _ALL}

RETRIERS: Final = ("SDK alone", "httpx-retries", "pydantic-ai", "LiteLLM", "cline-transport")
TRACERS: Final = ("OTel httpx", "OTel genai", "OpenInference", "OpenLLMetry", "cline-transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the page.

    Attributes:
        title: Its heading.
        contenders: Its columns.
        questions: Its rows: the name of the function that answers, and the head of the row.
    """

    title: str
    contenders: tuple[str, ...]
    questions: dict[str, str]


TABLES: Final = (
    Table(
        title="Retries and errors",
        contenders=RETRIERS,
        questions={
            "retried_without_settings": "503, then good; nothing configured",
            "retry_after": "429 with `Retry-After: 7`, then good",
            "an_hour": "429 with `Retry-After: 3600`",
            "dropped": "Connection closed without an answer, then good",
            "lasting_500": "500 that stays (the API: retry once)",
            "lasting_429": "429 that stays",
            "layers": "429 that stays, and the SDK's own retries are left on",
            "a_page": "502 with a proxy's page: the message",
            "error_in_200": "200 with an error as JSON",
            "unsaid": "Call that leaves `stream` out: the API streams",
            "generator": "503, then good; the body is a generator",
            "file": "503, then good; the body is a file",
        },
    ),
    Table(
        title="Streams",
        contenders=RETRIERS,
        questions={
            "early_chunk": "Error chunk before the first word, then good",
            "late_chunk": "Error chunk after two words",
            "late_chunk_openrouter": "The same in OpenRouter's shape",
            "early_end": "No word and no end, then good",
            "late_end": "Ends after two words without a finish reason",
            "early_loss": "Connection lost before the first word, then good",
            "late_loss": "Connection lost after two words",
        },
    ),
    Table(
        title="What others can",
        contenders=RETRIERS,
        questions={
            "any_host": "GET from any other API: 503, then good",
            "libraries": "HTTP libraries",
            "own_rule": "A function of yours decides what is retried",
            "other_model": "Another model when one fails",
            "cache": "The same question twice: requests",
            "price": "Cost where the API names none",
            "other_format": "A provider with a wire format of its own",
            "on_trio": "On trio: 503, then good",
        },
    ),
    Table(
        title="Traces of the SDK's calls",
        contenders=TRACERS,
        questions={
            "until_the_end": "A stream's span ends",
            "spans_of_a_retry": "429, then good: spans",
            "retries_told": "Number of the retry in a span",
            "late_error": "Error chunk after two words: status",
            "late_error_above_ours": "The same, cline-transport beneath",
            "late_code": "Error chunk: its code is told",
            "truncated": "No finish reason: status",
            "early_status": "402: status",
            "early_code": "402: the body's code is told",
            "request_id": "Request ID",
            "tokens": "Tokens of a stream",
            "server_cost": "Cost, as the server says it",
            "metrics": "Metrics",
            "prompts": "Prompt and answer recorded",
            "tools": "Tool calls recorded",
            "embeddings": "Tokens of an embeddings call",
        },
    ),
)


def questions_of(contender: str) -> list[str]:
    """What a contender is asked, in the order of the page."""
    return [one for table in TABLES if contender in table.contenders for one in table.questions]
