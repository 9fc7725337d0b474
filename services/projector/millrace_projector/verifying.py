"""`millrace verify --receipts`: makes the roots of closed days again from the facts on the log, and compares them with
what stands on `receipt-roots` and with the read models.

Of a day whose facts the log no longer holds, the stored leaves must still give the roots that were written then. Each
account's roots must chain. Safe beside a running platform: nothing is written but a temporary table.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from millrace_core.errors import MillraceError, Reject
from millrace_core.ids import DAY_MS
from millrace_core.messages import DayClosed, ReceiptRecord, ReceiptRoot, ReceiptSeed, decode
from millrace_core.receipts import GENESIS, Tree, chain_of, leaves_of, root_of
from millrace_core.record import Received
from millrace_kafka.client import Cluster
from millrace_kafka.reader import Part, Reader
from millrace_projector import receipt_days
from millrace_projector.receipt_days import RECEIPT_ROOTS
from millrace_projector.settings import ProjectorSettings
from millrace_runtime import settings as read_settings
from millrace_store import receipts
from millrace_store.pool import Connection, connect
from millrace_store.receipts import StoredRoot

NAMED_MAX = 20
PROJECTED_WAIT_S = 30.0

State = Literal["equal", "different", "leaves agree", "not closed"]
"""`leaves agree`: the facts are no longer on the log, and the stored leaves give the roots that were written."""


@dataclass(slots=True)
class Verdict:
    """What was found of one day. `named` holds the first of what differs, in words."""

    day: int
    state: State
    accounts: int = 0
    facts: int = 0
    named: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For a human."""
        counted = "" if self.state == "not closed" else f": {self.facts} facts of {self.accounts} accounts"
        return f"{_iso(self.day)}  {self.state}{counted}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is judged: days that begin in between (`to_ms` left out), of one account or of all."""

    account: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def holds(self, day: int) -> bool:
        return (self.from_ms is None or day >= self.from_ms) and (self.to_ms is None or day < self.to_ms)


EVERYTHING = Scope()


class _Book:
    """`receipt-roots` as it stands: of each thing the first. Holds an entry for each account and day in scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.seed: bytes | None = None
        self.days: dict[int, DayClosed] = {}
        self.roots: dict[int, dict[str, ReceiptRoot]] = {}
        self.wrong: dict[int, list[str]] = {}
        self._last: dict[str, ReceiptRoot] = {}

    def feed(self, record: Received) -> None:
        """Take one record, in log order of its partition."""
        try:
            told: ReceiptRecord = decode(record.value, ReceiptRecord)  # type: ignore[arg-type]
        except Reject:
            return  # a dead letter
        match told:
            case ReceiptSeed():
                self.seed = self.seed or told.seed
            case DayClosed():
                self.days.setdefault(told.day, told)
            case ReceiptRoot() if self._scope.account in (None, told.account):
                self._root(told)

    def _root(self, root: ReceiptRoot) -> None:
        last = self._last.get(root.account)
        first = self.roots.get(root.day, {}).get(root.account)
        if first is not None and first.chain != root.chain:
            self._name(root.day, f"{root.account} has a second root on {RECEIPT_ROOTS}, {root.root.hex()}")
        if last is not None and root.day <= last.day:
            return  # said again
        if root.previous != (GENESIS if last is None else last.chain):
            self._name(root.day, f"the root of {root.account} does not follow that of its day before")
        if root.chain != chain_of(root.previous, root.account, root.day, root.leaves, root.root):
            self._name(root.day, f"the chain of {root.account} is not made of what its record says")
        self._last[root.account] = root
        if self._scope.holds(root.day):
            self.roots.setdefault(root.day, {})[root.account] = root

    def _name(self, day: int, what: str) -> None:
        if self._scope.holds(day):
            self.wrong.setdefault(day, []).append(what)


async def verify(
    cluster: Cluster, dsn: str, *, scope: Scope = EVERYTHING, day_ms: int = DAY_MS, wait_s: float = PROJECTED_WAIT_S
) -> list[Verdict]:
    """A verdict for each day in scope that is closed, and one for the next. Raises Retry when Kafka or Postgres is
    away, or no projector has read what stands on the log."""
    connection = await connect(dsn, name="millrace verify, receipts", statement_s=0)
    try:
        async with Reader(cluster) as reader:
            await receipt_days.until_projected(reader, connection, wait_s=wait_s)
            return await _Judgement(reader, connection, await _book(reader, scope), scope, day_ms).verdicts()
    finally:
        connection.terminate()


async def _book(reader: Reader, scope: Scope) -> _Book:
    book = _Book(scope)
    parts = await reader.partitions((RECEIPT_ROOTS,))
    async for records in reader.read(await reader.starts(parts), await reader.ends(parts)):
        for record in records:
            book.feed(record)
    return book


class _Judgement:
    """The verdicts in the making."""

    def __init__(self, reader: Reader, connection: Connection, book: _Book, scope: Scope, day_ms: int) -> None:
        self._reader = reader
        self._connection = connection
        self._book = book
        self._scope = scope
        self._day_ms = day_ms

    async def verdicts(self) -> list[Verdict]:
        found = [await self._of(day) for day in sorted(self._book.days) if self._scope.holds(day)]
        following = max(self._book.days, default=None)
        if following is not None and self._scope.holds(following + self._day_ms):
            found.append(Verdict(following + self._day_ms, "not closed"))
        return found

    async def _of(self, day: int) -> Verdict:
        written = self._book.roots.get(day, {})
        stored = await receipts.roots_of_day(self._connection, day, self._scope.account)
        verdict = Verdict(day, "equal", len(written), sum(root.leaves for root in written.values()))
        wrong = [*self._book.wrong.get(day, []), *_compared(written, stored)]
        starts = await self._starts(day)
        if starts is not None and self._book.seed is not None:
            made, differing = await self._from_facts(day, starts, self._book.seed)
            wrong += [*differing, *_differences("the facts on the log", written, made)]
        else:
            verdict.state = "leaves agree"
            wrong += _differences("the stored leaves", written, await self._from_leaves(day, written))
        if wrong:
            verdict.state, verdict.named = "different", wrong[:NAMED_MAX]
        return verdict

    async def _starts(self, day: int) -> Mapping[Part, int] | None:
        """Where the day begins; None when the log may have lost facts of it: it has none if it holds what was closed
        last before the day, or a record from before it."""
        starts = await receipt_days.beginning(self._reader, day)
        held = await self._reader.starts(starts)
        before = self._book.days.get(day - self._day_ms)
        begun = {} if before is None else {(topic, part): offset for topic, part, offset in before.ends}
        is_whole = all(held[part] <= begun.get(part, 0) or held[part] < start for part, start in starts.items())
        return starts if is_whole else None

    async def _from_facts(self, day: int, starts: Mapping[Part, int], seed: bytes) -> tuple[dict[str, Tree], list[str]]:
        """The trees, and how stored leaves differ from theirs."""
        made: dict[str, Tree] = {}
        wrong: list[str] = []
        ends = await receipt_days.beginning(self._reader, day + self._day_ms)
        account = self._scope.account
        async for chunk in receipt_days.trees(self._reader, self._connection, starts, ends, seed=seed, account=account):
            stored = await receipts.chunk(self._connection, chunk.account, day, chunk.first)
            if stored != (chunk.entries, chunk.root):
                what = "are missing" if stored is None else "differ from the log's facts"
                wrong.append(f"the stored leaves of {chunk.account} from {chunk.first} on {what}")
            if chunk.tree is not None:
                made[chunk.account] = chunk.tree
        return made, wrong

    async def _from_leaves(self, day: int, written: Mapping[str, ReceiptRoot]) -> dict[str, Tree]:
        made: dict[str, Tree] = {}
        for account, root in written.items():
            roots: list[bytes] = []
            leaves = 0
            while leaves < root.leaves:
                chunk = await receipts.chunk(self._connection, account, day, leaves)
                if chunk is None:
                    break
                own = leaves_of(account, chunk[0])
                leaves += len(own)
                roots.append(root_of(own))
            if roots:
                made[account] = Tree(leaves, root_of(roots))
        return made


def _compared(written: Mapping[str, ReceiptRoot], stored: Mapping[str, StoredRoot]) -> Iterator[str]:
    """How the read models differ from `receipt-roots`."""
    for account in sorted(written.keys() | stored.keys()):
        on_log, row = written.get(account), stored.get(account)
        if on_log is None or row is None:
            yield f"the root of {account} is in one of {RECEIPT_ROOTS} and read model receipt_roots only"
        elif row != StoredRoot(on_log.leaves, on_log.root, on_log.previous, on_log.chain):
            yield f"{account}: {RECEIPT_ROOTS} says {on_log.root.hex()}, read model {row.root.hex()} or another link"


def _differences(of: str, written: Mapping[str, ReceiptRoot], made: Mapping[str, Tree]) -> Iterator[str]:
    for account in sorted(written.keys() | made.keys()):
        on_log, tree = written.get(account), made.get(account)
        said = "no root" if on_log is None else f"{on_log.root.hex()} over {on_log.leaves}"
        found = "no root" if tree is None else f"{tree.root.hex()} over {tree.leaves}"
        if said != found:
            yield f"{account}: {RECEIPT_ROOTS} says {said}, {of} give {found}"


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def main(arguments: Sequence[str]) -> int:
    """The command `python -m millrace_projector verify-receipts`; answers the exit code: 0 when nothing differs."""
    parser = argparse.ArgumentParser(prog="millrace verify --receipts", description="Make the receipts' roots again.")
    parser.add_argument("--account", help="this account alone")
    parser.add_argument("--from-ms", type=int, help="days that begin then or later")
    parser.add_argument("--to-ms", type=int, help="days that begin before that")
    parsed = parser.parse_args(arguments)
    scope = Scope(parsed.account, parsed.from_ms, parsed.to_ms)
    try:
        verdicts = asyncio.run(_run(read_settings.read(ProjectorSettings), scope))
    except MillraceError as error:
        sys.stderr.write(f"millrace verify: {error}\n")
        return 1
    for verdict in verdicts:
        sys.stdout.write("\n".join([verdict.line(), *(f"  {name}" for name in verdict.named)]) + "\n")
    different = sum(verdict.state == "different" for verdict in verdicts)
    sys.stdout.write(f"receipts different {different}\n")
    return 1 if different else 0


async def _run(settings: ProjectorSettings, scope: Scope) -> list[Verdict]:
    cluster = Cluster(settings.kafka, settings.namespace, "millrace-verify", settings.security)
    return await verify(cluster, settings.postgres.get_secret_value(), scope=scope)
