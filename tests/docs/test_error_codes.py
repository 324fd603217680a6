# SPDX-License-Identifier: Apache-2.0
"""The table of codes in docs/errors.md: the SDK raises that class, and that is the advice."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from cline_transport import RetryPolicy, Settings, error_info
from cline_transport.openai import http_client
from cline_transport.simulator import Reply, Simulator
from cline_transport.simulator._documented import HTTP_ERRORS, STREAM_ERRORS
from tests.pages import Marks

ROOT = Path(__file__).parents[2]
ROWS = Marks(ROOT / "docs" / "errors.md", "codes").rows()


def a_failure(code: str) -> Reply:
    """What the API sends: an HTTP error, an error chunk, or an answer that just ends."""
    if code.isdecimal():
        return Reply.error(int(code))
    if code == "stream_truncated":
        return Reply.stream("", finish_reason=None, done=False)
    return Reply.stream("", error=code)


@pytest.mark.parametrize(("code", "advice", "name"), ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_a_code_is_raised_and_advised_as_the_page_says(
    code: str, advice: str, name: str, cline_api: Simulator
) -> None:
    code = code.strip("`")
    cline_api.enqueue(a_failure(code))
    settings = Settings(retry=RetryPolicy(rules={}))
    with (
        openai.OpenAI(
            base_url=cline_api.base_url,
            api_key=cline_api.api_key,
            http_client=http_client(settings=settings),
        ) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        client.chat.completions.create(model="cline/ok", messages=[], stream=True)
    assert type(caught.value).__name__ == name.strip("`")
    info = error_info(caught.value)
    assert info is not None
    assert str(info.code) == code
    assert info.advice == advice


def test_every_documented_code_has_its_row() -> None:
    documented = [str(code) for code in (*HTTP_ERRORS, *STREAM_ERRORS)]
    assert [row[0].strip("`") for row in ROWS] == [*documented, "stream_truncated"]
