# SPDX-License-Identifier: Apache-2.0
"""Failures that come as an HTTP status, or as a JSON answer that is an error all the same."""

from __future__ import annotations

import json
from typing import Any, Final

from cline_transport import RetryPolicy, Settings
from cline_transport.simulator import Reply

from .failure import NEVER, ONCE, THRICE, Failure, HttpError

# --- statuses and codes ---

_WAITS: Final = {
    **dict.fromkeys((400, 401, 402, 403, 404, 409, 422), NEVER),
    500: ONCE,
    **dict.fromkeys((408, 429, 502, 503, 504, 520, 521, 522, 523, 524, 529), THRICE),
}
_ROWS: Final = {409: "any other status", 422: "any other status"} | dict.fromkeys(
    range(520, 525), "520 to 524"
)


def _coded(status: int, code: Any, waits: tuple[float, ...], **told: Any) -> Failure:
    return Failure(
        name=f"{status} with {code}",
        reply=Reply.error(status, code=code, **told),
        waits=waits,
        end=HttpError(status=status, code=code),
    )


STATUSES: Final = (
    *(
        Failure(
            name=str(status),
            row=_ROWS.get(status, ""),
            reply=Reply.error(status),
            waits=waits,
            end=HttpError(status=status, code=status),
        )
        for status, waits in sorted(_WAITS.items())
    ),
    _coded(429, "insufficient_quota", NEVER),
    _coded(503, "insufficient_quota", NEVER, retry_after=1),
    _coded(500, "context_length_exceeded", NEVER),
    _coded(502, "content_filter", NEVER),
    _coded(400, "rate_limit", THRICE),
    _coded(400, "unheard_of", NEVER),
    _coded(503, "unheard_of", THRICE),
)

# --- what the server says of retrying ---

_IN_5_SECONDS: Final = "Tue, 14 Nov 2023 22:13:25 GMT"
"""By the clock of the tests."""


def _advised(name: str, status: int, waits: tuple[float, ...], **told: Any) -> Failure:
    return Failure(
        name=name,
        reply=Reply.error(status, **told),
        waits=waits,
        end=HttpError(status=status, code=status),
    )


ADVICE: Final = (
    _advised("429, Retry-After: 7", 429, (7, 7, 7), retry_after=7),
    _advised("429, Retry-After: 0", 429, THRICE, retry_after=0),
    _advised("429, Retry-After: a date in 5 s", 429, (5, 5, 5), retry_after=_IN_5_SECONDS),
    _advised("429, Retry-After: soon", 429, THRICE, retry_after="soon"),
    _advised("429, retry-after-ms: 2500", 429, (2.5, 2.5, 4), retry_after_ms=2500),
    _advised(
        "429, both, 2500 ms and 30 s", 429, (2.5, 2.5, 4), retry_after_ms=2500, retry_after=30
    ),
    _advised("503, Retry-After: 60", 503, (60, 60, 60), retry_after=60),
    _advised("500, Retry-After: 3", 500, (3,), retry_after=3),
    _advised("429, Retry-After: 61", 429, NEVER, retry_after=61),
    _advised("402, Retry-After: 3", 402, (3, 3, 4), retry_after=3),
    _advised("402, Retry-After: 3600", 402, NEVER, retry_after=3600),
    _advised("400, x-should-retry: true", 400, THRICE, headers={"x-should-retry": "true"}),
    _advised("503, x-should-retry: false", 503, NEVER, headers={"x-should-retry": "false"}),
)

# --- bodies that are not documented ---

_PAGE: Final = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"


def _replaced(
    name: str,
    status: int,
    body: str,
    content_type: str,
    message: str,
    waits: tuple[float, ...] = (),
) -> Failure:
    headers = {"content-type": content_type} if content_type else {}
    return Failure(
        name=name,
        reply=Reply.raw(status, headers=headers, body=body.encode()),
        waits=waits,
        end=HttpError(
            status=status,
            code=status,
            body="documented",
            message=message,
            metadata={"raw": body, "content_type": content_type},
        ),
    )


def _object(name: str, status: int, body: dict[str, Any], message: str = "") -> Failure:
    """A JSON object; without a message it passes as it is."""
    code = body["error"] if "error_description" in body else status
    return Failure(
        name=name,
        reply=Reply.raw(
            status, headers={"content-type": _JSON}, body=json.dumps(body, indent=1).encode()
        ),
        end=HttpError(
            status=status, code=code, body="added" if message else "as sent", message=message
        ),
    )


BODIES: Final = (
    _replaced("502, a proxy's page", 502, _PAGE, _HTML, "502 Bad Gateway", THRICE),
    _replaced("403, a page", 403, "<h1>Squid says no</h1>", _HTML, "Squid says no"),
    _replaced("503, text", 503, "No upstream\n", "text/plain", "No upstream", THRICE),
    _replaced("500, nothing", 500, "", "", "Internal Server Error", ONCE),
    _replaced("400, a JSON array", 400, '["no"]', _JSON, '["no"]'),
    Failure(
        name="403, text that breaks off",
        reply=Reply.raw(
            403, headers={"content-type": "text/plain"}, body=[b"no ent"], then="close"
        ),
        end=HttpError(
            status=403,
            code=403,
            body="documented",
            message="no ent",
            metadata={"raw": "no ent", "content_type": "text/plain"},
        ),
    ),
    _object("422, detail", 422, {"detail": "field required"}, "field required"),
    _object("422, detail as a list", 422, {"detail": [{"loc": ["n"], "msg": "bad n"}]}, "bad n"),
    _object("400, error as text", 400, {"error": "no such model"}, "no such model"),
    _object("400, message", 400, {"message": "no such model", "trace": "t1"}, "no such model"),
    _object("401, an OAuth error", 401, {"error": "invalid_client", "error_description": "Who?"}),
    _object("401, error without a code", 401, {"error": {"message": "Who?"}, "trace": "t1"}),
    *(
        Failure(
            name=f"502 in {encoding}",
            row="502 in gzip, deflate, br, zstd",
            reply=Reply.error(502, encoding=encoding),
            waits=THRICE,
            end=HttpError(status=502, code=502),
        )
        for encoding in ("gzip", "deflate", "br", "zstd")
    ),
    *(
        Failure(
            name=f"502, a page in {encoding}",
            row="502, a page in gzip, deflate, br, zstd",
            reply=Reply.html(502, html=_PAGE, encoding=encoding),
            waits=THRICE,
            end=HttpError(
                status=502,
                code=502,
                body="documented",
                message="502 Bad Gateway",
                metadata={"raw": _PAGE, "content_type": _HTML},
            ),
        )
        for encoding in ("gzip", "deflate", "br", "zstd")
    ),
)

# --- a 200 whose JSON is an error ---

MESSAGE: Final = "message-marker-8c1e"


def _in_200(
    code: Any, status: int, waits: tuple[float, ...], shape: Any = "cline", name: str = ""
) -> Failure:
    bare = shape == "bare"
    return Failure(
        name=f"200, JSON, {name or code}",
        reply=Reply.json_error_in_200(code, shape=shape, message=MESSAGE),
        waits=waits,
        end=HttpError(
            status=status,
            code="server_error" if bare else code,
            body="as sent" if shape == "openrouter" else "added",
            message="The stream ended with an error" if bare else MESSAGE,
        ),
    )


IN_200: Final = (
    _in_200("rate_limit", 429, THRICE),
    _in_200("rate_limit", 429, THRICE, "openrouter", "rate_limit, OpenRouter's shape"),
    _in_200("server_error", 502, THRICE),
    _in_200("server_error", 502, THRICE, "bare", "no more than finish_reason"),
    _in_200(503, 503, THRICE),
    _in_200(500, 500, ONCE),
    _in_200(402, 402, NEVER),
    _in_200("context_length_exceeded", 400, NEVER),
    _in_200("content_filter", 400, NEVER),
    _in_200("insufficient_quota", 429, NEVER),
    _in_200("unheard_of", 502, NEVER),
    Failure(
        name="200, JSON, nothing but an error",
        reply=Reply.error(200, code=402, message="Broke"),
        end=HttpError(status=402, code=402),
    ),
)

# --- what ends the retries ---


def _sent_once(body: Any) -> Failure:
    return Failure(
        name=f"503, the body is a {body}",
        row="503, the body is a generator or multipart",
        body=body,
        reply=Reply.error(503),
        end=HttpError(status=503, code=503, final=False),
    )


ENDED: Final = (
    _sent_once("generator"),
    _sent_once("multipart"),
    Failure(
        name="503, a deadline of 5 s",
        reply=Reply.error(503),
        waits=(1, 2),
        settings=Settings(retry=RetryPolicy(deadline=5)),
        end=HttpError(status=503, code=503),
    ),
    Failure(
        name="429, Retry-After: 7, a deadline of 5 s",
        reply=Reply.error(429, retry_after=7),
        settings=Settings(retry=RetryPolicy(deadline=5)),
        end=HttpError(status=429, code=429),
    ),
    Failure(
        name="503, retries disabled",
        reply=Reply.error(503),
        settings=Settings(retry=RetryPolicy(enabled=False)),
        end=HttpError(status=503, code=503, final=False),
    ),
)
