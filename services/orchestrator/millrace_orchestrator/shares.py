"""How many steps of each account are out at the executors: a share of STEPS_RELEASED_MAX, the rest are held here.

The log is first in, first out: without this bound 100,000 steps of one account would stand before everyone's next one.
Each partition has its part of the share, since runs are spread evenly over them and none knows of the others.
A held step is an entry of the task's state under account and run, so the account's oldest runs go on first (roughly:
the head of the queue is read ahead). The counts are volatile, rebuilt from the live runs at load. Not here: what a
step is made of (`runs`).
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec

from millrace_core import limits
from millrace_core.handling import State

PREFIX = b"held/"


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A step that was decided and has not gone out."""

    run: str
    node: str
    attempt: int


def share_of(partitions: int) -> int:
    """How many steps of one account one of so many partitions may have out."""
    return max(1, limits.STEPS_RELEASED_MAX // partitions)


class _Account:
    """`ahead` is the head of the queue as read from the state; `held` counts the whole of it."""

    __slots__ = ("ahead", "held", "released")

    def __init__(self) -> None:
        self.released = 0
        self.held = 0
        self.ahead: deque[Held] = deque()


class Shares:
    """The shares of one task's accounts. Change it only when the record at hand can no longer be refused."""

    def __init__(self, *, released_max: int = limits.STEPS_RELEASED_MAX) -> None:
        self._released_max = released_max
        self._accounts: dict[str, _Account] = {}

    def load(self, state: State, running: Iterable[tuple[str, int]]) -> None:
        """Rebuild the counts from (account, running steps) of every live run, and from what is held."""
        for account, count in running:
            self._account(account).released += count
        for key, _ in state.scan(PREFIX):
            at = self._account(key.split(b"/", 2)[1].decode())
            at.held += 1
            at.released -= 1

    def admit(self, state: State, account: str, step: Held) -> bool:
        """Whether a new step may go out now. Else it is held, and `released` gives it back when its turn comes."""
        at = self._account(account)
        if at.released < self._released_max and not at.held:
            at.released += 1
            return True
        state.put(_key(account, step), _encoder.encode(step))
        at.held += 1
        return False

    def settle(self, state: State, account: str, step: Held) -> None:
        """A step is over: it came back, or its run ended without it."""
        at = self._account(account)
        key = _key(account, step)
        if at.held and state.get(key) is not None:
            state.delete(key)
            at.held -= 1
        else:
            at.released -= 1
        if not at.held and not at.released:
            del self._accounts[account]

    def released(self, state: State, account: str) -> list[Held]:
        """The held steps whose turn has come: they go out now."""
        at = self._accounts.get(account)
        out: list[Held] = []
        while at is not None and at.held and at.released < self._released_max:
            step = self._next(state, account, at)
            state.delete(_key(account, step))
            at.held -= 1
            at.released += 1
            out.append(step)
        return out

    def counts(self, account: str) -> tuple[int, int]:
        """How many of its steps are out, and how many are held."""
        at = self._accounts.get(account)
        return (0, 0) if at is None else (at.released, at.held)

    @property
    def held(self) -> int:
        """How many steps are held, of all accounts."""
        return sum(at.held for at in self._accounts.values())

    def _next(self, state: State, account: str, at: _Account) -> Held:
        while True:
            if not at.ahead:
                # Read ahead, since each scan walks over what was deleted before it.
                queue = state.scan(b"%b%b/" % (PREFIX, account.encode()))
                at.ahead.extend(_decoder.decode(value) for _, value in islice(queue, limits.STEPS_HELD_IN_MEMORY_MAX))
            step = at.ahead.popleft()
            if state.get(_key(account, step)) is not None:
                return step

    def _account(self, account: str) -> _Account:
        at = self._accounts.get(account)
        if at is None:
            at = self._accounts[account] = _Account()
        return at


def _key(account: str, step: Held) -> bytes:
    return b"%b%b/%b/%b" % (PREFIX, account.encode(), step.run.encode(), step.node.encode())


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Held] = msgspec.msgpack.Decoder(Held)
