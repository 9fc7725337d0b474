"""A transactional task without a broker: state, input log and outputs of one partition, with crashes at will.

It keeps the processor's rules that a handler may rely on: a batch is one transaction, a refused record leaves no
trace but its letter, and after a crash a new handler is loaded from the committed state and the log before it.
Not covered: fencing, rebalances, the broker (tests/integration, tests/fault).
"""

from collections.abc import Callable, Iterator, Sequence

from millrace_core.dead_letters import TRANSACTIONAL, dead_letter
from millrace_core.errors import Reject
from millrace_core.handling import Parked, State, TransactionalHandler
from millrace_core.record import Output, Written


class Overlay:
    """A State over a dictionary; nothing reaches the dictionary before `apply`."""

    def __init__(self, committed: dict[bytes, bytes]) -> None:
        self.committed = committed
        self.changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.changes[key] if key in self.changes else self.committed.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.changes[key] = value

    def delete(self, key: bytes) -> None:
        self.changes[key] = None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(key for key in {*self.committed, *self.changes} if key.startswith(prefix))
        return ((key, value) for key in keys if (value := self.get(key)) is not None)

    def apply(self) -> None:
        for key, value in self.changes.items():
            if value is None:
                self.committed.pop(key, None)
            else:
                self.committed[key] = value
        self.changes = {}


class Task:
    """One partition's task. `log` holds every record handled so far, which is what a new handler may read back."""

    def __init__(self, handler: Callable[[], TransactionalHandler], read_back: Sequence[str]) -> None:
        self._make = handler
        self._read_back = read_back
        self.state: dict[bytes, bytes] = {}
        self.log: list[Written] = []
        self.written: list[Output] = []
        self.handler = self._begin()

    def _begin(self) -> TransactionalHandler:
        handler = self._make()
        handler.load(Overlay(self.state), [record for record in self.log if record.topic in self._read_back])
        return handler

    def crash(self) -> None:
        """End this life and begin the next."""
        self.handler = self._begin()

    def feed(self, *records: Written, crash: bool = False) -> list[Output]:
        """Handle a batch. With `crash` the transaction does not happen, and the life ends; else gives its outputs."""
        overlay = Overlay(self.state)
        outputs: list[Output] = []
        for record in records:
            outputs += self._handle(record, overlay)
        return self._end(overlay, outputs, records, crash)

    def turn(self, *records: Written, now_ms: int, limit: int = 1_000, crash: bool = False) -> list[Output]:
        """One transaction as the processor makes it: a batch, and then what time asks for."""
        overlay = Overlay(self.state)
        outputs: list[Output] = []
        for record in records:
            outputs += self._handle(record, overlay)
        outputs += self.handler.due(overlay, now_ms, limit)
        return self._end(overlay, outputs, records, crash)

    def wake(self, now_ms: int, *, limit: int = 1_000, crash: bool = False) -> list[Output]:
        """Let time alone ask."""
        overlay = Overlay(self.state)
        outputs = list(self.handler.due(overlay, now_ms, limit))
        return self._end(overlay, outputs, (), crash)

    def _handle(self, record: Written, overlay: Overlay) -> Sequence[Output]:
        before = dict(overlay.changes)
        try:
            return self.handler.handle(record, overlay, record.timestamp)
        except Reject as reason:
            overlay.changes = before
            beside = reason.outputs if isinstance(reason, Parked) else ()
            return [dead_letter(record, str(reason), topic=TRANSACTIONAL), *beside]

    def _end(self, overlay: Overlay, outputs: list[Output], records: Sequence[Written], crash: bool) -> list[Output]:
        if crash:
            self.crash()
            return []
        overlay.apply()
        self.log += records
        self.written += outputs
        return outputs


def as_state(state: dict[bytes, bytes]) -> State:
    """The committed state, for a look."""
    return Overlay(state)
