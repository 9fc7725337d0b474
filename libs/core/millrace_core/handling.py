"""What a handler is to a processor: the seams between pure rules and the log, without any of the log's client.

Handlers import this and the rest of core, never `millrace_kafka`: the processors there drive them. A handler does no
I/O and never blocks; given the same state and records it gives the same outputs.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from millrace_core.errors import Reject
from millrace_core.record import Output, Received

Change = tuple[bytes, bytes | None]
"""One changelog entry: state key, and its new value (None = forgotten)."""


class Handled(msgspec.Struct, gc=False):
    """What an idempotent handler made of a batch, in the order in which it may become visible.

    `outputs` are acked first; then `facts` (which name them) and `changes` (changelog, to the records' own
    partition); only then is the batch's position committed."""

    outputs: list[Output]
    facts: list[Output]
    changes: list[tuple[int, bytes, bytes]]  # source partition, state key, value


class Parked(Reject):
    """The record can never be handled; park it, and write `outputs` beside it (a terminal fact of what it named)."""

    def __init__(self, reason: str, outputs: Sequence[Output]) -> None:
        super().__init__(reason)
        self.outputs = outputs


class IdempotentHandler(Protocol):
    """The matcher's shape: driven by `millrace_kafka.idempotent`, one per process, many partitions."""

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Take (key, value, record time ms) of the partition's changelog, oldest first. Called before its records."""
        ...

    def forget(self, partition: int) -> None:
        """The partition went to another owner."""
        ...

    def handle(self, records: Sequence[Received], position: int) -> Handled:
        """Decide a batch of one partition, in order. `position` is the control view's, stamped on every output.
        May be called again with records it has seen: the answer must name the same ids."""
        ...

    def tally(self) -> Sequence[Output]:
        """What was counted since the last call, asked for about once a second. May be lost or, after a failure, count
        a batch twice: nothing is decided by it."""
        ...


class State(Protocol):
    """A transactional task's keyed state, as of the last commit plus this transaction's own changes."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...
    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with `prefix`, in key order."""
        ...


class TransactionalHandler(Protocol):
    """The orchestrator's and scheduler's shape: driven by `millrace_kafka.transactional`, one per partition number and
    life of its task. Volatile indexes (heaps, windows) may be kept in the handler: it is made anew, and `load`ed,
    whenever the outcome of a transaction is unknown."""

    def load(self, state: State, read_back: Iterable[Received]) -> None:
        """Rebuild volatile indexes from the restored state, and from the task's own input records that precede its
        position (topics the processor was told to read back, oldest first)."""
        ...

    def handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        """Decide one record. Raising Reject parks it in `dead-letters-tx` in the same transaction, with nothing of
        what it did to `state` (and with what a Parked carries); volatile indexes must therefore change last."""
        ...

    def due(self, state: State, now_ms: int, limit: int) -> Sequence[Output]:
        """Decide what time alone asks for, at most `limit` things."""
        ...

    def next_due_ms(self) -> int | None:
        """When `due` has something to say; None = nothing waits."""
        ...


class ControlFollower(Protocol):
    """Someone who follows one kind of control records (`millrace_kafka.control` calls it in log order)."""

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        """The aggregate's newest version; None = deleted. Must not raise: a damaged value counts as deleted."""
        ...
