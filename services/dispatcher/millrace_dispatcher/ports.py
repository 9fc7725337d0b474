"""What the dispatcher needs of the world."""

from typing import Protocol

from millrace_core import egress
from millrace_runtime.egress import Answer


class Sender(Protocol):
    """The door outward (`millrace_runtime.egress.Egress`)."""

    async def send(self, target: egress.Target, *, account: str, head: bytes, body: bytes, timeout_s: float) -> Answer:
        """The answer, whatever its status. Raises OutgoingFailed when none came."""
        ...


class Meter(Protocol):
    """Counts attempts by outcome, with their time. Must not block or raise."""

    def attempted(self, outcome: str, seconds: float) -> None: ...

    def postponed(self) -> None:
        """One that was put off to keep to its endpoint's rate: no attempt."""
        ...
