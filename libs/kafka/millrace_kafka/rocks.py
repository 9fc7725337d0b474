"""State stores on RocksDB (`rocksdict`), one small database for each changelog partition.

Values and the changelog position travel in one write batch, so a killed process finds both of the same moment. A store
is thrown away when it belongs to another topic id (the topic was made anew), when it was last written longer ago than
half the changelog's `delete.retention.ms` (a deletion since may be compacted away, and ended runs would come back), or
when it cannot be opened. The caller throws away one whose position lies past the changelog's end.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from millrace_core.handling import Change
from millrace_kafka.topics import CATALOGUE

log = logging.getLogger(__name__)

_VALUES = b"v"
_META = b"m"
# Small on purpose: a service may hold dozens of partitions within its 100 MB.
CACHE_BYTES = 4 << 20
WRITE_BUFFER_BYTES = 2 << 20
WAL_BYTES_MAX = 16 << 20


class _Meta(msgspec.Struct, frozen=True):
    topic_id: str
    position: int
    written_at_ms: int


class RocksStore:
    """One partition's state on disk. `now_ms` is when it was opened: precise enough for an age of days."""

    def __init__(self, path: Path, *, topic_id: str, now_ms: int) -> None:
        self._path = path
        self._topic_id = topic_id
        self._now_ms = now_ms
        # Its keys and values are bytes (raw mode); its types allow more.
        self._db: Any = _open(path)
        self._meta = self._read_meta()

    @property
    def position(self) -> int | None:
        return self._meta.position if self._meta is not None else None

    def is_fit(self, *, age_ms_max: float) -> bool:
        """Whether it may be used: of this topic, and young enough. An empty one is."""
        if self._meta is None:
            return next(iter(self._items(_VALUES)), None) is None
        return self._meta.topic_id == self._topic_id and abs(self._now_ms - self._meta.written_at_ms) <= age_ms_max

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(_VALUES + key)
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._items(_VALUES + prefix):
            yield key[len(_VALUES) :], value

    def apply(self, changes: Iterable[Change], position: int) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in changes:
            if value is None:
                batch.delete(_VALUES + key)
            else:
                batch.put(_VALUES + key, value)
        self._meta = _Meta(self._topic_id, position, self._now_ms)
        batch.put(_META, msgspec.json.encode(self._meta))
        self._db.write(batch)

    def clear(self) -> None:
        self._db.close()
        shutil.rmtree(self._path, ignore_errors=True)
        self._db = _open(self._path)
        self._meta = None

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._db.close()

    def _items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def _read_meta(self) -> _Meta | None:
        raw = self._db.get(_META)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=_Meta)
        except msgspec.DecodeError:
            return None


class RocksStores:
    """The stores of one service below `folder`, which no other process may use at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, changelog: str, partition: int, *, topic_id: str, now_ms: int) -> RocksStore:
        path = self._folder / changelog / str(partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store = RocksStore(path, topic_id=topic_id, now_ms=now_ms)
        except Exception as error:
            log.warning("store.damaged path=%s error=%s", path, error)
            shutil.rmtree(path, ignore_errors=True)
            return RocksStore(path, topic_id=topic_id, now_ms=now_ms)
        if not store.is_fit(age_ms_max=age_ms_max(changelog)):
            log.warning("store.thrown_away path=%s", path)
            store.clear()
        return store


def age_ms_max(changelog: str) -> float:
    """Half of how long the changelog keeps a deletion."""
    return int(dict(CATALOGUE[changelog].config)["delete.retention.ms"]) / 2


def _open(path: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(CACHE_BYTES))
    options.set_block_based_table_factory(tables)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_keep_log_file_num(2)
    return Rdict(str(path), options=options)
