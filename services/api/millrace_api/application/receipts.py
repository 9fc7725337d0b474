"""Receipts: what proves that the facts about an event, a run or a delivery stand in the roots of their days.

A receipt is for who may see the thing itself. Whoever he hands it to can check it with nothing but SHA-256, and ask
`prove` whether the root still stands here: that answers only who names a leaf, which nobody can guess, and tells hashes
and numbers alone. Receipts outlive the rows of what they tell of. Not here: how roots are made (the projector).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from millrace_api.application.notation import stored, stored_run
from millrace_api.application.problems import NoSuchId, NotFound
from millrace_core import ids
from millrace_core.limits import (
    RECEIPT_CHUNK_LEAVES,
    RECEIPT_CHUNKS_LOOKED_AT_MAX,
    RECEIPT_DAYS_LOOKED_AT_MAX,
    RECEIPT_FACTS_MAX,
)
from millrace_core.receipts import kind_of, leaves_of, levels_of, parse_entry, path_of, salt_of, split
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/receipts")
# A thing's id carries its time; an event with a uniqueKey has its day's start, and clocks are not one.
_EARLIER = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST, _MOST = b"\x00" * 16, b"\xff" * 16


@dataclass(frozen=True, slots=True)
class RootView:
    """The tree over an account's facts of one day, `day` its start. `chain` is made of `previous` (the chain of the
    account's day before; 64 zeros at first) and of the rest."""

    day: datetime
    leaves: int
    root: str
    previous: str
    chain: str


@dataclass(frozen=True, slots=True)
class FactReceipt:
    """`fact` is the fact's id: the uuid of what it tells of, a byte for the kind, and what tells it from others.
    `content` is SHA-256 of `salt` and the fact's record. `leaf` is made of `fact`, `at`, `outcome` and `content`."""

    kind: str
    outcome: str | None
    at: datetime
    fact: str
    salt: str
    content: str
    leaf: str
    index: int
    path: list[str]
    day: datetime
    leaves: int
    root: str
    previous: str
    chain: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """`closed_until`: facts from before it are in; later ones get their receipts when their day is closed. `left_out`
    counts facts that are there and not told."""

    id: str
    account: str
    facts: list[FactReceipt]
    closed_until: datetime | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf stands in the tree with this root, and which link of a chain that is."""

    leaf: str
    index: int
    path: list[str]
    leaves: int
    root: str
    previous: str
    chain: str


async def listed(tx: Connection, account: str, *, below: datetime, count: int) -> list[RootView]:
    """Newest first."""
    return [_root(row) for row in await tx.fetch(_SQL["list_roots"], account, below, count)]


async def of_event(tx: Connection, account: str, id: str) -> Receipt:
    return await _of(tx, account, id, stored(id, "event", ids.EVENT), "event")


async def of_run(tx: Connection, account: str, id: str) -> Receipt:
    return await _of(tx, account, id, stored_run(id), "run")


async def of_delivery(tx: Connection, account: str, id: str) -> Receipt:
    return await _of(tx, account, id, stored(id, "delivery", ids.DELIVERY), "delivery")


async def prove(tx: Connection, root: bytes, index: int, leaf: bytes) -> Proof:
    """The path of a leaf. NotFound for whatever is not there: no root, no such index, or another leaf at it."""
    missing = NotFound("leaf", leaf.hex())
    at = index % RECEIPT_CHUNK_LEAVES
    row = await tx.fetchrow(_SQL["chunk_of_root"], root, index - at)
    if row is None or (tree := await _tree(tx, row)) is None or tree.leaves[at : at + 1] != [leaf]:
        raise missing
    view = _root(row)
    return Proof(leaf.hex(), index, tree.path(at), view.leaves, view.root, view.previous, view.chain)


# ── one thing's facts ───────────────────────────────────────────────────────────────────────────────────────────────
async def _of(tx: Connection, account: str, id: str, uuid: UUID, what: str) -> Receipt:
    chunks = await tx.fetch(
        _SQL["chunks_between"],
        account,
        _began(id, what) - _EARLIER,
        RECEIPT_DAYS_LOOKED_AT_MAX,
        uuid.bytes + _LEAST,
        uuid.bytes + _MOST,
        RECEIPT_CHUNKS_LOOKED_AT_MAX,
    )
    seed: bytes | None = await tx.fetchval(_SQL["seed"])
    facts: list[FactReceipt] = []
    found = 0
    for chunk in chunks:
        own = [(at, entry) for at, entry in enumerate(split(chunk["entries"])) if entry.startswith(uuid.bytes)]
        if own and seed is not None and (tree := await _tree(tx, chunk)) is not None:
            found += len(own)
            facts += _receipts(tree, chunk, own[: RECEIPT_FACTS_MAX - len(facts)], seed)
    if not found and not await tx.fetchval(_SQL[f"has_{what}"], account, uuid):
        raise NotFound(what, id)
    closed_until = await tx.fetchval(_SQL["closed_until"])
    return Receipt(id, account, facts, closed_until, left_out=found - len(facts))


def _began(id: str, what: str) -> datetime:
    try:
        return _moment(ids.time_ms_of(id))
    except OverflowError:  # years past 9999
        raise NoSuchId(what, id) from None


def _receipts(tree: "_Tree", row: Row, places: Sequence[tuple[int, bytes]], seed: bytes) -> list[FactReceipt]:
    view = _root(row)
    parsed = [(at, parse_entry(entry)) for at, entry in places]
    return [
        FactReceipt(
            kind=kind_of(entry.id),
            outcome=entry.outcome or None,
            at=_moment(entry.at),
            fact=entry.id.hex(),
            salt=salt_of(seed, row["account"], entry.id).hex(),
            content=entry.content.hex(),
            leaf=tree.leaves[at].hex(),
            index=row["first"] + at,
            path=tree.path(at),
            day=view.day,
            leaves=view.leaves,
            root=view.root,
            previous=view.previous,
            chain=view.chain,
        )
        for at, entry in parsed
    ]


# ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class _Tree:
    """A day's tree as far as the leaves of one chunk need it: what is above them in the chunk, and the path from there
    over the roots of all chunks, which are subtrees of one tree."""

    def __init__(self, leaves: Sequence[bytes], number: int, chunk_roots: Sequence[bytes]) -> None:
        self.leaves = leaves
        self._levels = levels_of(leaves)
        self._above = path_of(number, levels_of(chunk_roots))

    def path(self, at: int) -> list[str]:
        """Of the leaf at this place of the chunk."""
        return [beside.hex() for beside in (*path_of(at, self._levels), *self._above)]


async def _tree(tx: Connection, row: Row) -> _Tree | None:
    """Of a chunk's row, with its account and day; None while not all chunks of the day are in the read models."""
    roots = await tx.fetch(_SQL["chunk_roots"], row["account"], row["day"])
    if len(roots) * RECEIPT_CHUNK_LEAVES < row["leaves"]:
        return None
    leaves = leaves_of(row["account"], row["entries"])
    return _Tree(leaves, row["first"] // RECEIPT_CHUNK_LEAVES, [chunk["root"] for chunk in roots])


def _root(row: Row) -> RootView:
    return RootView(row["day"], row["leaves"], row["root"].hex(), row["previous"].hex(), row["chain"].hex())


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
