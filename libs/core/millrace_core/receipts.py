"""The receipt chain: for each account and day one hash that stands for every fact of it.

A fact is a record of `FACT_TOPICS`. Its id says what it tells of: the subject's uuid, the kind, and what tells it from
the subject's other facts; so a repeat by an at-least-once writer has the id of the first, which stands. Facts sorted by
id are the leaves of a Merkle tree as RFC 9162 builds it (0x00 before a leaf, 0x01 before a node), and the roots of an
account's days chain; a day without facts has no root, and the chain passes over it.

    content = SHA-256(salt ‖ value)                        salt = HMAC-SHA-256(seed, id ‖ account)
    leaf    = SHA-256(0x00 ‖ id ‖ at ‖ outcome ‖ content ‖ account)
    chain   = SHA-256(0x02 ‖ chain before (32 zero bytes at first) ‖ root ‖ leaves ‖ day ‖ account)

`at` and `outcome` are the fact's own, so that a receipt tells what it proves; `value` is the whole record's, byte for
byte. Times (in ms since 1970; `day` is its start) and `leaves` (their number) take eight bytes, highest first; of
`outcome` there are 16, zeros behind it. Proofs show the hashes of neighbours, and facts are easy to guess: the salt
keeps them from being tried.

Whoever kept a receipt relies on all of this: what is written here may never change. Of a fact only what `_Head` names
is looked at, so that no later member of a message changes a root. Pure. Not here: reading a day, and who closes it.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from millrace_core import ids, limits
from millrace_core.errors import Reject
from millrace_core.record import SOURCE, Received, header, parse_source, topic_name

FACT_TOPICS = ("event-facts", "run-facts", "delivery-facts")
HASH_BYTES = 32
GENESIS = bytes(HASH_BYTES)
"""The chain before an account's first day."""

SUBJECT_BYTES = 16
DETAIL_BYTES = 15
AT_BYTES = 8
OUTCOME_BYTES = 16
ENTRY_BYTES = 2 * HASH_BYTES + AT_BYTES + OUTCOME_BYTES
"""What is kept of a fact: id, time, outcome, content."""

# The last moment that can be written as a date; what claims to be later is no fact.
AT_MAX = 253_402_300_799_999
KINDS: Mapping[str, int] = MappingProxyType(
    {
        "event.decided": 1,
        "run.started": 2,
        "step.started": 3,
        "step.completed": 4,
        "step.failed": 5,
        "run.ended": 6,
        "delivery.attempted": 7,
        "delivery.ended": 8,
        "run.waiting": 9,
        "run.bundled": 10,
        "step.skipped": 11,
    }
)
"""The byte of an id that tells its kind."""

_KIND_OF = {code: kind for kind, code in KINDS.items()}


class Fact(NamedTuple):
    """One fact as the log has it. `id` is 32 bytes: subject, kind, detail."""

    account: str
    id: bytes
    at: int
    outcome: str
    value: bytes


class _Head(msgspec.Struct, frozen=True, gc=False):
    fact: str
    account: str
    at: int
    event: str | None = None
    run: str | None = None
    delivery: str | None = None
    node: str = ""
    attempt: int = 0
    outcome: str = ""


_decode = msgspec.json.Decoder(_Head).decode


def fact_of(record: Received) -> Fact | None:
    """The fact that a record of `FACT_TOPICS` is; None for one that cannot be read, which is a dead letter."""
    value = record.value
    try:
        head = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    code = KINDS.get(head.fact)
    subject = _subject(head)
    if value is None or code is None or subject is None or not _is_sound(head):
        return None
    detail = hashlib.sha256("\x1f".join(_detail(head, record, value)).encode("utf-8", "surrogatepass")).digest()
    return Fact(head.account, subject + bytes((code,)) + detail[:DETAIL_BYTES], head.at, head.outcome, value)


def _subject(head: _Head) -> bytes | None:
    of = head.fact.partition(".")[0]
    written = {"event": head.event, "delivery": head.delivery}.get(of, head.run)
    try:
        return None if written is None else ids.uuid_of(written).bytes
    except Reject:
        return None


def _is_sound(head: _Head) -> bool:
    """Whether its members are what a leaf can hold."""
    of = head.account
    is_account = 0 < len(of) <= limits.ID_CHARS_MAX and of.isascii() and of.isprintable()
    return is_account and 0 <= head.at <= AT_MAX


def _detail(head: _Head, record: Received, value: bytes) -> tuple[str, ...]:
    """What tells a fact from the others of its kind and subject."""
    match head.fact:
        case "event.decided":
            # One for each record on `events`; and of such a record the facts that name different children are several,
            # since what it matched is the union of them.
            source = parse_source(header(record, SOURCE))
            place = "" if source is None else f"{topic_name(source.topic)}:{source.partition}:{source.offset}"
            return place, hashlib.sha256(value).hexdigest()
        case "run.waiting":
            # Told each time that what holds the run back changes.
            return (hashlib.sha256(value).hexdigest(),)
        case "run.ended" | "delivery.ended":
            return (head.outcome,)
        case _:
            return head.node, str(head.attempt)


def kind_of(id: bytes) -> str:
    """The kind of the fact with this id, as its record names it."""
    return _KIND_OF.get(id[SUBJECT_BYTES], "unknown")


def day_of(ms: int, day_ms: int = ids.DAY_MS) -> int:
    """The start of the day that holds this moment."""
    return ms - ms % day_ms


# ── hashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def salt_of(seed: bytes, account: str, id: bytes) -> bytes:
    """What makes a fact's content impossible to guess. Known to the platform and to whoever it gave the receipt."""
    return hmac.digest(seed, id + account.encode(), "sha256")


def content_of(seed: bytes, fact: Fact) -> bytes:
    """What a leaf says of the fact's value, and gives nothing away of it."""
    return hashlib.sha256(salt_of(seed, fact.account, fact.id) + fact.value).digest()


def entry_of(seed: bytes, fact: Fact) -> bytes:
    """What is kept of a fact, and hashed into its leaf."""
    outcome = fact.outcome.encode("utf-8", "replace")[:OUTCOME_BYTES].ljust(OUTCOME_BYTES, b"\x00")
    return fact.id + fact.at.to_bytes(AT_BYTES, "big") + outcome + content_of(seed, fact)


class Entry(NamedTuple):
    """An entry's parts."""

    id: bytes
    at: int
    outcome: str
    content: bytes


def parse_entry(entry: bytes) -> Entry:
    """What an entry says."""
    rest = entry[HASH_BYTES:]
    outcome = rest[AT_BYTES : AT_BYTES + OUTCOME_BYTES].rstrip(b"\x00").decode("utf-8", "replace")
    return Entry(entry[:HASH_BYTES], int.from_bytes(rest[:AT_BYTES], "big"), outcome, rest[AT_BYTES + OUTCOME_BYTES :])


def leaf_of(account: str, entry: bytes) -> bytes:
    """The hash of one fact in the tree of its day."""
    return hashlib.sha256(b"\x00" + entry + account.encode()).digest()


def chain_of(previous: bytes, account: str, day: int, leaves: int, root: bytes) -> bytes:
    """The hash that stands for an account's facts up to the end of this day."""
    numbers = leaves.to_bytes(8, "big") + day.to_bytes(8, "big")
    return hashlib.sha256(b"\x02" + previous + root + numbers + account.encode()).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The next level: pairs become nodes, one that is left over goes up as it is (the same tree as RFC 9162's)."""
    above = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        above.append(level[-1])
    return above


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaves, or over the roots of equal subtrees whose size is a power of two; at least one."""
    level = hashes
    while len(level) > 1:
        level = _above(level)
    return level[0]


def levels_of(hashes: Sequence[bytes]) -> list[Sequence[bytes]]:
    """These hashes, and every level of the tree above them."""
    levels = [hashes]
    while len(levels[-1]) > 1:
        levels.append(_above(levels[-1]))
    return levels


def path_of(index: int, levels: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The hashes that lead from one of the lowest level to the root, lowest first."""
    beside = ((level, (index >> height) ^ 1) for height, level in enumerate(levels))
    return [level[at] for level, at in beside if at < len(level)]


def is_included(leaf: bytes, index: int, leaves: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path proves that the leaf is the one at `index` of the tree with this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < leaves:
        return False
    at, last, found = index, leaves - 1, leaf
    for beside in path:
        if last == 0:
            return False
        if at % 2 or at == last:
            found = _node(beside, found)
            while at % 2 == 0 and at != 0:
                at, last = at // 2, last // 2
        else:
            found = _node(found, beside)
        at, last = at // 2, last // 2
    return last == 0 and found == root


# ── trees ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class Tree(NamedTuple):
    """All facts of an account and day."""

    leaves: int
    root: bytes


class Chunk(NamedTuple):
    """Some neighbouring leaves: a subtree of its own. `entries` are theirs, one behind the other. The last chunk of an
    account brings the whole tree."""

    account: str
    first: int
    entries: bytes
    root: bytes
    tree: Tree | None


class Trees:
    """Takes facts sorted by account and id, gives their trees in chunks. Holds one chunk, and a hash for each before
    it."""

    def __init__(self, *, chunk_leaves: int = limits.RECEIPT_CHUNK_LEAVES) -> None:
        self._chunk_leaves = chunk_leaves
        self._account = ""
        self._last = b""
        self._entries: list[bytes] = []
        self._roots: list[bytes] = []

    def add(self, account: str, entry: bytes) -> Chunk | None:
        """Take the next fact; the chunk that is complete by that. Of several with the same id the first stands."""
        ready, id = None, entry[:HASH_BYTES]
        if account != self._account:
            ready = self.end()
            self._account = account
        elif id == self._last:
            return None
        elif len(self._entries) == self._chunk_leaves:
            ready = self._cut(is_last=False)
        self._entries.append(entry)
        self._last = id
        return ready

    def end(self) -> Chunk | None:
        """The last chunk of the account at hand. What comes next begins another one."""
        ready = self._cut(is_last=True) if self._entries else None
        self._account, self._last = "", b""
        self._roots.clear()
        return ready

    def _cut(self, *, is_last: bool) -> Chunk:
        leaves = [leaf_of(self._account, entry) for entry in self._entries]
        first, root = len(self._roots) * self._chunk_leaves, root_of(leaves)
        self._roots.append(root)
        tree = Tree(first + len(leaves), root_of(self._roots)) if is_last else None
        chunk = Chunk(self._account, first, b"".join(self._entries), root, tree)
        self._entries.clear()
        return chunk


def split(entries: bytes) -> list[bytes]:
    """The entries of a chunk."""
    return [entries[at : at + ENTRY_BYTES] for at in range(0, len(entries), ENTRY_BYTES)]


def leaves_of(account: str, entries: bytes) -> list[bytes]:
    """The leaves of a chunk."""
    return [leaf_of(account, entry) for entry in split(entries)]
