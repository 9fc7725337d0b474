"""Receipts: ids of facts, hashes, trees. The vectors are a promise to whoever kept a receipt: they never change."""

import hashlib
import hmac

import pytest

from millrace_core import ids, receipts
from millrace_core.messages import (
    DeliveryAttempted,
    DeliveryEnded,
    ErrorInfo,
    EventFact,
    Message,
    RunBundled,
    RunChild,
    RunEnded,
    RunStarted,
    RunWaiting,
    StepCompleted,
    StepFailed,
    StepSkipped,
    StepStarted,
    encode,
)
from millrace_core.receipts import Chunk, Fact, Tree, Trees
from tests.support.records import record

ACCOUNT = "acc_" + "a" * 32
EVENT, RUN, DELIVERY = ("_".join((prefix, "1" * 32)) for prefix in (ids.EVENT, ids.RUN, ids.DELIVERY))
SUBSCRIPTION, ENDPOINT = "sub_" + "5" * 32, "we_" + "e" * 32
SEED = bytes(range(32))
ERROR = ErrorInfo(code="HTTP_503", message="busy")
FACTS: list[tuple[str, Message]] = [
    ("event-facts", EventFact(event=EVENT, account=ACCOUNT, outcome="unmatched", at=1)),
    ("run-facts", RunStarted(run=RUN, account=ACCOUNT, at=1, plan_id="p", plan_kind="job", plan_version=1)),
    ("run-facts", StepStarted(run=RUN, account=ACCOUNT, at=1, node="a", type="http", attempt=1)),
    ("run-facts", StepStarted(run=RUN, account=ACCOUNT, at=1, node="a", type="http", attempt=2)),
    ("run-facts", StepStarted(run=RUN, account=ACCOUNT, at=1, node="b", type="http", attempt=1)),
    ("run-facts", StepCompleted(run=RUN, account=ACCOUNT, at=1, node="a", attempt=2, duration_ms=1.0)),
    ("run-facts", StepFailed(run=RUN, account=ACCOUNT, at=1, node="a", attempt=1, duration_ms=1.0, error=ERROR)),
    ("run-facts", RunEnded(run=RUN, account=ACCOUNT, at=1, outcome="dead_lettered")),
    ("run-facts", RunEnded(run=RUN, account=ACCOUNT, at=1, outcome="completed")),
    (
        "delivery-facts",
        DeliveryAttempted(
            delivery=DELIVERY, account=ACCOUNT, endpoint=ENDPOINT, event=EVENT, attempt=1, at=1, outcome="succeeded",
            duration_ms=1.0, url="https://example.com",
        ),
    ),
    (
        "delivery-facts",
        DeliveryEnded(
            delivery=DELIVERY, account=ACCOUNT, endpoint=ENDPOINT, event=EVENT, at=1, outcome="stale", reason="old"
        ),
    ),
    ("run-facts", RunWaiting(run=RUN, account=ACCOUNT, at=1, subscription=SUBSCRIPTION, key="k", reason="throttle")),
    ("run-facts", RunWaiting(run=RUN, account=ACCOUNT, at=1, subscription=SUBSCRIPTION, key="k", reason="drain")),
    ("run-facts", RunBundled(run=RUN, account=ACCOUNT, at=1)),
    ("run-facts", StepSkipped(run=RUN, account=ACCOUNT, at=1, node="a", type="http")),
]  # fmt: skip


def fact(topic: str, message: Message | bytes, *, source: str | None = "events:0:7") -> Fact | None:
    return receipts.fact_of(record(topic, 0, message, key="x", source=source))


def id_of(topic: str, message: Message, *, source: str | None = "events:0:7") -> bytes:
    found = fact(topic, message, source=source)
    assert found is not None
    return found.id


def test_every_fact_has_an_id_of_its_own_under_its_subject() -> None:
    found = [id_of(*one) for one in FACTS]
    assert len(set(found)) == len(FACTS)
    assert {id[:16].hex() for id in found} == {"1" * 32}
    assert {receipts.kind_of(id) for id in found} == set(receipts.KINDS)
    assert {len(id) for id in found} == {32}


def test_a_repeat_of_an_attempt_has_the_id_of_the_first_whatever_came_of_it() -> None:
    topic, first = FACTS[9]
    assert isinstance(first, DeliveryAttempted)
    again = DeliveryAttempted(
        delivery=DELIVERY, account=ACCOUNT, endpoint=ENDPOINT, event=EVENT, attempt=1, at=99, outcome="failed",
        duration_ms=7.0, url="https://example.com",
    )  # fmt: skip
    assert id_of(topic, first) == id_of(topic, again)


def test_what_an_event_came_to_is_a_fact_for_each_record_and_each_list_of_children() -> None:
    def decided(*runs: str) -> EventFact:
        children = tuple(RunChild(id=run, subscription=SUBSCRIPTION) for run in runs)
        return EventFact(event=EVENT, account=ACCOUNT, outcome="matched", at=1, runs=children)

    first = id_of("event-facts", decided(RUN))
    assert first == id_of("event-facts", decided(RUN))
    assert first == id_of("event-facts", decided(RUN), source="millrace.space.events.v1:0:7"), (
        "names are a deployment's"
    )
    assert first != id_of("event-facts", decided(RUN), source="events:0:8")
    assert first != id_of("event-facts", decided(RUN), source=None)
    assert first != id_of("event-facts", decided(RUN, "exec_" + "2" * 32))


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        b"{}",
        b"[1]",
        b'{"fact":"run.invented","account":"acc_1","at":1,"run":"exec_%b"}' % (b"1" * 32),
        b'{"fact":"run.started","account":"acc_1","at":1}',
        b'{"fact":"run.started","account":"acc_1","run":"exec_%b"}' % (b"1" * 32),
        b'{"fact":"run.started","account":"acc_1","at":-1,"run":"exec_%b"}' % (b"1" * 32),
        b'{"fact":"run.started","account":"acc_1","at":253402300800000,"run":"exec_%b"}' % (b"1" * 32),
        b'{"fact":"run.started","account":"acc_1","at":1,"run":"no id"}',
        b'{"fact":"run.started","account":"","at":1,"run":"exec_%b"}' % (b"1" * 32),
        b'{"fact":"run.started","account":"a\\u0000b","at":1,"run":"exec_%b"}' % (b"1" * 32),
    ],
)
def test_what_cannot_be_read_is_no_fact(value: bytes) -> None:
    assert fact("run-facts", value) is None


def test_a_later_releases_members_change_nothing_that_is_read() -> None:
    value = encode(FACTS[2][1])
    later = value[:-1] + b',"invented":{"later":[1]}}'
    found, other = fact("run-facts", value), fact("run-facts", later)
    assert found is not None
    assert other is not None
    assert found.id == other.id


def test_an_outcome_that_is_longer_is_cut_and_still_tells_facts_apart() -> None:
    value = b'{"fact":"run.ended","account":"acc_1","at":1,"run":"exec_%b","outcome":"%b"}'
    found = [fact("run-facts", value % (b"1" * 32, b"o" * 16 + more)) for more in (b"x", b"y")]
    assert {receipts.parse_entry(receipts.entry_of(SEED, one)).outcome for one in found if one} == {"o" * 16}
    assert len({one.id for one in found if one}) == 2


def test_hashes_are_those_that_were_promised() -> None:
    """Written with hashlib alone, as the guide says it, and as figures."""
    id, value = bytes.fromhex("11" * 16 + "01" + "22" * 15), b'{"fact":"event.decided"}'
    salt = hmac.new(SEED, id + ACCOUNT.encode(), hashlib.sha256).digest()
    content = hashlib.sha256(salt + value).digest()
    entry = id + (1_790_035_200_123).to_bytes(8, "big") + b"dead_lettered\0\0\0" + content
    leaf = hashlib.sha256(b"\x00" + entry + ACCOUNT.encode()).digest()
    assert receipts.entry_of(SEED, Fact(ACCOUNT, id, 1_790_035_200_123, "dead_lettered", value)) == entry
    assert receipts.parse_entry(entry) == (id, 1_790_035_200_123, "dead_lettered", content)
    assert receipts.leaf_of(ACCOUNT, entry) == leaf
    numbers = (3).to_bytes(8, "big") + (1_790_035_200_000).to_bytes(8, "big")
    chain = hashlib.sha256(b"\x02" + bytes(32) + leaf + numbers + ACCOUNT.encode()).digest()
    assert receipts.chain_of(receipts.GENESIS, ACCOUNT, 1_790_035_200_000, 3, leaf) == chain
    assert (leaf.hex(), chain.hex()) == VECTOR


def test_ids_are_those_that_were_promised() -> None:
    assert [id_of(*one)[16:].hex() for one in FACTS] == IDS


# The tree of RFC 9162's own test vectors: Certificate Transparency's leaves, and their roots for 1 to 8 of them.
CT_LEAVES = [bytes.fromhex(hex) for hex in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
)]  # fmt: skip
CT_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize("count", range(1, 9))
def test_trees_are_those_of_certificate_transparency(count: int) -> None:
    hashes = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in CT_LEAVES[:count]]
    assert receipts.root_of(hashes).hex() == CT_ROOTS[count - 1]


def test_the_first_of_two_facts_with_one_id_stands() -> None:
    trees = Trees()
    first = b"i" * 32 + b"1" * 56
    assert trees.add(ACCOUNT, first) is None
    assert trees.add(ACCOUNT, b"i" * 32 + b"2" * 56) is None
    chunk = trees.end()
    assert chunk is not None
    leaf = receipts.leaf_of(ACCOUNT, first)
    assert chunk == Chunk(ACCOUNT, 0, first, leaf, Tree(1, leaf))


def test_each_account_has_a_tree_of_its_own() -> None:
    trees = Trees()
    assert trees.add("a", b"i" * 88) is None
    first = trees.add("b", b"i" * 88)
    second = trees.end()
    assert first is not None
    assert second is not None
    assert (first.account, second.account) == ("a", "b")
    assert first.tree is not None
    assert first.root != second.root, "the account is part of the leaf"
    assert trees.end() is None


VECTOR = (
    "38652ca1b4ebde72a5abd7cf56294c7ae1435b3e9f46226b7c161d2a00259226",
    "1e693d449115e68d75a957d68134b7892ffaf7f1532ca9904ebea1258045e963",
)
IDS = [
    "01e3f078fa67f06d2ec61b9df574f2bb",
    "02110bc268fbce35b0d4321f1840b7d3",
    "03839e11a421d370be28db56fde67e9a",
    "0374a9917ed5026c890c690ce722aa0c",
    "039b3630723cbeffb5f3a2942ccbb7b6",
    "0474a9917ed5026c890c690ce722aa0c",
    "05839e11a421d370be28db56fde67e9a",
    "06135a5b95dda526c995d05034871cae",
    "064ddb3e96801a1ee2b77dc5247c0db4",
    "0779f70846c2187cb8ba3435793ae7c6",
    "08a03f2386ae06b21109577020844df3",
    "09e0d8469bf717ee2b6731125b884a67",
    "096eeab9fdcde9d19f0e1b672f5ed8a6",
    "0a110bc268fbce35b0d4321f1840b7d3",
    "0be842f55d0cf04f4d264a0b2e4ac79d",
]
