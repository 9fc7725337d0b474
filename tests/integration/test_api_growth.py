"""Two hundred thousand rows over sixteen days: no statement of the API reads a day of facts from end to end.

The same with ten million rows, and how long the lists take then, is `make bench`'s `rows`."""

from datetime import UTC, datetime, timedelta

from millrace_api.application.database import Database
from millrace_core.ids import DAY_MS
from millrace_store import queries
from millrace_store.migrations import migrate
from millrace_store.pool import open_pool
from tests.support import many_rows
from tests.support.many_rows import Asked, asked, scanned, small_parts

ROWS = 200_000

# Asked only after a statement that says what is kept has found the thing they are about, in the same transaction; or
# (the last) of what is not over.
BEHIND_A_GET = {
    "backtests.own_outcomes",
    "events.event_repeats",
    "events.matches_of_event",
    "events.count_matches",
    "runs.steps_of_run",
    "runs.attempts_of_run",
    "deliveries.attempts_of_delivery",
    "traces.repeats_of_event",
    "traces.children_of_event",
    "traces.current_steps",
    "traces.step_attempts",
    "traces.delivery_attempts",
    "traces.deliveries_before",
}


# What the platform looks at by itself, and shows to nobody.
SHOWN_TO_NOBODY = {"disabling.gone_endpoints", "disabling.failing_endpoints"}


def test_every_statement_knows_what_is_kept() -> None:
    for name, sql in many_rows.statements().items():
        is_bounded = "control.first_kept($1)" in sql or "control.kept_since($1)" in sql
        assert is_bounded != (name in BEHIND_A_GET | SHOWN_TO_NOBODY), name


async def test_no_statement_reads_a_day_from_end_to_end(database: str) -> None:
    await migrate(database)
    async with (
        open_pool(database, name="test", statement_s=120.0) as pool,
        Database(pool, holds_s=None).asking() as connection,
    ):
        assert abs(await many_rows.fill(connection, ROWS) - ROWS) < ROWS / 20
        small = await small_parts(connection)
        assert not {name for name in small if "letters" not in name and _is_filled(name)}, "days have rows"
        every = await asked(connection)
        wrong = {one.says: found for one in every if (found := await scanned(connection, one, small=small))}
        assert wrong == {}
        assert len(every) > 300
        noon = datetime.fromtimestamp((many_rows.FILLED[-1] + 0.5) * DAY_MS / 1000, UTC)
        seconds = Asked(
            "the last seconds", queries.load("unaccounted")["never_asked"], (noon, noon + timedelta(seconds=9))
        )
        assert await scanned(connection, seconds, small=small) == [], "what the reconciler asks again and again"
        planted = Asked("planted", "SELECT count(*) FROM read.events WHERE hops = $1", (7,))
        assert await scanned(connection, planted, small=small), "a scan is seen"


def _is_filled(name: str) -> bool:
    table, _, day = name.rpartition("_")
    return table != "payloads" and day in {many_rows.day_name(n) for n in many_rows.FILLED}
