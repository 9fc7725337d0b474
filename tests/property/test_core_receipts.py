"""Trees and proofs: chunks change nothing, every leaf has a path, and nothing else is proven."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from millrace_core import receipts
from millrace_core.receipts import Chunk, Trees

hashes = st.binary(min_size=32, max_size=32)
trees = st.lists(hashes, min_size=1, max_size=70)


def split_root(leaves: list[bytes]) -> bytes:
    """The root as RFC 9162 defines it: split at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    at = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + split_root(leaves[:at]) + split_root(leaves[at:])).digest()


@given(trees)
def test_a_root_is_what_the_rfc_defines(leaves: list[bytes]) -> None:
    assert receipts.root_of(leaves) == split_root(leaves)


@given(trees, st.data())
def test_every_leaf_is_proven_and_no_other_place_or_leaf(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = receipts.path_of(index, receipts.levels_of(leaves)), receipts.root_of(leaves)
    assert receipts.is_included(leaves[index], index, len(leaves), path, root)
    other = data.draw(st.integers(-1, len(leaves) + 1))
    if other != index and leaves.count(leaves[index]) == 1:
        assert not receipts.is_included(leaves[index], other, len(leaves), path, root)
    wrong = data.draw(hashes.filter(lambda hash: hash != leaves[index]))
    assert not receipts.is_included(wrong, index, len(leaves), path, root)
    if path:
        assert not receipts.is_included(leaves[index], index, len(leaves), path[:-1], root)
        at = data.draw(st.integers(0, len(path) - 1))
        bent = [*path[:at], bytes(32 * [path[at][0] ^ 1]), *path[at + 1 :]]
        assert not receipts.is_included(leaves[index], index, len(leaves), bent, root)
    assert not receipts.is_included(leaves[index], index, len(leaves), [*path, root], root)


facts = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), hashes.map(lambda id: id[:1] * 32), st.binary(min_size=56, max_size=56)
    ),
    max_size=60,
)


def chunks_of(entries: list[tuple[str, bytes, bytes]], chunk_leaves: int) -> list[Chunk]:
    made = Trees(chunk_leaves=chunk_leaves)
    found = [made.add(account, id + rest) for account, id, rest in entries]
    return [chunk for chunk in (*found, made.end()) if chunk is not None]


@given(facts, st.sampled_from([1, 2, 4, 16]))
def test_chunks_are_subtrees_of_the_tree_over_the_first_of_each_id(
    entries: list[tuple[str, bytes, bytes]], chunk_leaves: int
) -> None:
    entries.sort(key=lambda entry: entry[:2])  # stable: the first of an id stays the first
    firsts: dict[tuple[str, bytes], bytes] = {}
    for account, id, rest in entries:
        firsts.setdefault((account, id), id + rest)
    chunks = chunks_of(entries, chunk_leaves)
    for account in {account for account, _ in firsts}:
        leaves = [receipts.leaf_of(account, entry) for (of, _), entry in firsts.items() if of == account]
        own = [chunk for chunk in chunks if chunk.account == account]
        assert [chunk.first for chunk in own] == list(range(0, len(leaves), chunk_leaves))
        assert [leaf for chunk in own for leaf in receipts.leaves_of(account, chunk.entries)] == leaves
        assert [chunk.tree for chunk in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].tree == (len(leaves), receipts.root_of(leaves))
        for index, leaf in enumerate(leaves):
            inside = receipts.leaves_of(account, own[index // chunk_leaves].entries)
            path = receipts.path_of(index % chunk_leaves, receipts.levels_of(inside))
            path += receipts.path_of(index // chunk_leaves, receipts.levels_of([chunk.root for chunk in own]))
            assert receipts.is_included(leaf, index, len(leaves), path, receipts.root_of(leaves))
    assert {chunk.account for chunk in chunks} == {account for account, _ in firsts}
