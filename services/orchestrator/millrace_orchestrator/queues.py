"""The index over what the decider of admissions keeps: a queue for each flow, its keys, and who is ready.

Volatile: made anew from the task's state (`waiting`) whenever its life begins. A queue knows what its flow bounds. Not
here: who begins, and what is told (`admissions`).
"""

from hashlib import blake2b

from millrace_core import limits
from millrace_core.messages import FlowControl, WaitReason
from millrace_orchestrator.throttle import Spent
from millrace_orchestrator.waiting import Gathering, Kind, Mark, Waiting

Place = tuple[int, int, int, str]
"""Of a ready one in its key's queue: priority, when its event was received, its offset, the run."""
Rank = tuple[bool, int, int, int, bytes]


class Key:
    """One key of one queue. `ready` is a heap that still names who is `gone`, `ranked` its place among the keys."""

    __slots__ = (
        "blocked_until",
        "gone",
        "id",
        "is_kept",
        "mark",
        "name",
        "open",
        "queue",
        "ranked",
        "ready",
        "running",
        "spent",
        "waiting",
    )

    def __init__(self, queue: "Queue", name: str, id: bytes) -> None:
        self.queue = queue
        self.name = name
        self.id = id
        self.ready: list[Place] = []
        self.gone: set[str] = set()
        self.open: Waiting | None = None
        self.waiting = 0
        self.running = 0
        self.spent: Spent = ()
        self.mark: Mark | None = None
        self.is_kept = False
        self.blocked_until = 0
        self.ranked: Rank | None = None

    def entry(self, prefix: bytes, run: str) -> bytes:
        return b"%b%b/%b" % (prefix, self.id, run.encode())

    def oldest_at(self) -> int:
        """When the event of the oldest of the ready ones, one at least, was received."""
        return min(at for _, at, _, run in self.ready if run not in self.gone)


class Queue:
    """One subscription's. What those in `fresh` wait for must be told in this turn; of `firsts` it should be."""

    __slots__ = ("account", "firsts", "flow", "fresh", "id", "keys", "ranks", "running", "subscription", "waiting")

    def __init__(self, account: str, subscription: str, id: bytes, flow: FlowControl) -> None:
        self.account = account
        self.subscription = subscription
        self.id = id
        self.flow = flow
        self.keys: dict[bytes, Key] = {}
        self.waiting = 0
        self.running = 0
        self.ranks: list[Rank] = []
        self.fresh: dict[str, Key] = {}
        self.firsts: dict[str, Key] = {}

    @property
    def kind(self) -> Kind | None:
        if self.flow.batch is not None:
            return "batch"
        return None if self.flow.debounce is None else self.flow.debounce.mode

    def closes_at(self, gathering: Gathering) -> int:
        """When an open one is ready. What was opened under another flow is so at once."""
        debounce, batch = self.flow.debounce, self.flow.batch
        if gathering.kind != self.kind:
            return 0
        if batch is not None:
            return gathering.opened_at + _ms(batch.wait_s)
        assert debounce is not None
        return min(gathering.last_at + _ms(debounce.quiet_s), gathering.opened_at + _ms(debounce.longest_s))

    def items_max(self) -> int:
        return limits.FLOW_BATCH_ITEMS_MAX if self.flow.batch is None else self.flow.batch.size

    def is_full(self) -> bool:
        """No more may begin, whatever their key."""
        concurrency = self.flow.concurrency
        return concurrency is not None and concurrency.total is not None and self.running >= concurrency.total

    def is_at_ceiling(self, key: Key) -> bool:
        concurrency = self.flow.concurrency
        return concurrency is not None and concurrency.ceiling is not None and key.running >= concurrency.ceiling

    def holds(self, key: Key) -> WaitReason:
        """What those of a key that are ready wait for."""
        is_accounts = self.subscription == self.account
        if self.flow.drain:
            return "account_drain" if is_accounts else "drain"
        if self.flow.throttle is not None and not self.is_full() and not self.is_at_ceiling(key):
            return "account_throttle" if is_accounts else "throttle"
        return "account_concurrency" if is_accounts else "concurrency"

    def has_floor(self, key: Key) -> bool:
        return self.flow.concurrency is None or key.running >= self.flow.concurrency.floor


def queue_id(account: str, subscription: str) -> bytes:
    """What a subscription's queue is called."""
    return b"%b/%b" % (account.encode(), subscription.encode())


def key_id(queue: Queue, name: str) -> bytes:
    """What a key is called in its queue; a name may be long, and hold anything."""
    return b"%b/%b" % (queue.id, blake2b(name.encode(), digest_size=12).hexdigest().encode())


def place_of(waiting: Waiting) -> Place:
    """Its place among the ready ones of its key."""
    return waiting.priority, waiting.came.at, waiting.came.offset, waiting.run


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
