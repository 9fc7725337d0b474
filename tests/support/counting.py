"""A counter by key on the transactional processor, as a process that a test can kill.

`python -m tests.support.counting BOOTSTRAP NAMESPACE INSTANCE STATE_DIR`. Every command adds one to its key and writes
the count as a fact. The state is on RocksDB, so a new life replays only the changelog's tail.
"""

import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import uvloop

from millrace_core.clock import SystemClock
from millrace_core.handling import State
from millrace_core.record import Output, Received
from millrace_kafka.client import Cluster
from millrace_kafka.rocks import RocksStores
from millrace_kafka.transactional import TransactionalProcessor

INPUTS = ("run-commands", "run-commands-tx", "step-results")


class Counting:
    def load(self, state: State, read_back: Iterable[Received]) -> None: ...

    def handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        key = record.key or b""
        count = b"%d" % (int(state.get(key) or b"0") + 1)
        state.put(key, count)
        return [Output("run-facts", key, b"%b %b" % (count, record.value or b""))]

    def due(self, state: State, now_ms: int, limit: int) -> Sequence[Output]:
        return ()

    def next_due_ms(self) -> int | None:
        return None


async def main(bootstrap: str, namespace: str, instance: str, state_dir: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    processor = TransactionalProcessor(
        Cluster(bootstrap, namespace),
        group="orchestrator",
        inputs=INPUTS,
        changelog="orchestrator-changelog",
        handler=lambda _: Counting(),
        store=RocksStores(Path(state_dir)),
        clock=SystemClock(),
        instance=instance,
    )
    await processor.run(stop)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:5]))
