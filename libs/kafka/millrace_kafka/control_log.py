"""Writing `control`: the relay's side. Versions of a key go out in order, by one writer at a time.

The transactional id is fixed, and `start` fences whoever used it before: a relay that froze and woke again cannot put
an old version over a new one, which compaction would then keep. Not here: the outbox, and who may be the relay.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from millrace_core import limits
from millrace_core.errors import Retry, Stale
from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_kafka.transaction import Transactions

CONTROL_TOPIC = "control"
KIND = "kind"
VERSION = "version"


class ControlEntry(NamedTuple):
    """One version of one aggregate. `value` None = deleted."""

    kind: str
    account: str
    id: str
    version: int
    value: bytes | None


class ControlWriter:
    """One per cluster is the intent; the broker sees to it that only the newest can write."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._transactions: Transactions | None = None
        self._committed_at = 0.0

    async def start(self) -> None:
        """Fence the older writer. Raises Retry when the broker is away. May be called again after any failure."""
        await self.stop()
        fresh = Transactions(self._cluster, transactional_id=self._cluster.transactional_id("relay"), group="relay")
        await fresh.start()
        self._transactions = fresh

    async def stop(self) -> None:
        """Close. Safe to repeat."""
        if self._transactions is not None:
            transactions, self._transactions = self._transactions, None
            await transactions.discard()

    async def write(self, entries: Sequence[ControlEntry | tuple[str, str, str, int, bytes | None]]) -> int:
        """Publish entries in this order, all or none; the position a view must have passed to have seen them.

        Stale: another writer has started, this one is over. Retry: nobody knows, `start` again and publish again
        (the same version twice does no harm). Reject: an entry is too large, nothing was written."""
        if self._transactions is None:
            raise Retry("the control writer is not started")
        placed = [self._transactions.place(self._output(ControlEntry(*entry))) for entry in entries]
        if not placed:
            return 0
        loop = asyncio.get_running_loop()
        # Begun before the broker has completed the one before, a transaction takes 24 ms instead of 2 to 6.
        await asyncio.sleep(max(0.0, self._committed_at + limits.TRANSACTION_GATHER_S - loop.time()))
        try:
            written = await self._transactions.commit(placed, {})
        except Retry as error:
            await self.stop()
            if isinstance(error.__cause__, ProducerFenced | InvalidProducerEpoch):
                raise Stale("another control writer has started") from error
            raise
        self._committed_at = loop.time()
        return written[CONTROL_TOPIC, 0]

    @staticmethod
    def _output(entry: ControlEntry) -> Output:
        return Output(
            topic=CONTROL_TOPIC,
            key=f"{entry.kind}/{entry.account}/{entry.id}".encode(),
            value=entry.value,
            headers=(
                (KIND, entry.kind.encode()),
                ("account", entry.account.encode()),
                ("id", entry.id.encode()),
                (VERSION, b"%d" % entry.version),
            ),
        )
