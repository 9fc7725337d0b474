"""The life of a worker of which one works at a time, on a real Postgres.

Not here: what the relay, the replays and the count do with it, which their own tests tell.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from millrace_core.errors import Stale
from millrace_core.restart import pause
from millrace_store.leading import Leader
from millrace_store.pool import Connection, connect
from tests.support.infra import end_session
from tests.support.waiting import eventually

LOCK = 7


class Worker:
    """Says who it is while it works; `fails` so many times before it does."""

    def __init__(self, database: str, name: str, *, fails: int = 0) -> None:
        self.fails = fails
        self.lives = 0
        self.delays: list[str] = []
        self.leader = Leader(
            partial(connect, database, name=name),
            lock=LOCK,
            work=self._work,
            again=(Stale,),
            delayed=self.delays.append,
        )

    async def _work(self, connection: Connection, stop: asyncio.Event) -> None:
        self.lives += 1
        while not stop.is_set():
            if self.fails:
                self.fails -= 1
                raise Stale("somebody else was here")
            await connection.execute("SELECT 1")
            self.leader.moved()
            await pause(stop, 0.02)


@asynccontextmanager
async def running(*workers: Worker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.leader.run(stop))
        try:
            yield
        finally:
            stop.set()


async def test_one_works_the_other_stands_by_and_takes_over_when_the_session_ends(database: str) -> None:
    one, other = Worker(database, "one"), Worker(database, "other")
    assert one.leader.ready() == "not started"
    async with running(one):
        await eventually(lambda: one.leader.is_working)
        async with running(other):
            await eventually(lambda: other.leader.ready() is None)
            assert not other.leader.is_working

            async def has_taken_over() -> bool:
                await end_session(database, "one")  # it is the first to ask again now and then
                return other.leader.is_working

            await eventually(has_taken_over, every_s=0.1)
            await eventually(lambda: one.leader.ready() is None)
            assert not one.leader.is_working
        await eventually(lambda: one.leader.is_working)
    assert one.leader.ready() == "stopped"


async def test_a_life_that_failed_is_told_and_begun_anew(database: str) -> None:
    worker = Worker(database, "failing", fails=2)
    async with running(worker):
        await eventually(lambda: worker.leader.ready() == "starting anew: somebody else was here")
        await eventually(lambda: worker.leader.is_working)
        assert worker.delays == ["somebody else was here"] * 2
        assert worker.lives == 3


async def test_a_server_that_is_away_is_said_and_waited_for_until_told_to_stop() -> None:
    worker = Worker("postgresql://nobody@127.0.0.1:1/none", "nobody")
    async with running(worker):
        await eventually(lambda: "Postgres is away" in (worker.leader.ready() or ""))
    assert worker.lives == 0
