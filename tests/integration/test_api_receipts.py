"""Receipts through HTTP: checked by an implementation of its own, open to who has one and closed to who has not."""

import asyncio
import hashlib
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from millrace_core import ids, receipts
from millrace_core.limits import RECEIPT_CHUNK_LEAVES, RECEIPT_FACTS_MAX
from millrace_core.messages import DayClosed, ReceiptLeaves, ReceiptRoot, ReceiptSeed, encode
from millrace_core.receipts import GENESIS, Fact, Trees
from millrace_core.record import Written
from millrace_projector.handlers import HANDLERS
from millrace_projector.rows import Rows
from tests.support.api_world import ApiWorld

SEED = bytes(range(32))
VALUE = b'{"fact":"event.decided"}'
DAY_MS = ids.DAY_MS
AT = 1_790_035_200_123


def fact_id(thing: str, kind: str, n: int = 0) -> bytes:
    detail = hashlib.sha256(str(n).encode()).digest()[: receipts.DETAIL_BYTES]
    return ids.uuid_of(thing).bytes + bytes((receipts.KINDS[kind],)) + detail


def entry_of(account: str, id: bytes) -> bytes:
    return receipts.entry_of(SEED, Fact(account, id, AT, "matched", VALUE))


async def closed(api: ApiWorld, account: str, day: int, ids: list[bytes], previous: bytes = GENESIS) -> ReceiptRoot:
    """A day of this account with facts of these ids, as the projector would have stored it."""
    trees = Trees()
    made = [trees.add(account, entry_of(account, id)) for id in sorted(ids)]
    chunks = [chunk for chunk in (*made, trees.end()) if chunk is not None]
    tree = chunks[-1].tree
    assert tree is not None
    root = ReceiptRoot(
        account=account,
        day=day,
        leaves=tree.leaves,
        root=tree.root,
        previous=previous,
        chain=receipts.chain_of(previous, account, day, tree.leaves, tree.root),
    )
    told: list[tuple[str, bytes]] = [
        ("receipt-roots", encode(ReceiptSeed(seed=SEED))),
        ("receipt-roots", encode(root)),
        ("receipt-roots", encode(DayClosed(day=day, accounts=1, facts=tree.leaves, ends=()))),
    ]
    for chunk in chunks:
        leaves = ReceiptLeaves(account=account, day=day, first=chunk.first, root=chunk.root, entries=chunk.entries)
        told.append(("receipt-leaves", encode(leaves)))
    rows = Rows()
    for topic, value in told:
        HANDLERS[topic](Written(topic, 0, 0, day + DAY_MS, None, value), rows)
    for table, fresh, _ in rows.written():
        columns = ", ".join(f'"{column}"' for column in table.columns)
        values = ", ".join(f"${n + 1}" for n in range(len(table.columns)))
        for row in fresh:
            await api.execute(
                f"INSERT INTO read.{table.name} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING", *row
            )
    return root


def day_of(thing: str, days_later: int = 0) -> int:
    return receipts.day_of(ids.time_ms_of(thing)) + days_later * DAY_MS


def others(count: int) -> list[bytes]:
    """Facts of other things."""
    return [fact_id(ids.new_id(ids.EVENT), "event.decided") for _ in range(count)]


def holds(receipt: Any, fact: Any) -> bool:
    """Whether a receipt's fact is proven: as RFC 9162 says, with hashlib alone."""
    account, leaf = receipt["account"].encode(), bytes.fromhex(fact["leaf"])
    id, said = bytes.fromhex(fact["fact"]), fact["outcome"].encode().ljust(16, b"\0")
    entry = id + ms(fact["at"]).to_bytes(8, "big") + said + bytes.fromhex(fact["content"])
    if leaf != hashlib.sha256(b"\0" + entry + account).digest():
        return False
    at, last, found = fact["index"], fact["leaves"] - 1, leaf
    for beside in map(bytes.fromhex, fact["path"]):
        if at & 1 or at == last:
            found = hashlib.sha256(b"\1" + beside + found).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\1" + found + beside).digest()
        at, last = at >> 1, last >> 1
    link = bytes.fromhex(fact["previous"]) + found
    link += fact["leaves"].to_bytes(8, "big") + ms(fact["day"]).to_bytes(8, "big") + account
    proven = last == 0 and (found.hex(), hashlib.sha256(b"\2" + link).hexdigest()) == (fact["root"], fact["chain"])
    return bool(proven and id[:16].hex() == receipt["id"].rpartition("_")[2])


GUIDE = Path(__file__).parents[2] / "docs/guides/receipts.md"


def checked_by_the_guide(receipt: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    """The check that the guide gives to anyone, run as it stands there."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (folder / "receipt.json").write_text(json.dumps({"data": receipt}))
    command = [sys.executable, "-I", "-c", code, "receipt.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


async def proof(api: ApiWorld, root: str, leaf: str, index: int) -> Any:
    return await api.ask("GET", f"/v1/receipts/{root}/proof?leaf={leaf}&index={index}", headers={"authorization": ""})


async def test_a_receipt_holds_for_who_has_nothing_but_it(api: ApiWorld, tmp_path: Path) -> None:
    event = await api.projected("events")
    day = day_of(event)
    root = await closed(api, api.account, day, [fact_id(event, "event.decided"), *others(12)])
    receipt = (await api.ask("GET", f"/v1/events/{event}/receipt")).data
    (fact,) = receipt["facts"]
    assert holds(receipt, fact)
    assert (fact["kind"], fact["outcome"], ms(fact["at"])) == ("event.decided", "matched", AT)
    assert (fact["root"], fact["leaves"]) == (root.root.hex(), 13)
    assert hashlib.sha256(bytes.fromhex(fact["salt"]) + VALUE).hexdigest() == fact["content"]
    assert not holds(receipt, {**fact, "index": (fact["index"] + 1) % 13})
    assert not holds(receipt | {"id": ids.new_id(ids.EVENT)}, fact)
    told = await asyncio.to_thread(checked_by_the_guide, receipt, tmp_path)
    assert told.stdout == f"{fact['at']} event.decided matched is in {fact['chain']}\n", told.stderr
    for name in ("outcome", "at", "content", "path", "root", "previous", "chain", "leaves", "index", "day"):
        bent = {**receipt, "facts": [{**fact, name: bent_of(fact[name])}]}
        refused = await asyncio.to_thread(checked_by_the_guide, bent, tmp_path)
        assert "AssertionError" in refused.stderr, name


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("runs", ["run.started", "step.started", "step.completed", "run.ended"]),
        ("deliveries", ["delivery.attempted", "delivery.ended"]),
    ],
)
async def test_runs_and_deliveries_have_receipts_over_several_days(api: ApiWorld, path: str, facts: list[str]) -> None:
    thing = await api.projected(path)
    days = [day_of(thing, (30 if path == "runs" else 40) + n) for n in range(2)]
    first = await closed(api, api.account, days[0], [fact_id(thing, facts[0]), *others(3)])
    await closed(api, api.account, days[1], [*(fact_id(thing, fact) for fact in facts[1:]), *others(3)], first.chain)
    receipt = (await api.ask("GET", f"/v1/{path}/{thing}/receipt")).data
    assert [fact["kind"] for fact in receipt["facts"]] == facts
    assert all(holds(receipt, fact) for fact in receipt["facts"])
    assert receipt["facts"][1]["previous"] == receipt["facts"][0]["chain"]
    assert receipt["left_out"] == 0


async def test_a_day_of_many_chunks_proves_each_of_a_things_facts(api: ApiWorld) -> None:
    """The thing's facts lie across a border of chunks, and there are more than a receipt tells."""
    run = await api.projected("runs")
    count = RECEIPT_FACTS_MAX + 3
    before = [bytes(14) + n.to_bytes(18, "big") for n in range(RECEIPT_CHUNK_LEAVES - 2)]
    own = [fact_id(run, "step.started", n) for n in range(count)]
    after = [b"\xff" * 14 + n.to_bytes(18, "big") for n in range(RECEIPT_CHUNK_LEAVES)]
    root = await closed(api, api.account, day_of(run, 50), [*before, *own, *after])
    receipt = (await api.ask("GET", f"/v1/runs/{run}/receipt")).data
    assert (len(receipt["facts"]), receipt["left_out"]) == (RECEIPT_FACTS_MAX, 3)
    assert [fact["index"] for fact in receipt["facts"][:4]] == [len(before) + n for n in range(4)]
    assert all(holds(receipt, fact) for fact in receipt["facts"])
    last = receipts.leaf_of(api.account, entry_of(api.account, after[-1]))
    proven = (await proof(api, root.root.hex(), last.hex(), root.leaves - 1)).data
    assert receipts.is_included(last, root.leaves - 1, root.leaves, list(map(bytes.fromhex, proven["path"])), root.root)


async def test_a_tree_that_is_not_all_there_yet_proves_nothing(api: ApiWorld) -> None:
    event = await api.projected("events")
    after = [b"\xff" * 14 + n.to_bytes(18, "big") for n in range(RECEIPT_CHUNK_LEAVES)]
    await closed(api, api.account, day_of(event, 55), [fact_id(event, "event.decided"), *after])
    (fact,) = (await api.ask("GET", f"/v1/events/{event}/receipt")).data["facts"]
    day = datetime.fromisoformat(fact["day"])
    await api.execute("DELETE FROM read.receipt_leaves WHERE account = $1 AND day = $2 AND first > 0", api.account, day)
    assert (await api.ask("GET", f"/v1/events/{event}/receipt")).data["facts"] == []
    assert (await proof(api, fact["root"], fact["leaf"], fact["index"])).status == 404


async def test_a_proof_is_open_to_who_knows_the_leaf_and_tells_hashes_alone(api: ApiWorld) -> None:
    event = await api.projected("events")
    await closed(api, api.account, day_of(event, 60), [fact_id(event, "event.decided"), *others(4)])
    (fact,) = (await api.ask("GET", f"/v1/events/{event}/receipt")).data["facts"]
    answer = await proof(api, fact["root"], fact["leaf"], fact["index"])
    told = ("leaf", "index", "path", "leaves", "root", "previous", "chain")
    assert answer.data == {name: fact[name] for name in told}
    assert api.account.encode() not in answer.body
    assert event.encode() not in answer.body


async def test_who_does_not_know_the_leaf_learns_nothing(api: ApiWorld) -> None:
    event = await api.projected("events")
    await closed(api, api.account, day_of(event, 70), [fact_id(event, "event.decided"), *others(4)])
    (fact,) = (await api.ask("GET", f"/v1/events/{event}/receipt")).data["facts"]
    wrong = "0" * 64
    answers = [
        await proof(api, fact["root"], wrong, fact["index"]),
        await proof(api, fact["root"], wrong, 4),
        await proof(api, fact["root"], wrong, 5),
        await proof(api, fact["root"], wrong, 2**63 - 1),
        await proof(api, wrong, wrong, fact["index"]),
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.error["message"] for answer in answers}) == 1
    other = await proof(api, fact["root"], fact["leaf"], (fact["index"] + 1) % 5)
    assert other.status == 404


@pytest.mark.parametrize(
    "query",
    ["leaf=00&index=0", f"leaf={'0' * 64}", f"leaf={'0' * 64}&index=-1", f"leaf={'0' * 64}&index={2**63}", "index=0"],
)
async def test_a_wrong_question_is_400(api: ApiWorld, query: str) -> None:
    assert (await api.ask("GET", f"/v1/receipts/{'0' * 64}/proof?{query}")).status == 400


async def test_roots_are_listed_newest_first_in_pages_and_are_the_accounts_own(api: ApiWorld) -> None:
    account_b = (await api.ask_b("GET", "/v1/accounts/me")).data["id"]
    first = day_of(ids.new_id(ids.EVENT), 80)
    days = [first + n * DAY_MS for n in range(3)]
    for day in days:
        await closed(api, account_b, day, others(2))
    page = await api.ask_b("GET", "/v1/receipts?limit=2")
    assert [row["day"] for row in page.data] == [iso(days[2]), iso(days[1])]
    rest = await api.ask_b("GET", f"/v1/receipts?limit=2&cursor={page.json['meta']['next_cursor']}")
    assert [row["day"] for row in rest.data] == [iso(days[0])]
    mine = (await api.ask("GET", "/v1/receipts?limit=100")).data
    assert not {row["root"] for row in mine} & {row["root"] for row in (*page.data, *rest.data)}


async def test_what_is_not_closed_yet_has_no_facts_and_a_stranger_none_at_all(api: ApiWorld) -> None:
    event = await api.projected("events")
    receipt = (await api.ask("GET", f"/v1/events/{event}/receipt")).data
    assert (receipt["id"], receipt["facts"], receipt["left_out"]) == (event, [], 0)
    assert (await api.ask_b("GET", f"/v1/events/{event}/receipt")).status == 404
    await closed(api, api.account, day_of(event, 90), [fact_id(event, "event.decided")])
    assert (await api.ask_b("GET", f"/v1/events/{event}/receipt")).status == 404


async def test_a_receipt_outlives_the_row(api: ApiWorld) -> None:
    event = ids.new_id(ids.EVENT)  # its row is gone, or never was
    assert (await api.ask("GET", f"/v1/events/{event}/receipt")).status == 404
    await closed(api, api.account, day_of(event, 95), [fact_id(event, "event.decided")])
    receipt = (await api.ask("GET", f"/v1/events/{event}/receipt")).data
    assert holds(receipt, receipt["facts"][0])
    closed_until = datetime.fromisoformat(receipt["closed_until"])
    assert closed_until >= datetime.fromisoformat(receipt["facts"][0]["day"]) + timedelta(days=1)


def bent_of(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case int():
            return value + 1
        case list():
            return [bent_of(value[0]), *value[1:]]
        case _:
            return value.replace("T00", "T01") if ":" in value else ("1" if value[0] != "1" else "2") + value[1:]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def iso(day: int) -> str:
    return datetime.fromtimestamp(day / 1000, UTC).isoformat().replace("+00:00", "Z")
