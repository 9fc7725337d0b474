"""What `receipt-roots` and `receipt-leaves` say about the read models.

The first record of a thing stands, since whoever closes a day again after a crash says the same again. A root that
says something else leaves its chain behind, so that it is seen (`closing` tells). Pure.
"""

import json

from millrace_core import limits, receipts
from millrace_core.errors import Reject
from millrace_core.messages import DayClosed, ReceiptLeaves, ReceiptRecord, ReceiptRoot, ReceiptSeed, decode
from millrace_core.record import Received
from millrace_projector import tables
from millrace_projector.rows import Rows
from millrace_projector.values import clean, int8, moment

_CHAIN = tables.RECEIPT_ROOTS.columns.index("chain")
_OTHER_CHAIN = tables.RECEIPT_ROOTS.columns.index("other_chain")


def receipt_written(record: Received, rows: Rows) -> None:
    """`receipt-roots`: seeds, roots, and that a day is closed."""
    told: ReceiptRecord = decode(record.value, ReceiptRecord)  # type: ignore[arg-type]
    at = moment(record.timestamp)
    match told:
        case ReceiptRoot():
            key = clean(told.account), moment(told.day)
            row = (*key, int8(told.leaves), _hash(told.root), _hash(told.previous), _hash(told.chain), None, at)
            rows.receipt_roots[key] = _standing(rows.receipt_roots.get(key), row)
        case DayClosed():
            day, ends = moment(told.day), json.dumps([[clean(topic), *place] for topic, *place in told.ends])
            rows.receipt_days.setdefault((day,), (day, int8(told.accounts), int8(told.facts), ends, at))
        case ReceiptSeed():
            # All stand in one partition: the least offset is the first.
            rows.receipt_seeds.setdefault((record.offset,), (record.offset, _hash(told.seed), at))


def _standing(first: tables.Row | None, later: tables.Row) -> tables.Row:
    if first is None:
        return later
    if first[_CHAIN] == later[_CHAIN] or first[_OTHER_CHAIN] is not None:
        return first
    return (*first[:_OTHER_CHAIN], later[_CHAIN], *first[_OTHER_CHAIN + 1 :])


def leaves_written(record: Received, rows: Rows) -> None:
    """`receipt-leaves`: a chunk of a tree."""
    chunk = decode(record.value, ReceiptLeaves)
    leaves, rest = divmod(len(chunk.entries), receipts.ENTRY_BYTES)
    if rest or not 0 < leaves <= limits.RECEIPT_CHUNK_LEAVES:
        raise Reject(f"{len(chunk.entries)} bytes of leaves: expected {receipts.ENTRY_BYTES} for each")
    key = clean(chunk.account), moment(chunk.day), int8(chunk.first)
    ends = (chunk.entries[at:][: receipts.HASH_BYTES] for at in (0, -receipts.ENTRY_BYTES))
    row = (*key, _hash(chunk.root), *ends, chunk.entries, moment(record.timestamp))
    rows.receipt_leaves.setdefault(key, row)


def _hash(value: bytes) -> bytes:
    if len(value) != receipts.HASH_BYTES:
        raise Reject(f"a hash of {len(value)} bytes: expected {receipts.HASH_BYTES}")
    return value
