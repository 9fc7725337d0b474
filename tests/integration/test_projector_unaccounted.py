"""The gauge of what is unaccounted: 0 for a whole story, and one for each hole in it."""

import asyncio
import math
from functools import partial

import pytest

from millrace_core.clock import SystemClock
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_projector.reconciler import Balance, Reconciler
from millrace_store.migrations import migrate
from millrace_store.pool import connect
from tests.support import story
from tests.support.projecting import projector, until_projected
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("left_out", "expected"), [(None, 0), ("event-facts", 2), ("deliveries", 2), ("run-commands", 2)]
)
async def test_what_is_missing_is_counted(cluster: Cluster, database: str, left_out: str | None, expected: int) -> None:
    await create_topics(cluster)
    await migrate(database)
    teller = story.Teller(start_ms=SystemClock().now_ms() - 300_000)
    told = [record for n in range(6) for record in teller.whole(n)]
    told += [record for n in (6, 7) for record in teller.whole(n) if record.topic != left_out]
    await story.append(cluster, told)
    found: list[Balance] = []
    stop = asyncio.Event()
    async with projector(cluster, database):
        await until_projected(cluster, database)
    reconciler = Reconciler(
        connect=partial(connect, database, name="test"),
        is_behind=lambda: False,
        found=found.append,
        clock=SystemClock(),
        every_s=0.05,
    )
    assert reconciler.age_s() == math.inf
    async with asyncio.TaskGroup() as group:
        group.create_task(reconciler.run(stop))
        await eventually(lambda: found)
        stop.set()
        assert reconciler.age_s() < 60.0
    balance = found[-1]
    assert balance.unaccounted == expected
    undecided = expected if left_out == "event-facts" else 0
    assert sum(balance.undecided.values()) == undecided
    assert len(balance.undecided) == 3, "a partition that owes nothing says 0"
    assert set(balance.oldest_age_s) == {"matcher", "orchestrator", "executor", "scheduler", "dispatcher"}
    assert (balance.oldest_age_s["matcher"] > 60.0) == bool(undecided)
