"""The worker behind replays: reads the next events from the read models, writes them to `events`, moves the cursor.

One works at a time, whichever holds the lock (`leading`). A step's records are acked before the cursor moves, by
compare and set: a crash in between, or a worker that was frozen and woke, writes a step again, and the matcher tells
that by the replay's id and the event's. It does so for a day, so a replay that lay still for longer fails instead of
going on.
A replay begins when the read models hold all that was on the log when it was asked for: none of the past is missed.
Not here: which events (`application.replays`), what becomes of them (the matcher).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from structlog.typing import FilteringBoundLogger

from millrace_api.application import replays
from millrace_api.application.problems import Problem
from millrace_api.application.replays import Selection
from millrace_api.application.runs import Log
from millrace_core import ids, limits
from millrace_core.clock import Clock, utc_now
from millrace_core.errors import Reject, Stale
from millrace_core.event import to_output
from millrace_core.record import Output
from millrace_core.restart import pause
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.leading import Leader
from millrace_store.pool import Connection, connect

_SQL = queries.load("api/replays")
_LOCK = 0x6D696C6C72706C79  # "millrply": any fixed number, other than the relay's and the migrations'
SURFACE = "replay"
_TURN_REPLAYS_MAX = 100


class Replaying:
    """Runs until told to stop; survives the loss of Postgres, of the broker and of the lock."""

    def __init__(
        self,
        dsn: str,
        *,
        events: Log,
        caught_up: Callable[[], Awaitable[bool]],
        written: Callable[[int], None],
        clock: Clock,
        log: FilteringBoundLogger,
        name: str = "millrace replays",
    ) -> None:
        """`caught_up` tells, after a while, whether the read models hold all that was on the log when it was asked;
        `written` hears how many events a step wrote."""
        self._leader = Leader(
            partial(connect, dsn, name=name, idle_s=limits.RELAY_SESSION_S),
            lock=_LOCK,
            work=self._replay,
            again=(Stale, Problem),
            delayed=lambda reason: log.warning("replay.delayed", reason=reason),
        )
        self._events = events
        self._caught_up = caught_up
        self._written = written
        self._clock = clock
        self._log = log

    def ready(self) -> str | None:
        """None while replays come on, or another worker has the lock; else why they do not."""
        return self._leader.ready()

    async def run(self, stop: asyncio.Event) -> None:
        """The worker."""
        await self._leader.run(stop)

    async def _replay(self, connection: Connection, stop: asyncio.Event) -> None:
        while not stop.is_set():
            is_busy = await self._turn(connection)
            self._leader.moved()
            await pause(stop, limits.REPLAY_STEP_S if is_busy else limits.REPLAY_POLL_S)

    async def _turn(self, connection: Connection) -> bool:
        """One step of each replay under way; False when there is none."""
        live = await connection.fetch(_SQL["live_replays"], _TURN_REPLAYS_MAX)
        waiting = [row["id"] for row in live if row["state"] == "waiting"]
        if waiting and await self._caught_up():
            await connection.execute(_SQL["begin_replays"], waiting, self._now())
        running = [row for row in live if row["state"] == "running"]
        for row in running:
            share = min(row["per_s"], limits.REPLAY_PER_S_MAX // len(running))
            await self._step(connection, row, max(1, round(share * limits.REPLAY_STEP_S)))
        return bool(live)

    async def _step(self, connection: Connection, row: Row, most: int) -> None:
        """Write the next events of one replay, `most` at most."""
        if not row["is_heard"]:
            await self._end(connection, row, "failed", "its subscription was deleted or disabled")
            return
        if self._now() - row["updated_at"] > timedelta(milliseconds=limits.REPLAY_STILL_MS_MAX):
            reason = "nothing moved it for too long to go on safely: begin another from where it is"
            await self._end(connection, row, "failed", reason)
            return
        account = row["account"]
        selection = Selection(account, pattern=row["pattern"], filter=row["filter"], where=row["where"])
        cursor = row["cursor_at"], row["cursor_id"]
        found = await replays.page(connection, account, selection.identifier, after=cursor, until=row["until"])
        if not found:
            await self._end(connection, row, "completed", None)
            return
        passed, outputs = taken(row, selection, found, most)
        try:
            if outputs:
                await self._events.write(outputs)
                self._written(len(outputs))
        except Reject as error:
            await self._end(connection, row, "failed", f"an event cannot be written again: {error}")
            return
        last = passed[-1]
        moved = await connection.execute(
            _SQL["move_replay"],
            account,
            row["id"],
            *cursor,
            last["received_at"],
            last["id"],
            len(passed),
            len(outputs),
            self._now(),
        )
        if moved != "UPDATE 1":
            raise Stale("another worker has moved on with this replay")

    async def _end(self, connection: Connection, row: Row, state: str, reason: str | None) -> None:
        await connection.execute(_SQL["end_replay"], row["account"], row["id"], state, reason, self._now())
        self._log.info("replay.ended", replay=ids.prefixed(ids.REPLAY, row["id"]), state=state, reason=reason)

    def _now(self) -> datetime:
        return utc_now(self._clock)


def taken(row: Row, selection: Selection, found: Sequence[Row], most: int) -> tuple[Sequence[Row], list[Output]]:
    """How far into the page one step goes, and the records it writes: `most` at most, never none of a page."""
    replay = ids.prefixed(ids.REPLAY, row["id"])
    only = None if row["subscription"] is None else ids.prefixed(ids.SUBSCRIPTION, row["subscription"])
    outputs: list[Output] = []
    for at, one in enumerate(found):
        event = replays.event_of(one, selection.account, replay=replay, only=only)
        if not selection.takes(event):
            continue
        if len(outputs) == most:
            return found[:at], outputs
        outputs.append(to_output(event, surface=SURFACE))
    return found, outputs
