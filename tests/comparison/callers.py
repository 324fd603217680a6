# SPDX-License-Identifier: Apache-2.0
"""Ways to call the API: the SDK with something beneath it, and LiteLLM.

They are made as their own documentation advises for such an API: retries of POST too, on the
statuses that the API calls transient, and `Retry-After` obeyed. Where a transport retries, the
SDK's own retries are off, but for the question that leaves them on; ours needs no such setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from tests.benchmarks.work import named

__all__ = ["CALLERS", "MODEL", "Caller", "LiteLlm", "Official", "answer_of"]

MODEL: Final = "anthropic/claude-sonnet-4.6"
MESSAGES: Final[Any] = [{"role": "user", "content": "Hello"}]
TRANSIENT: Final = (429, 500, 502, 503, 504)
RETRIES: Final = 3
LIBRARIES: Final = ("httpx2", "httpx")


def _sdk_library() -> str:
    """What the SDK is built on."""
    kind = named("openai", "DefaultHttpxClient")
    return next(name for name in LIBRARIES if issubclass(kind, named(name, "Client")))


def _bases(*transports: type[Any]) -> list[str]:
    """The libraries whose transports these are."""
    return [
        name for name in LIBRARIES
        if any(issubclass(kind, named(name, "BaseTransport")) for kind in transports)
    ]  # fmt: skip


class Official:
    """The SDK as it is, and what a transport beneath it changes of that."""

    library = ""
    """`httpx` or `httpx2`, if there is a transport."""

    def __init__(self) -> None:
        self.closing: list[Any] = []

    def transport(self) -> Any:
        """What is put beneath; configured."""
        return None

    def bare_transport(self) -> Any:
        """The same with nothing configured."""
        return self.transport()

    def async_transport(self) -> Any:
        return None

    def http(self, transport: Any, *, asynchronous: bool = False) -> Any:
        """A client on it."""
        if transport is None:
            return None
        name = "AsyncClient" if asynchronous else "Client"
        return self.kept(named(self.library, name)(transport=transport, timeout=60))

    def kept(self, client: Any) -> Any:
        self.closing.append(client)
        return client

    def close(self) -> None:
        while self.closing:
            self.closing.pop().close()

    def client(self, url: str, key: str, *, configured: bool = True, layered: bool = False) -> Any:
        http = self.http(self.transport() if configured else self.bare_transport())
        options = {} if http is None or layered else {"max_retries": 0}
        make = named("openai", "OpenAI")
        return self.kept(make(base_url=url, api_key=key, http_client=http, **options))

    def chat(self, url: str, key: str, how: dict[str, bool], **options: Any) -> Any:
        completions = self.client(url, key, **how).chat.completions
        return completions.create(**{"model": MODEL, "messages": MESSAGES, **options})

    def send(self, url: str, key: str, body: Iterable[bytes]) -> Any:
        """Post a body that is not bytes; the response."""
        cast_to = named(_sdk_library(), "Response")
        return self.client(url, key).post("/chat/completions", cast_to=cast_to, content=body)

    def get(self, url: str, key: str, path: str) -> Any:
        """A GET of something that is no LLM."""
        http = self.http(self.transport())
        if http is None:
            return self.client(url, key).get(path, cast_to=named(_sdk_library(), "Response"))
        return http.get(f"{url}{path}")

    async def chat_async(self, url: str, key: str) -> str:
        http = self.http(self.async_transport(), asynchronous=True)
        if http is not None:
            self.closing.remove(http)
        options = {} if http is None else {"max_retries": 0}
        make = named("openai", "AsyncOpenAI")
        async with make(base_url=url, api_key=key, http_client=http, **options) as client:
            answer = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=False
            )
            return str(answer.choices[0].message.content)

    def with_own_rule(self, rule: Callable[[Any], None]) -> Any:
        """A transport that retries what `rule` raises at; `None`: there is none."""
        return None

    def cost(self, answer: Any) -> float | None:
        """What an answer cost, as far as it is known without the server."""
        return getattr(answer.usage, "cost", None)

    def libraries(self) -> list[str]:
        """The libraries whose clients it works with."""
        return [name for name in LIBRARIES if self.takes(named(name, "Client"))]

    def takes(self, kind: Any) -> bool:
        """Whether the SDK has an HTTP client of this kind beneath it."""
        make, http = named("openai", "OpenAI"), self.kept(kind())
        try:
            self.kept(make(base_url="http://127.0.0.1", api_key="k", http_client=http))
        except TypeError:
            return False
        return True


class HttpxRetries(Official):
    library = "httpx"

    def make(self, transport: Any, **options: Any) -> Any:
        return named("httpx_retries", "RetryTransport")(transport=transport, **options)

    def retry(self, **options: Any) -> Any:
        return named("httpx_retries", "Retry")(
            total=RETRIES, backoff_factor=1, allowed_methods=["GET", "POST"],
            status_forcelist=TRANSIENT, **options,
        )  # fmt: skip

    def transport(self) -> Any:
        return self.make(named("httpx", "HTTPTransport")(), retry=self.retry())

    def bare_transport(self) -> Any:
        return self.make(named("httpx", "HTTPTransport")())

    def async_transport(self) -> Any:
        return self.make(named("httpx", "AsyncHTTPTransport")(), retry=self.retry())

    def libraries(self) -> list[str]:
        return _bases(named("httpx_retries", "RetryTransport"))

    def with_own_rule(self, rule: Callable[[Any], None]) -> Any:
        retry = self.retry(validate_response=rule, retry_on_exceptions=[ValueError])
        return self.make(named("httpx", "HTTPTransport")(), retry=retry)


class PydanticAi(Official):
    library = "httpx2"

    def config(self, **options: Any) -> Any:
        kinds = (named("httpx2", "HTTPStatusError"), named("httpx2", "TransportError"), ValueError)
        wait = named("pydantic_ai.retries", "wait_retry_after")
        return named("pydantic_ai.retries", "RetryConfig")(
            retry=named("tenacity", "retry_if_exception_type")(kinds),
            wait=wait(named("tenacity", "wait_exponential")(multiplier=1, max=60)),
            stop=named("tenacity", "stop_after_attempt")(RETRIES + 1),
            reraise=True,
            **options,
        )

    @staticmethod
    def validate(response: Any) -> None:
        if response.status_code in TRANSIENT:
            response.raise_for_status()

    def transport(self) -> Any:
        make = named("pydantic_ai.retries", "HTTPX2TenacityTransport")
        return make(self.config(), validate_response=self.validate)

    def bare_transport(self) -> Any:
        config = named("pydantic_ai.retries", "RetryConfig")()
        return named("pydantic_ai.retries", "HTTPX2TenacityTransport")(config)

    def async_transport(self) -> Any:
        make = named("pydantic_ai.retries", "AsyncHTTPX2TenacityTransport")
        return make(self.config(sleep=named("anyio", "sleep")), validate_response=self.validate)

    def libraries(self) -> list[str]:
        kinds = ("HTTPX2TenacityTransport", "TenacityTransport")
        return _bases(*(named("pydantic_ai.retries", kind) for kind in kinds))

    def with_own_rule(self, rule: Callable[[Any], None]) -> Any:
        def validate(response: Any) -> None:
            response.read()
            rule(response)

        make = named("pydantic_ai.retries", "HTTPX2TenacityTransport")
        return make(self.config(), validate_response=validate)


class Ours(Official):
    """The SDK's own client on our transport; whatever is asked, nothing is configured."""

    library = "httpx2"

    def __init__(self, **telemetry: Any) -> None:
        super().__init__()
        self.telemetry = telemetry

    def client(self, url: str, key: str, *, configured: bool = True, layered: bool = False) -> Any:
        http = self.kept(named("cline_transport.openai", "http_client")(**self.telemetry))
        return self.kept(named("openai", "OpenAI")(base_url=url, api_key=key, http_client=http))

    def transport(self) -> Any:
        return named("cline_transport.httpx2", "ClineTransport")(**self.telemetry)

    def async_transport(self) -> Any:
        return named("cline_transport.httpx2", "AsyncClineTransport")(**self.telemetry)

    def libraries(self) -> list[str]:
        modules = ("cline_transport.httpx", "cline_transport.httpx2")
        return _bases(*(named(module, "ClineTransport") for module in modules))


class LiteLlm:
    """`litellm.completion`, with retries of its own."""

    def options(self, url: str, key: str) -> dict[str, Any]:
        return {"api_base": url, "api_key": key, "model": f"openai/{MODEL}", "messages": MESSAGES}

    def chat(self, url: str, key: str, how: dict[str, bool], **options: Any) -> Any:
        asked = {**self.options(url, key), **options}
        if how.get("configured", True):
            asked["num_retries"] = RETRIES
        return named("litellm", "completion")(**asked)

    async def chat_async(self, url: str, key: str) -> str:
        made = named("litellm", "acompletion")(
            **self.options(url, key), num_retries=RETRIES, stream=False
        )
        return str((await made).choices[0].message.content)

    def cost(self, answer: Any) -> float | None:
        cost: float = named("litellm", "completion_cost")(answer)
        return cost

    def chat_by_rule(self, url: str, key: str, rule: Callable[[str], bool]) -> Any:
        """An answer that the rule is content with."""
        rules: list[Any] = named("litellm", "post_call_rules")
        rules.append(rule)
        try:
            return self.chat(url, key, {})
        finally:
            rules.remove(rule)

    def remember(self) -> None:
        """Begin to answer from a cache."""
        cache: Any = named("litellm.caching.caching", "Cache")(type="local")
        named("litellm.caching.caching", "litellm").cache = cache

    def forget(self) -> None:
        named("litellm.caching.caching", "litellm").cache = None

    def close(self) -> None:
        """Nothing is ours to close."""


Caller = Official | LiteLlm

CALLERS: Final[dict[str, Callable[[], Caller]]] = {
    "SDK alone": Official,
    "httpx-retries": HttpxRetries,
    "pydantic-ai": PydanticAi,
    "LiteLLM": LiteLlm,
    "cline-transport": Ours,
}


def answer_of(answer: Any) -> str:
    """The text of an answer or of a stream, read to its end."""
    said: list[Any] = []
    if hasattr(answer, "choices"):
        said += [choice.message for choice in answer.choices or ()]
    else:
        said += [choice.delta for chunk in answer for choice in chunk.choices]
    return "".join(one.content or "" for one in said if one is not None)
