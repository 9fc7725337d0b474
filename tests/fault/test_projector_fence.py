"""A projector that froze with a batch in hand, and woke after another had taken over and finished the run.

Two guards stand in its way: the compare and set of the positions, by which it writes nothing at all, and statements
that let no weaker status over a stronger. Without the first the positions go back (readers of their own writes would
wait for what was there already); without both the finished run is running again (planted faults).
"""

import contextlib
from collections.abc import Sequence

import asyncpg

from millrace_core.clock import SystemClock
from millrace_core.errors import Stale
from millrace_core.record import Output, Received
from millrace_kafka.observer import Silent
from millrace_projector.batches import Batches
from millrace_projector.handlers import TOPICS
from millrace_projector.ports import Untold
from millrace_store.migrations import migrate
from millrace_store.pool import Connection
from millrace_store.projection import Move, Place, Projection
from tests.support import story


class Unfenced(Projection):
    """Planted fault: the positions are set, whatever they were."""

    async def _move(self, connection: Connection, moves: Sequence[Move]) -> None:
        for move in moves:
            await connection.execute(
                "UPDATE read.positions SET next_offset = $3 WHERE topic = $1 AND partition = $2",
                move.topic,
                move.partition,
                move.next_offset,
            )


def overwriting(projection: Projection) -> Projection:
    """Planted fault: the last status written stands."""
    insert, update, _ = projection._sql["merge_runs"].partition("DO UPDATE SET")
    projection._sql = {**projection._sql, "merge_runs": f"{insert}{update} status = EXCLUDED.status"}
    return projection


class NoLetters:
    async def write(self, outputs: Sequence[Output]) -> None:
        raise AssertionError("nothing here is refused")


async def woken(database: str, projection: Projection) -> tuple[str, int]:
    """The frozen owner holds the run's beginning; the new one projects all; the frozen one wakes. The run's status and
    the position of its facts afterwards."""
    await migrate(database)
    teller = story.Teller()
    everything = story.received([teller.start_run(0), *teller.run_facts(0)])
    beginning = everything[:3]
    connection = await asyncpg.connect(database)
    try:
        await projection.begin(connection, {(topic, number): 0 for topic in TOPICS for number in range(3)})
        frozen, owner = await loaded(connection, projection), await loaded(connection, projection)
        await owner.write(connection, everything, ends(everything))
        with contextlib.suppress(Stale):
            await frozen.write(connection, beginning, ends(beginning))
        status = await connection.fetchval("SELECT status FROM read.runs")
        position = await connection.fetchval("SELECT max(next_offset) FROM read.positions WHERE topic = 'run-facts'")
        return status, position
    finally:
        await connection.close()


async def loaded(connection: Connection, projection: Projection) -> Batches:
    batches = Batches(projection, letters=NoLetters(), observer=Silent(), told=Untold(), clock=SystemClock())
    await batches.reload(connection)
    return batches


def ends(records: Sequence[Received]) -> dict[Place, int]:
    return {(record.topic.split(".")[1], record.partition): record.offset + 1 for record in records}


async def test_a_woken_owner_changes_nothing(database: str) -> None:
    assert await woken(database, Projection()) == ("completed", 6)


async def test_the_positions_alone_are_guard_enough(database: str) -> None:
    assert await woken(database, overwriting(Projection())) == ("completed", 6)


async def test_without_compare_and_set_the_positions_go_back(database: str) -> None:
    assert await woken(database, Unfenced()) == ("completed", 2)


async def test_without_either_guard_a_finished_run_is_running_again(database: str) -> None:
    assert await woken(database, overwriting(Unfenced())) == ("running", 2)
