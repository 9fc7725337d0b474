"""A task's keyed state as of its last commit: what the changelog says, kept near so that a restart reads only its tail.

The changelog is the truth; a store may be lost or thrown away at any time. The position in the changelog is written
with the values, so both are always of the same moment. Two kinds pass one conformance suite: this module's dictionary
(tests, and state that need not outlive the process) and RocksDB (`rocks`).
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from millrace_core.handling import Change


class StateStore(Protocol):
    """One partition's state. Used by one task; calls are short and may block for a disk write."""

    @property
    def position(self) -> int | None:
        """The changelog offset to read on from; None = it holds nothing, read from the start."""
        ...

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with `prefix`, in key order. The store may not be changed while it is read."""
        ...

    def apply(self, changes: Iterable[Change], position: int) -> None:
        """Take changes in order (None = forgotten) and the position behind them, all or nothing."""
        ...

    def clear(self) -> None:
        """Forget everything, the position too."""
        ...

    def close(self) -> None:
        """Let go of files. Safe to repeat; nothing may be called after it."""
        ...


class StateStores(Protocol):
    """Opens the stores of one service."""

    def open(self, changelog: str, partition: int, *, topic_id: str, now_ms: int) -> StateStore:
        """The store of one changelog partition. One of another topic id, or too old to be sure that every deletion
        since is still in the changelog, comes back empty."""
        ...


class MemoryStore:
    """A dictionary."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._position: int | None = None

    @property
    def position(self) -> int | None:
        return self._position

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from sorted((key, value) for key, value in self._values.items() if key.startswith(prefix))

    def apply(self, changes: Iterable[Change], position: int) -> None:
        for key, value in changes:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self._position = position

    def clear(self) -> None:
        self._values.clear()
        self._position = None

    def close(self) -> None: ...


class MemoryStores:
    """Stores that are empty at every opening."""

    def open(self, changelog: str, partition: int, *, topic_id: str, now_ms: int) -> MemoryStore:
        return MemoryStore()


class Overlay:
    """A store with one transaction's changes over it: the State that handlers see.

    `mark`/`undo` take back what one record did; `changes` are what the transaction writes; `drop` forgets all of it."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._changed: dict[bytes, bytes | None] = {}
        self._undo: list[tuple[bytes, bool, bytes | None]] | None = None

    def get(self, key: bytes) -> bytes | None:
        if key in self._changed:
            return self._changed[key]
        return self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._change(key, value)

    def delete(self, key: bytes) -> None:
        self._change(key, None)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        over = {key: value for key, value in self._changed.items() if key.startswith(prefix)}
        if not over:
            yield from self._store.scan(prefix)
            return
        under = {key: value for key, value in self._store.scan(prefix) if key not in over}
        merged = {**under, **{key: value for key, value in over.items() if value is not None}}
        yield from sorted(merged.items())

    def mark(self) -> None:
        """Begin a record: `undo` goes back to here."""
        self._undo = []

    def undo(self) -> None:
        """Take back everything since `mark`."""
        for key, was_changed, before in reversed(self._undo or ()):
            if was_changed:
                self._changed[key] = before
            else:
                del self._changed[key]
        self._undo = None

    def changes(self) -> list[Change]:
        """What the transaction must write to the changelog."""
        return list(self._changed.items())

    def commit(self, position: int) -> None:
        """The transaction is committed: the store takes the changes."""
        self._store.apply(self._changed.items(), position)
        self.drop()

    def drop(self) -> None:
        """Forget the changes."""
        self._changed = {}
        self._undo = None

    def _change(self, key: bytes, value: bytes | None) -> None:
        if self._undo is not None:
            self._undo.append((key, key in self._changed, self._changed.get(key)))
        self._changed[key] = value
