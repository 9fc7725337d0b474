"""One suite over every state store: the dictionary and RocksDB answer alike."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_kafka.rocks import RocksStores, age_ms_max
from millrace_kafka.store import MemoryStores, Overlay, StateStore, StateStores

CHANGELOG = "orchestrator-changelog"
NOW_MS = 1_800_000_000_000


@pytest.fixture(params=["memory", "rocks"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> StateStores:
    return MemoryStores() if request.param == "memory" else RocksStores(tmp_path)


@pytest.fixture
def store(stores: StateStores) -> Iterator[StateStore]:
    opened = stores.open(CHANGELOG, 0, topic_id="t", now_ms=NOW_MS)
    yield opened
    opened.close()


def test_it_begins_empty_without_a_position(store: StateStore) -> None:
    assert store.position is None
    assert store.get(b"a") is None
    assert list(store.scan(b"")) == []


def test_values_and_position_are_taken_together_and_in_order(store: StateStore) -> None:
    store.apply([(b"a", b"1"), (b"b", b"2"), (b"a", None), (b"c", b""), (b"b", b"3")], 7)
    assert store.position == 7
    assert (store.get(b"a"), store.get(b"b"), store.get(b"c")) == (None, b"3", b"")


def test_a_scan_gives_the_prefix_in_key_order_and_nothing_else(store: StateStore) -> None:
    store.apply([(key, key) for key in (b"x/2", b"x/10", b"w", b"x", b"y", b"x/\xff", b"x/")], 1)
    assert [key for key, _ in store.scan(b"x/")] == [b"x/", b"x/10", b"x/2", b"x/\xff"]


def test_cleared_it_is_as_new(store: StateStore) -> None:
    store.apply([(b"a", b"1")], 3)
    store.clear()
    assert store.position is None
    assert list(store.scan(b"")) == []
    store.apply([(b"b", b"2")], 4)
    assert store.get(b"b") == b"2"


Ops = st.lists(
    st.tuples(st.sampled_from([b"a", b"ab", b"b", b"ba"]), st.one_of(st.none(), st.binary(max_size=3))), max_size=12
)


@given(batches=st.lists(Ops, max_size=5))
@settings(max_examples=25, deadline=None)
def test_both_kinds_hold_the_same_after_any_changes(batches: list[list[tuple[bytes, bytes | None]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kinds: list[StateStores] = [MemoryStores(), RocksStores(Path(folder))]
        opened = [kind.open(CHANGELOG, 1, topic_id="t", now_ms=NOW_MS) for kind in kinds]
        for n, batch in enumerate(batches):
            for store in opened:
                store.apply(batch, n)
        memory, rocks = opened
        assert list(memory.scan(b"")) == list(rocks.scan(b""))
        assert list(memory.scan(b"a")) == list(rocks.scan(b"a"))
        assert memory.position == rocks.position
        rocks.close()


def _written(stores: RocksStores, *, topic_id: str = "t", now_ms: int = NOW_MS) -> None:
    store = stores.open(CHANGELOG, 0, topic_id=topic_id, now_ms=now_ms)
    store.apply([(b"a", b"1")], 5)
    store.close()


def test_on_disk_it_is_found_again(tmp_path: Path) -> None:
    _written(RocksStores(tmp_path))
    store = RocksStores(tmp_path).open(CHANGELOG, 0, topic_id="t", now_ms=NOW_MS + 1000)
    assert (store.position, store.get(b"a")) == (5, b"1")
    store.close()


def test_a_store_of_another_topic_is_thrown_away(tmp_path: Path) -> None:
    _written(RocksStores(tmp_path), topic_id="old")
    store = RocksStores(tmp_path).open(CHANGELOG, 0, topic_id="new", now_ms=NOW_MS)
    assert (store.position, store.get(b"a")) == (None, None)
    store.close()


def test_a_store_older_than_half_the_deletions_retention_is_thrown_away(tmp_path: Path) -> None:
    """Else a run whose deletion was compacted away would come back."""
    _written(RocksStores(tmp_path))
    just = NOW_MS + int(age_ms_max(CHANGELOG))
    store = RocksStores(tmp_path).open(CHANGELOG, 0, topic_id="t", now_ms=just)
    assert store.position == 5
    store.close()
    late = RocksStores(tmp_path).open(CHANGELOG, 0, topic_id="t", now_ms=just + 1)
    assert late.position is None
    late.close()


def test_a_damaged_store_is_thrown_away(tmp_path: Path) -> None:
    _written(RocksStores(tmp_path))
    for file in (tmp_path / CHANGELOG / "0").iterdir():
        if file.name.startswith(("MANIFEST", "CURRENT")):
            file.write_bytes(b"damaged")
    store = RocksStores(tmp_path).open(CHANGELOG, 0, topic_id="t", now_ms=NOW_MS)
    assert store.position is None
    store.close()


def test_an_overlay_shows_changes_takes_one_record_back_and_hands_the_rest_on(stores: StateStores) -> None:
    store = stores.open(CHANGELOG, 2, topic_id="t", now_ms=NOW_MS)
    store.apply([(b"a", b"1"), (b"b", b"2")], 1)
    state = Overlay(store)
    state.mark()
    state.put(b"c", b"3")
    state.delete(b"a")
    state.mark()
    state.put(b"c", b"4")
    state.delete(b"b")
    state.put(b"d", b"5")
    state.undo()
    assert list(state.scan(b"")) == [(b"b", b"2"), (b"c", b"3")]
    assert dict(state.changes()) == {b"c": b"3", b"a": None}
    assert store.get(b"c") is None
    state.commit(9)
    assert (store.position, list(store.scan(b""))) == (9, [(b"b", b"2"), (b"c", b"3")])
    assert state.changes() == []
    store.close()
