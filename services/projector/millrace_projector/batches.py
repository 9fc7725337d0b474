"""One batch from records to committed rows: the part that the live projector and a rebuild share.

Exactly once into Postgres: rows and positions are one transaction, and the positions move only from where this writer
believes them to be. A record that cannot be projected is a dead letter before the batch is committed; when Postgres
refuses a batch though every value was checked, its records are written one by one, so that one of them cannot take
others with it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from millrace_core.clock import Clock
from millrace_core.dead_letters import dead_letter
from millrace_core.errors import Reject
from millrace_core.record import Received
from millrace_kafka.observer import Observer
from millrace_kafka.topics import short_name
from millrace_projector.handlers import HANDLERS
from millrace_projector.ports import Letters, Told
from millrace_projector.rows import Rows
from millrace_store.days import BY_TIME, DATED, day_of, day_of_row
from millrace_store.pool import Connection
from millrace_store.projection import AlreadyThere, Move, Place, Projection, Refused, Write

# After a row that was expected to be new was there already, its table is written the careful way for so many batches:
# where one repeat is, others follow.
CAREFUL_BATCHES = 20
# Records read or parsed in one go.
PIECE = 500


class Batches:
    """Writes batches for one schema. `positions` is where it believes the read models to be."""

    def __init__(
        self, projection: Projection, *, letters: Letters, observer: Observer, told: Told, clock: Clock
    ) -> None:
        self._projection = projection
        self._letters = letters
        self._observer = observer
        self._told = told
        self._clock = clock
        self._careful: dict[str, int] = {}
        self.positions: dict[Place, int] = {}

    async def reload(self, connection: Connection) -> None:
        """Believe what Postgres says."""
        self._projection.forget_days()
        self.positions = await self._projection.positions(connection)

    async def prepare(self, records: Sequence[Received], ends: Mapping[Place, int]) -> "Prepared":
        """A batch, parsed: these records, and `ends`, the positions behind them. Touches nothing. A batch that is being
        stored goes on between its pieces."""
        rows = Rows()
        refused: list[tuple[Received, str]] = []
        handlers = {topic: HANDLERS[short_name(topic)] for topic in {record.topic for record in records}}
        for n, record in enumerate(records, start=1):
            try:
                handlers[record.topic](record, rows)
            except Reject as error:
                refused.append((record, str(error)))
            except Exception as error:  # bad input never takes a service down, whatever it trips over
                refused.append((record, f"{type(error).__name__}: {error}"))
            if n % PIECE == 0:
                await asyncio.sleep(0)
        return Prepared(records, ends, _writes(rows), refused)

    async def commit(self, connection: Connection, batch: "Prepared") -> None:
        """Store a batch and its positions. Raises Stale when someone else has moved on (`reload` then), Retry when a
        dead letter could not be written, and what the driver raises: nothing of the batch is stored then, except
        perhaps when the answer to the commit was lost, which `reload` clears up."""
        if batch.refused:
            await self._park(batch.refused)
        try:
            await self._commit(connection, batch.writes, self._moves(batch.records, batch.ends))
        except Refused:
            await self._one_by_one(connection, batch)

    async def write(self, connection: Connection, records: Sequence[Received], ends: Mapping[Place, int]) -> None:
        """`prepare` and `commit`."""
        await self.commit(connection, await self.prepare(records, ends))

    async def _park(self, refused: Sequence[tuple[Received, str]]) -> None:
        await self._letters.write([dead_letter(record, f"projector: {reason}") for record, reason in refused])
        for record, reason in refused:
            self._observer.dead_letter(record.topic, record.partition, record.offset, reason)

    def _moves(self, records: Sequence[Received], ends: Mapping[Place, int]) -> list[Move]:
        last = {(record.topic, record.partition): record.timestamp for record in records}
        times = {(short_name(topic), partition): at for (topic, partition), at in last.items()}
        return [
            Move(*place, self.positions[place], end, _time(times.get(place)))
            for place, end in ends.items()
            if self.positions[place] != end
        ]

    async def _commit(self, connection: Connection, writes: Sequence[Write], moves: list[Move]) -> None:
        if not moves:
            return
        await self._projection.ensure_days(connection, _days(writes), now_ms=self._clock.now_ms())
        writes = self._projection.kept(writes)
        began = self._clock.monotonic()
        await self._written(connection, moves, writes)
        self._told.committed(self._clock.monotonic() - began)
        for write in writes:
            self._told.wrote(write.table, len(write.fresh) + len(write.merged))
        for move in moves:
            self.positions[move.topic, move.partition] = move.next_offset

    async def _written(self, connection: Connection, moves: list[Move], writes: Sequence[Write]) -> None:
        while True:
            try:
                await self._projection.write(connection, moves, writes, careful=frozenset(self._careful))
            except AlreadyThere as error:
                if error.table in self._careful:
                    raise
                self._careful[error.table] = CAREFUL_BATCHES
            else:
                self._careful = {table: left - 1 for table, left in self._careful.items() if left > 1}
                return

    async def _one_by_one(self, connection: Connection, batch: "Prepared") -> None:
        for record in batch.records:
            place = short_name(record.topic), record.partition
            one = await self.prepare([record], {place: record.offset + 1})
            moves = self._moves(one.records, one.ends)
            try:
                await self._commit(connection, [] if one.refused else one.writes, moves)
            except Refused as error:
                await self._park([(record, str(error))])
                await self._commit(connection, [], moves)
        await self._commit(connection, [], self._moves([], batch.ends))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that waits to be stored. `refused` are parked before it is."""

    records: Sequence[Received]
    ends: Mapping[Place, int]
    writes: list[Write]
    refused: list[tuple[Received, str]]


def _writes(rows: Rows) -> list[Write]:
    return [Write(table.name, table.columns, fresh, merged) for table, fresh, merged in rows.written()]


def _days(writes: Sequence[Write]) -> set[int]:
    by_id = [write for write in writes if write.table in DATED and write.table != BY_TIME]
    ids = {row[0][:12] for write in by_id for row in (*write.fresh, *write.merged)}
    letters = {day_of_row(BY_TIME, row) for write in writes if write.table == BY_TIME for row in write.fresh}
    return {day_of(id) for id in ids} | letters


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
