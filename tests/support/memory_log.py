"""The event log in memory: what `millrace_kafka.producer.PlainProducer` is to the gateway, for unit tests.

It passes the same suite as the real one (`tests/conformance/test_event_log.py`). Acks come at once unless `hold` is
called; `go_away` and `come_back` are the broker's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace_core.errors import Retry
from millrace_core.record import Output
from millrace_kafka.topics import partition_of


@dataclass(frozen=True, slots=True)
class Stands:
    """Where an acked record stands."""

    topic: str
    partition: int
    offset: int


@dataclass
class MemoryLog:
    """One log with a few partitions for each topic."""

    partitions: int = 4
    records: dict[tuple[str, int], list[Output]] = field(default_factory=dict)
    in_flight: int = 0
    _why_away: str | None = None
    _held: list[tuple[Output, "asyncio.Future[Stands]"]] | None = None

    def submit(self, output: Output) -> "asyncio.Future[Stands]":
        if self._why_away is not None:
            raise Retry(self._why_away)
        future: asyncio.Future[Stands] = asyncio.get_running_loop().create_future()
        self.in_flight += 1
        if self._held is not None:
            self._held.append((output, future))
        else:
            self._ack(output, future)
        return future

    async def write(self, outputs: Sequence[Output]) -> Sequence[Stands]:
        return [await future for future in [self.submit(output) for output in outputs]]

    def ready(self) -> str | None:
        return self._why_away

    def hold(self) -> None:
        """Ack nothing from now on."""
        self._held = []

    def release(self) -> None:
        """Ack what was held, and everything again."""
        held, self._held = self._held or [], None
        for output, future in held:
            self._ack(output, future)

    def go_away(self, reason: str = "the broker is away") -> None:
        """Fail what is held, and everything from now on."""
        self._why_away = reason
        held, self._held = self._held or [], None
        for _, future in held:
            self.in_flight -= 1
            future.set_exception(Retry(reason))

    def come_back(self) -> None:
        self._why_away = None

    def all(self) -> list[Output]:
        """Every record, partition by partition."""
        return [output for partition in sorted(self.records) for output in self.records[partition]]

    def _ack(self, output: Output, future: "asyncio.Future[Stands]") -> None:
        partition = partition_of(output.route or output.key or b"", self.partitions)
        at = self.records.setdefault((output.topic, partition), [])
        at.append(output)
        self.in_flight -= 1
        future.set_result(Stands(output.topic, partition, len(at) - 1))
