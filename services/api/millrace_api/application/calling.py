"""Calls that the API makes itself, while its caller waits: tests of webhooks and of integrations.

Through the guarded door outward, bounded in time and size, tried once. Whatever the other side does is an outcome with
a time; nothing here raises for it. They are no deliveries and no steps: nothing about them goes on the log, and they
count for no endpoint's breaker, rate or health.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from millrace_api.application.views import ErrorView
from millrace_core import egress, limits
from millrace_core.clock import Clock
from millrace_runtime.egress import Answer, OutgoingFailed


class Sender(Protocol):
    """The door outward (`millrace_runtime.egress.Egress`)."""

    async def send(
        self, target: egress.Target, *, account: str, head: bytes, body: bytes = b"", timeout_s: float
    ) -> Answer:
        """The answer, whatever its status. Raises OutgoingFailed when none came."""
        ...


@dataclass(frozen=True, slots=True)
class Called:
    """What came of a call: an answer, or the reason why none came."""

    duration_ms: float
    answer: Answer | None = None
    error: ErrorView | None = None

    @property
    def status(self) -> Literal["succeeded", "failed"]:
        """Only 2xx is success."""
        return "succeeded" if self.error is None else "failed"

    @property
    def http_status(self) -> int | None:
        return None if self.answer is None else self.answer.status


@dataclass(frozen=True, slots=True)
class Outside:
    """The door outward, and the clock that calls through it are timed by."""

    sender: Sender
    clock: Clock

    async def call(
        self,
        method: str,
        target: egress.Target,
        *,
        account: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout_s: float = limits.API_CALL_TIMEOUT_S,
    ) -> Called:
        """One request. Safe to cancel; the other side may have had it then."""
        began = self.clock.monotonic()
        try:
            answer = await self.sender.send(
                target,
                account=account,
                head=egress.request_head(method, target, headers),
                body=body,
                timeout_s=timeout_s,
            )
        except OutgoingFailed as failed:
            return Called(self._since(began), error=ErrorView(failed.code, str(failed)))
        error = None
        if not 200 <= answer.status < 300:
            error = ErrorView(f"http_{answer.status}", f"the answer was {answer.status}: only 2xx counts as received")
        return Called(self._since(began), answer, error)

    def _since(self, began: float) -> float:
        return round((self.clock.monotonic() - began) * 1000, 3)
