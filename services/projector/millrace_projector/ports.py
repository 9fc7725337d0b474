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


class Acked(Protocol):
    """Where an acked record stands, as far as anyone here asks."""

    @property
    def timestamp(self) -> int:
        """The broker's, in milliseconds since 1970."""
        ...


class ReceiptLog(Protocol):
    """The plain producer, for who closes days."""

    async def write(self, outputs: Sequence[Output]) -> Sequence[Acked]:
        """Return when all are acked; raises Retry when any may not be."""
        ...


class ReceiptsTold(Protocol):
    """Told how the receipt chain stands. Must not block or raise."""

    def closed(self, day: int, accounts: int, facts: int) -> None: ...
    def contradicted(self, account_days: Sequence[tuple[str, int]]) -> None:
        """These have two roots on the log; the first few, or none."""
        ...

    def lost(self, day: int) -> None:
        """This day can never be closed: the log has lost facts of it."""
        ...

    def failed(self, reason: str) -> None: ...
