# SPDX-License-Identifier: Apache-2.0
"""Which frameworks there are, how the transport is put under each, and what is tested of them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "BEHAVIOURS",
    "EXAMPLES",
    "FRAMEWORKS",
    "NOTED",
    "ROOT",
    "Framework",
    "named",
    "of_the_tests",
    "script_metadata",
]

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples" / "frameworks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """One framework."""

    name: str
    """Of its module here (`test_{name}.py`), and on the command line."""
    title: str
    distribution: str
    """The package whose version is told."""
    plug_in: str
    """How the transport is put under it, in Markdown."""
    example: str | None = None
    """A file of examples/frameworks, whose header has the requirements of its environment."""
    requirements: tuple[str, ...] = ()
    """The requirements where there is no example."""

    @property
    def path(self) -> Path:
        """The example."""
        assert self.example is not None, f"{self.name} has no example"
        return EXAMPLES / self.example

    @property
    def requires(self) -> list[str]:
        """What its environment is made from, beside this package."""
        if self.example is None:
            return list(self.requirements)
        dependencies: list[str] = script_metadata(self.path)["dependencies"]
        return [one for one in dependencies if not one.startswith("cline-transport")]

    @property
    def tests(self) -> str:
        """The path of its module."""
        return f"tests/frameworks/test_{self.name}.py"


def of_the_tests(*names: str) -> list[str]:
    """What the project's group `test` requires of these packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    group = [one for one in project["dependency-groups"]["test"] if isinstance(one, str)]
    chosen = [one for one in group if re.split(r"[^\w-]", one)[0] in names]
    assert len(chosen) == len(names), f"it has not got all of {names}"
    return chosen


def script_metadata(path: Path) -> dict[str, Any]:
    """What a script's header says of it (PEP 723)."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^# /// script$\n((?:#(?: .*)?\n)+)^# ///$", text, re.MULTILINE)
    assert found is not None, f"{path.name} has no header"
    return tomllib.loads(re.sub(r"^# ?", "", found.group(1), flags=re.MULTILINE))


FRAMEWORKS: Final = (
    Framework(
        name="langchain",
        title="LangChain",
        distribution="langchain-openai",
        plug_in="`ChatOpenAI(http_client=…, http_async_client=…)`",
        example="langchain_stream.py",
    ),
    Framework(
        name="llamaindex",
        title="LlamaIndex",
        distribution="llama-index-llms-openai-like",
        plug_in="`OpenAILike(http_client=…, async_http_client=…, max_retries=0)`",
        example="llamaindex_stream.py",
    ),
    Framework(
        name="pydantic_ai",
        title="pydantic-ai",
        distribution="pydantic-ai-slim",
        plug_in="`OpenAIProvider(http_client=…)`, asynchronous",
        example="pydantic_ai_stream.py",
    ),
    Framework(
        name="openai_agents",
        title="OpenAI Agents",
        distribution="openai-agents",
        plug_in="`OpenAIChatCompletionsModel(openai_client=…)`",
        example="openai_agents_stream.py",
    ),
    Framework(
        name="instructor",
        title="Instructor",
        distribution="instructor",
        plug_in="`from_openai(…)` with a client on it",
        example="instructor_partial.py",
    ),
    Framework(
        name="litellm",
        title="LiteLLM",
        distribution="litellm",
        plug_in="`litellm.client_session`, `aclient_session`",
        example="litellm_stream.py",
    ),
)
"""Those of the table."""

NOTED: Final = (
    Framework(
        name="smolagents",
        title="smolagents",
        distribution="smolagents",
        plug_in='`OpenAIModel(client_kwargs={"http_client": …}, retry=False)`',
        requirements=("smolagents[openai]>=1.26",),
    ),
    Framework(
        name="dspy",
        title="DSPy",
        distribution="dspy",
        plug_in='`LM(engine="litellm", num_retries=0)`, and as LiteLLM',
        requirements=("dspy>=3.4",),
    ),
)
"""Of these the page has a note each."""

BEHAVIOURS: Final = {
    "test_a_call_is_answered": "Good call",
    "test_a_stream_is_delivered_whole": "Good stream",
    "test_a_429_is_retried_unseen": "429, then good: 2 requests",
    "test_an_error_before_content_is_retried_unseen": "Error before content, then good: 2 requests",
    "test_an_error_after_content_is_raised_and_the_text_delivered_once": (
        "Error after content: raised, the text once, 1 request"
    ),
    "test_a_truncated_stream_is_raised": "Truncated stream: raised",
    "test_a_lasting_429_takes_four_attempts": "Lasting 429: 4 requests",
    "test_what_a_lasting_429_takes_with_its_own_retries": "The same with its default settings",
    "test_without_the_transport_an_error_after_content": (
        "*Without the transport:* error after content"
    ),
    "test_without_the_transport_a_truncated_stream": "*Without the transport:* truncated stream",
    "test_without_the_transport_a_call_that_does_not_say_how": (
        "*Without the transport:* good call"
    ),
    "test_its_example_prints_the_answer": "Example, good",
    "test_its_example_says_why_it_failed": "Example, failing",
}
"""The tests of the specification, and the headings of the table's rows."""


def named(name: str) -> Framework:
    """The framework of this name.

    Raises:
        KeyError: There is none.
    """
    return {one.name: one for one in (*FRAMEWORKS, *NOTED)}[name]
