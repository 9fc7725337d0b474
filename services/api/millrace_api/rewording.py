"""A language model that puts prompts in plainer words, through its maker's own SDK; what it says is not trusted.

The SDK comes with the extra `models` (`millrace-api[models]`) and is imported where a model is configured only. A model
that is away, slow or says NONE has nothing to say: the rules' own answer stands.
"""

import asyncio
import importlib
from typing import Any

from structlog.typing import FilteringBoundLogger

from millrace_core import limits
from millrace_core.errors import Fatal

NONE = "NONE"


def rewording_of(model: str, key: str, log: FilteringBoundLogger) -> "AnthropicRewording | None":
    """The model of this name; None for none. Raises Fatal when its SDK or its key is missing."""
    if not model:
        return None
    if not key:
        raise Fatal("MILLRACE_MODEL is set but MILLRACE_MODEL_KEY is not")
    try:
        sdk: Any = importlib.import_module("anthropic")
    except ModuleNotFoundError:
        raise Fatal("MILLRACE_MODEL is set but its SDK is missing: install millrace-api[models]") from None
    client = sdk.AsyncAnthropic(api_key=key, timeout=limits.REWORDING_S_MAX, max_retries=1)
    return AnthropicRewording(client, model, log)


class AnthropicRewording:
    """`client` is the SDK's."""

    def __init__(self, client: Any, model: str, log: FilteringBoundLogger) -> None:
        self._client = client
        self._model = model
        self._log = log

    async def reword(self, rendered: str) -> str | None:
        try:
            async with asyncio.timeout(limits.REWORDING_S_MAX):
                answer = await self._client.messages.create(
                    model=self._model,
                    max_tokens=limits.REWORDING_TOKENS_MAX,
                    messages=[{"role": "user", "content": rendered}],
                )
            said = "".join(block.text for block in answer.content if block.type == "text").strip()
        except Exception as error:  # an SDK's errors are many, and none of them is the caller's
            self._log.warning("rewording.failed", error=type(error).__name__)
            return None
        return None if not said or said == NONE else said[: limits.REWORDING_CHARS_MAX]
