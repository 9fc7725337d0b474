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
from millrace_core.receipts import HASH_BYTES, kind_of, leaf_of, leaves_of, path_of, salt_of
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/receipts")
# A thing's id carries its time; an event with a uniqueKey has its day's start, and clocks are not one.
_EARLIER = timedelta(days=1)
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
    `content` is SHA-256 of `salt` and the fact's record, `leaf` SHA-256 of 00, `fact`, `content` and the account."""

    kind: str
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
    row = await tx.fetchrow(_SQL["find_root"], root)
    if row is None or not 0 <= index < row["leaves"]:
        raise missing
    chunk = await tx.fetchrow(_SQL["chunk"], row["account"], row["day"], index - index % RECEIPT_CHUNK_LEAVES)
    if chunk is None:
        raise missing
    leaves = leaves_of(row["account"], chunk["ids"], chunk["contents"])
    if leaves[index % RECEIPT_CHUNK_LEAVES] != leaf:
        raise missing
    path = _path(index, leaves, await _chunk_roots(tx, row))
    view = _root(row)
    return Proof(leaf.hex(), index, path, view.leaves, view.root, view.previous, view.chain)


# ── one thing's facts ───────────────────────────────────────────────────────────────────────────────────────────────
async def _of(tx: Connection, account: str, id: str, uuid: UUID, what: str) -> Receipt:
    since = _began(id) - _EARLIER
    days = await tx.fetch(_SQL["days_from"], account, since, RECEIPT_DAYS_LOOKED_AT_MAX)
    seed: bytes | None = await tx.fetchval(_SQL["seed"])
    facts: list[FactReceipt] = []
    found = 0
    for day in days:
        low, high = uuid.bytes + _LEAST, uuid.bytes + _MOST
        chunks = await tx.fetch(_SQL["chunks_between"], account, day["day"], low, high, RECEIPT_CHUNKS_LOOKED_AT_MAX)
        places = [(chunk, at) for chunk in chunks for at in _places(chunk["ids"], uuid.bytes)]
        found += len(places)
        if places and seed is not None:
            shown = places[: RECEIPT_FACTS_MAX - len(facts)]
            facts += await _receipts(tx, account, day, shown, seed)
    if not found and not await tx.fetchval(_SQL[f"has_{what}"], account, uuid):
        raise NotFound(what, id)
    closed_until = await tx.fetchval(_SQL["closed_until"])
    return Receipt(id, account, facts, closed_until, left_out=found - len(facts))


def _began(id: str) -> datetime:
    try:
        return datetime.fromtimestamp(ids.time_ms_of(id) / 1000, UTC)
    except (ValueError, OverflowError):  # years past 9999
        raise NoSuchId("thing", id) from None


def _places(fact_ids: bytes, subject: bytes) -> list[int]:
    """At which of a chunk's leaves facts of this subject stand."""
    return [
        at // HASH_BYTES for at in range(0, len(fact_ids), HASH_BYTES) if fact_ids[at : at + len(subject)] == subject
    ]


async def _receipts(
    tx: Connection, account: str, day: Row, places: Sequence[tuple[Row, int]], seed: bytes
) -> list[FactReceipt]:
    roots, view = await _chunk_roots(tx, day), _root(day)
    leaves = {chunk["first"]: leaves_of(account, chunk["ids"], chunk["contents"]) for chunk, _ in places}
    found = []
    for chunk, at in places:
        id, content = (chunk[column][at * HASH_BYTES :][:HASH_BYTES] for column in ("ids", "contents"))
        found.append(
            FactReceipt(
                kind=kind_of(id),
                fact=id.hex(),
                salt=salt_of(seed, account, id).hex(),
                content=content.hex(),
                leaf=leaf_of(account, id, content).hex(),
                index=chunk["first"] + at,
                path=_path(chunk["first"] + at, leaves[chunk["first"]], roots),
                day=view.day,
                leaves=view.leaves,
                root=view.root,
                previous=view.previous,
                chain=view.chain,
            )
        )
    return found


async def _chunk_roots(tx: Connection, root: Row) -> list[bytes]:
    rows = await tx.fetch(_SQL["chunk_roots"], root["account"], root["day"])
    return [row["root"] for row in rows]


def _path(index: int, leaves: Sequence[bytes], roots: Sequence[bytes]) -> list[str]:
    """Up through the leaf's own chunk, then over the roots of all chunks: they are subtrees of one tree."""
    inside = path_of(index % RECEIPT_CHUNK_LEAVES, leaves)
    above = path_of(index // RECEIPT_CHUNK_LEAVES, roots)
    return [hash.hex() for hash in (*inside, *above)]


def _root(row: Row) -> RootView:
    return RootView(row["day"], row["leaves"], row["root"].hex(), row["previous"].hex(), row["chain"].hex())
