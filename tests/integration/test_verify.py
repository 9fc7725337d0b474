"""`millrace verify` on a real broker and a real Postgres: it proves a whole story, and finds each hole made in one."""

from collections.abc import Callable

import pytest

from millrace_cli.accounting import Span
from millrace_cli.verify import Verified, verify
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_store.migrations import migrate
from tests.support import story
from tests.support.groups import everyone_has_read
from tests.support.infra import execute
from tests.support.projecting import projector, until_projected


async def verified(cluster: Cluster, database: str, records: list[Output]) -> Verified:
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, records)
    await everyone_has_read(cluster)
    async with projector(cluster, database):
        await until_projected(cluster, database)
        return await verify(cluster, database)


def whole(events: int) -> list[Output]:
    teller = story.Teller()
    return [record for n in range(events) for record in teller.whole(n)]


async def test_a_whole_story_is_accounted_for(cluster: Cluster, database: str) -> None:
    found = await verified(cluster, database, whole(20))
    assert found.holds, found.lines()
    assert found.lines()[-1] == "unaccounted 0"
    assert found.report.runs == {"completed": 20}
    assert found.report.deliveries == {"succeeded": 20}


@pytest.mark.parametrize(
    ("lost", "word"),
    [
        (lambda record: record.topic == "event-facts", "has no outcome"),
        (lambda record: record.topic == "deliveries", "was never asked for"),
        (lambda record: b"run.ended" in (record.value or b""), "neither ended nor goes on"),
        (lambda record: b"succeeded" in (record.value or b""), "neither ended nor goes on"),
    ],
    ids=["an outcome", "a delivery", "a run's end", "a delivery's end"],
)
async def test_a_lost_record_is_found(
    cluster: Cluster, database: str, lost: Callable[[Output], bool], word: str
) -> None:
    records = whole(5)
    hole = [at for at, record in enumerate(records) if lost(record)][-1]
    if records[hole].topic == "deliveries":  # and with it whatever tells of it
        id = records[hole].key
        records = [record for record in records if record.key != id]
    else:
        del records[hole]
    found = await verified(cluster, database, records)
    assert not found.holds
    assert found.report.unaccounted == 1
    assert word in found.report.named[0]


async def test_a_missing_row_is_found(cluster: Cluster, database: str) -> None:
    await verified(cluster, database, whole(5))
    await execute(database, "DELETE FROM read.deliveries WHERE id = (SELECT id FROM read.deliveries LIMIT 1)")
    found = await verify(cluster, database)
    assert found.report.holds
    assert found.differences == ["read model deliveries has 4 rows, the log says 5"]


async def test_one_account_alone_and_a_span_can_be_asked_for(cluster: Cluster, database: str) -> None:
    await verified(cluster, database, whole(5))
    await execute(database, "DELETE FROM read.deliveries WHERE id = (SELECT id FROM read.deliveries LIMIT 1)")
    mine = await verify(cluster, database, account=story.ACCOUNT_ID)
    assert mine.differences == ["read model deliveries has 4 rows, the log says 5"]
    other = await verify(cluster, database, account="acc_" + "b" * 32)
    assert (other.holds, other.report.events) == (True, 0)
    later = await verify(cluster, database, span=Span(from_ms=2**45))
    assert (later.holds, later.report.events) == (True, 0)
    assert "read models were not compared" in later.lines()
