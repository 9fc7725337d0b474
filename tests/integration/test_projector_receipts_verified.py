"""`millrace verify --receipts` on a real broker and a real Postgres: equal when nothing was touched, and red for each
way of touching it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from millrace_core import receipts
from millrace_core.errors import Retry
from millrace_core.messages import DayClosed, ReceiptRoot, ReceiptSeed, encode
from millrace_core.receipts import FACT_TOPICS
from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_projector.verifying import Scope, Verdict, verify
from tests.integration.test_projector_closing import FACTS_OF_ONE, begun, day_over, tell
from tests.support import story
from tests.support.infra import execute
from tests.support.projecting import projector, until_projected
from tests.support.receipts import DAY_MS, closing_days, facts_of_days, roots

TOUCHED_LEAVES = "UPDATE read.receipt_leaves SET entries = overlay(entries PLACING '\\x00'::bytea FROM 20)"


@asynccontextmanager
async def two_days(cluster: Cluster, database: str) -> AsyncIterator[None]:
    """Two days with facts are closed, and a projector runs."""
    await begun(cluster, database)
    async with projector(cluster, database):
        async with closing_days(cluster, database) as told:
            await tell(cluster, 0, 1)
            await day_over(told, 2 * FACTS_OF_ONE)
            await tell(cluster, 2)
            await day_over(told, 3 * FACTS_OF_ONE)
        await until_projected(cluster, database)
        yield


async def verified(cluster: Cluster, database: str, **scope: str | int) -> list[Verdict]:
    return await verify(cluster, database, scope=Scope(**scope), day_ms=DAY_MS)  # type: ignore[arg-type]


def with_facts(found: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in found if verdict.facts]


def different(found: Sequence[Verdict]) -> list[str]:
    """What was named, of the days that differ."""
    return [name for verdict in found if verdict.state == "different" for name in verdict.named]


async def test_what_nobody_touched_is_equal(cluster: Cluster, database: str) -> None:
    async with two_days(cluster, database):
        found = await verified(cluster, database)
        days = [root.day for root in await roots(cluster)]
        one = await verified(cluster, database, from_ms=days[1], to_ms=days[1] + DAY_MS, account=story.ACCOUNT_ID)
        nobody = await verified(cluster, database, account="acc_" + "b" * 32)
    assert different(found) == []
    assert sum(verdict.facts for verdict in found) == 3 * FACTS_OF_ONE
    assert {verdict.accounts for verdict in with_facts(found)} == {1}
    assert {verdict.state for verdict in found[:-1]} == {"equal"}
    assert found[-1].state == "not closed"
    assert [(verdict.day, verdict.state) for verdict in one] == [(days[1], "equal")]
    assert with_facts(nobody) == []
    assert different(nobody) == []


TOUCHES = (
    ("UPDATE read.receipt_roots SET root = decode(repeat('ff', 32), 'hex')", "read model"),
    ("UPDATE read.receipt_roots SET chain = decode(repeat('ff', 32), 'hex')", "read model"),
    ("DELETE FROM read.receipt_roots", "only"),
    (TOUCHED_LEAVES, "leaves"),
    ("DELETE FROM read.receipt_leaves", "are missing"),
)
KEPT = "CREATE TABLE kept_roots AS TABLE read.receipt_roots; CREATE TABLE kept_leaves AS TABLE read.receipt_leaves"
PUT_BACK = """TRUNCATE read.receipt_roots, read.receipt_leaves;
    INSERT INTO read.receipt_roots TABLE kept_roots; INSERT INTO read.receipt_leaves TABLE kept_leaves"""


async def test_every_touched_row_is_found(cluster: Cluster, database: str) -> None:
    async with two_days(cluster, database):
        await execute(database, KEPT)
        for statement, says in TOUCHES:
            await execute(database, statement)
            found = await verified(cluster, database)
            assert {verdict.state for verdict in with_facts(found)} == {"different"}, statement
            assert says in different(found)[0]
            assert story.ACCOUNT_ID in different(found)[0]
            await execute(database, PUT_BACK)
        assert different(await verified(cluster, database)) == []


async def test_a_second_root_and_a_root_that_does_not_follow_are_found(cluster: Cluster, database: str) -> None:
    async with two_days(cluster, database):
        first, *_, last = await roots(cluster)
        other = root_like(first, root=b"f" * 32)
        loose = root_like(last, day=last.day + 1_000 * DAY_MS, previous=first.chain)
        await story.append(
            cluster, [Output("receipt-roots", first.account.encode(), encode(root)) for root in (other, loose)]
        )
        await until_projected(cluster, database)
        found = await verified(cluster, database)
    assert any("has a second root" in name for name in different(found))
    assert [verdict.state for verdict in with_facts(found)].count("different") == 1


async def test_a_root_that_the_facts_do_not_give_is_found(cluster: Cluster, database: str) -> None:
    """Whoever rewrites the receipts, links and all, cannot make the facts give what he wrote."""
    await begun(cluster, database)
    async with projector(cluster, database):
        await tell(cluster, 0)
        days = await facts_of_days(cluster)
        day = next(iter(days))
        chain = receipts.chain_of(receipts.GENESIS, story.ACCOUNT_ID, day, 9, b"f" * 32)
        forged = ReceiptRoot(
            account=story.ACCOUNT_ID, day=day, leaves=9, root=b"f" * 32, previous=receipts.GENESIS, chain=chain
        )
        closed = DayClosed(day=day, accounts=1, facts=9, ends=())
        told = [
            Output("receipt-roots", key, encode(one))
            for key, one in ((None, ReceiptSeed(seed=b"s" * 32)), (forged.account.encode(), forged), (None, closed))
        ]
        await story.append(cluster, told)
        await until_projected(cluster, database)
        (verdict, _) = await verified(cluster, database)
    assert verdict.state == "different"
    assert "are missing" in verdict.named[0]
    assert "the facts on the log give" in verdict.named[1]


async def test_without_the_facts_the_leaves_must_give_the_roots(cluster: Cluster, database: str) -> None:
    async with two_days(cluster, database):
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            parts = [TopicPartition(cluster.topic(topic), number) for topic in FACT_TOPICS for number in range(3)]
            await admin.delete_records({part: RecordsToDelete(before_offset=-1) for part in parts})
        finally:
            await admin.close()
        found = await verified(cluster, database)
        await execute(database, TOUCHED_LEAVES)
        touched = await verified(cluster, database)
    assert {verdict.state for verdict in with_facts(found)} == {"leaves agree"}
    assert {verdict.state for verdict in with_facts(touched)} == {"different"}
    assert "the stored leaves give" in different(touched)[0]


async def test_the_command_says_it_with_its_exit_code(cluster: Cluster, database: str) -> None:
    """Days of two seconds are not what it takes for days, so to it they differ."""

    def command(*options: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": "/usr/bin:/bin",
            "MILLRACE_KAFKA": cluster.bootstrap,
            "MILLRACE_NAMESPACE": cluster.namespace,
            "MILLRACE_POSTGRES": database,
        }
        called = [sys.executable, "-m", "millrace_cli", "verify", "--receipts", *options]
        return subprocess.run(called, env=env, capture_output=True, text=True, check=False, timeout=120)

    async with two_days(cluster, database):
        differing = await asyncio.to_thread(command)
        none = await asyncio.to_thread(command, "--from", "2200-01-01", "--account", story.ACCOUNT_ID)
    assert (differing.returncode, none.returncode) == (1, 0), differing.stderr + none.stderr
    assert story.ACCOUNT_ID in differing.stdout
    assert none.stdout == "receipts different 0\n"


async def test_without_a_projector_nothing_is_said(cluster: Cluster, database: str) -> None:
    async with two_days(cluster, database):
        pass
    await story.append(cluster, [Output("receipt-roots", b"acc_1", b"garbage")])
    with pytest.raises(Retry, match="does a projector run"):
        await verify(cluster, database, day_ms=DAY_MS, wait_s=0.1)


def root_like(like: ReceiptRoot, /, **changed: int | bytes) -> ReceiptRoot:
    """A root whose link is right."""
    told = {"day": like.day, "leaves": like.leaves, "root": like.root, "previous": like.previous, **changed}
    chain = receipts.chain_of(told["previous"], like.account, told["day"], told["leaves"], told["root"])  # type: ignore[arg-type]
    return ReceiptRoot(account=like.account, chain=chain, **told)  # type: ignore[arg-type]
