# SPDX-License-Identifier: Apache-2.0
"""Every name that telemetry uses: OpenTelemetry's from its own constants, and ours."""

from __future__ import annotations

from typing import Final

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import (
    error_attributes,
    exception_attributes,
    http_attributes,
    server_attributes,
)
from opentelemetry.semconv.schemas import Schemas

SCOPE: Final = "cline_transport"
SCHEMA_URL: Final = Schemas.V1_37_0.value
"""The newest schema that the lowest declared release of the semantic conventions knows."""

# OpenTelemetry's, GenAI conventions (development) and general ones (stable).
OPERATION_NAME: Final = gen_ai.GEN_AI_OPERATION_NAME
PROVIDER_NAME: Final = gen_ai.GEN_AI_PROVIDER_NAME
REQUEST_MODEL: Final = gen_ai.GEN_AI_REQUEST_MODEL
REQUEST_STREAM: Final = gen_ai.GEN_AI_REQUEST_STREAM
RESPONSE_ID: Final = gen_ai.GEN_AI_RESPONSE_ID
RESPONSE_MODEL: Final = gen_ai.GEN_AI_RESPONSE_MODEL
FINISH_REASONS: Final = gen_ai.GEN_AI_RESPONSE_FINISH_REASONS
TIME_TO_FIRST_CHUNK: Final = gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK
INPUT_TOKENS: Final = gen_ai.GEN_AI_USAGE_INPUT_TOKENS
OUTPUT_TOKENS: Final = gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS
CACHED_TOKENS: Final = gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS
TOKEN_TYPE: Final = gen_ai.GEN_AI_TOKEN_TYPE
SERVER_ADDRESS: Final = server_attributes.SERVER_ADDRESS
SERVER_PORT: Final = server_attributes.SERVER_PORT
ERROR_TYPE: Final = error_attributes.ERROR_TYPE
EXCEPTION_TYPE: Final = exception_attributes.EXCEPTION_TYPE
EXCEPTION_MESSAGE: Final = exception_attributes.EXCEPTION_MESSAGE
EXCEPTION_STACKTRACE: Final = exception_attributes.EXCEPTION_STACKTRACE
RESEND_COUNT: Final = http_attributes.HTTP_REQUEST_RESEND_COUNT
RESPONSE_HEADER_REQUEST_ID: Final = f"{http_attributes.HTTP_RESPONSE_HEADER_TEMPLATE}.x-request-id"

DURATION: Final = gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION
TIME_TO_FIRST_CHUNK_DURATION: Final = gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK
TOKEN_USAGE: Final = gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE

CHAT_EXCEPTION: Final = "gen_ai.client.operation.exception"
HTTP_EXCEPTION: Final = "http.client.request.exception"
"""The conventions' events of a failed operation. No release of the constants has them yet."""

# Ours.
ERROR_CODE: Final = "cline.error.code"
ERROR_MESSAGE: Final = "cline.error.message"
ERROR_PHASE: Final = "cline.error.phase"
REQUEST_ID: Final = "cline.request_id"
RETRY_COUNT: Final = "cline.retry.count"
USAGE_COST: Final = "cline.usage.cost"
STREAM_COMPLETED: Final = "cline.stream.completed"
STREAM_INSPECTED: Final = "cline.stream.inspected"

LIMIT_WAIT: Final = "cline.limit.wait"
LIMIT_REASON: Final = "cline.limit.reason"

RETRIES: Final = "cline.client.retries"
THROTTLED_RETRIES: Final = "cline.client.throttled_retries"
COST: Final = "cline.client.cost"
LIMIT_WAITS: Final = "cline.client.limit.wait"
LIMIT_PERMITS: Final = "cline.client.limit.permits"
LIMIT_CONCURRENCY: Final = "cline.client.limit.concurrency"
LIMIT_FALLBACKS: Final = "cline.client.limit.fallbacks"

SECONDS: Final = [0.01 * 2**power for power in range(14)]
TOKENS: Final = [4**power for power in range(14)]
"""The buckets that the GenAI conventions ask for: 10 ms to 81.92 s, 1 to 67,108,864 tokens."""

CHAT: Final = "chat"
"""`gen_ai.operation.name` of a chat completion."""

PROVIDERS: Final = {
    "cline.bot": "cline",
    "openrouter.ai": "openrouter",
    "openai.com": "openai",
}
"""`gen_ai.provider.name` by the host's registered domain; any other host stands for itself."""
