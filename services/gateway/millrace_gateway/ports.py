"""What the gateway needs of the log and of the control view. `millrace_kafka` has the real ones, tests the others."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from millrace_core.record import Output


class Acked(Protocol):
    """Where an acked record stands. `topic` is the catalogue's name."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


class EventLog(Protocol):
    """The plain producer, as far as it is used here. What it says is acked is on the log."""

    def submit(self, output: Output) -> Awaitable[Acked]:
        """Queue one record, at once. Raises Retry when nothing can be queued now; the answer's Retry means that the
        record may be on the log or not."""
        ...

    async def write(self, outputs: Sequence[Output]) -> Sequence[Acked]:
        """Return when all are acked. Retry means that any of them may be on the log or not."""
        ...

    def ready(self) -> str | None:
        """None when records can be written, else why not."""
        ...


class View(Protocol):
    """The control view, as far as it is used here."""

    def fresh_age_s(self) -> float:
        """Seconds since the view was known to be at the end of `control`."""
        ...
