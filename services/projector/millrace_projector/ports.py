"""What the projector asks of the world around it."""

from collections.abc import Sequence
from typing import Any, Protocol

from millrace_core.record import Output


class Letters(Protocol):
    """Where records go that can never be projected: the plain producer."""

    async def write(self, outputs: Sequence[Output]) -> Any:
        """Return when all are acked; raises Retry when any may not be."""
        ...


class Told(Protocol):
    """Told what was written. Must not block or raise."""

    def wrote(self, table: str, rows: int) -> None: ...
    def committed(self, seconds: float) -> None: ...
    def age(self, topic: str, partition: int, seconds: float) -> None:
        """How old the oldest record is that is not in the read models; 0 when there is none."""
        ...


class Untold:
    """For tests and tools."""

    def wrote(self, table: str, rows: int) -> None: ...
    def committed(self, seconds: float) -> None: ...
    def age(self, topic: str, partition: int, seconds: float) -> None: ...
