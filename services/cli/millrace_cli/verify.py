"""`millrace verify`: reads the log again, from its start to its ends of this moment, and proves the accounting.

Order matters: the readers' positions first, the ends of the facts next, the other ends last. Whatever a position has
passed was decided, and its traces acked, before the position was read, so they lie within the ends. The read models
are compared by their numbers of rows, once the projector has passed those ends; days that were dropped are left out.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from millrace_cli.accounting import ALWAYS, FACT_TOPICS, TOPICS, Accounting, Report, Span
from millrace_core.clock import Clock, SystemClock
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.groups import GROUPS
from millrace_kafka.reader import Part, Reader
from millrace_store import days, queries
from millrace_store.pool import AWAY, Connection, connect

PROJECTOR_WAIT_S = 30.0
POLL_S = 0.1
NOT_PROJECTED = ("admissions", "steps", "step-results", "timers", "timers-tx")


@dataclass(slots=True)
class Verified:
    """The report, and where the read models differ from the log, in words."""

    report: Report
    differences: list[str] = field(default_factory=list)
    compared: bool = False

    @property
    def holds(self) -> bool:
        return self.report.holds and not self.differences

    def lines(self) -> list[str]:
        """For a human, the verdict last."""
        *found, verdict = self.report.lines()
        agree = "read models agree with the log" if self.compared else "read models were not compared"
        models = self.differences or [agree]
        return [*found, *models, verdict]


async def verify(
    cluster: Cluster,
    dsn: str | None,
    *,
    account: str | None = None,
    span: Span = ALWAYS,
    clock: Clock | None = None,
    wait_s: float = PROJECTOR_WAIT_S,
) -> Verified:
    """Read everything and judge it, or what `account` and `span` leave of it. Without `dsn`, and for a span, the read
    models are left out. Raises Retry when Kafka is away."""
    clock = clock or SystemClock()
    positions: dict[Part, int] = {}
    async with Admin(cluster) as admin:
        for group, topics in GROUPS.items():
            committed = await admin.committed(group, topics)
            positions |= {part: max(0, at.offset) for part, at in committed.items()}
    book = Accounting(account)
    async with Reader(cluster) as reader:
        facts = await reader.ends(await reader.partitions(FACT_TOPICS))
        ends = facts | await reader.ends(await reader.partitions(set(TOPICS) - set(FACT_TOPICS)))
        starts = await reader.starts(ends)
        begins_ms = await _begins(reader, starts, ends)
        async for records in reader.read(starts, ends):
            for record in records:
                book.feed(record, cluster.short(record.topic))
    verified = Verified(book.report(positions, now_ms=clock.now_ms(), begins_ms=begins_ms, span=span))
    if dsn is not None and span == ALWAYS:
        verified.differences = await _differences(
            dsn, book.rows, ends, account=account, is_whole=not begins_ms, wait_s=wait_s
        )
        verified.compared = True
    return verified


async def _begins(reader: Reader, starts: Mapping[Part, int], ends: Mapping[Part, int]) -> dict[str, int]:
    """The time of the first record of each topic that has lost earlier ones."""
    begins: dict[str, int] = {}
    for part, start in starts.items():
        if start == 0 or start >= ends[part]:
            continue
        async for records in reader.read({part: start}, {part: ends[part]}, max_records=1):
            begins[part[0]] = max(records[0].timestamp, begins.get(part[0], 0))
            break
    return begins


async def _differences(
    dsn: str,
    rows: Callable[[frozenset[int]], Mapping[str, int]],
    ends: Mapping[Part, int],
    *,
    account: str | None,
    is_whole: bool,
    wait_s: float,
) -> list[str]:
    sql = queries.load("verify")
    connection = await connect(dsn, name="millrace verify", statement_s=300.0)
    try:
        passed = await _passed(connection, sql["positions"], ends, wait_s)
        if passed is None:
            return [f"the projector has not passed the ends of the log within {wait_s:g} s: is it running?"]
        dropped = await days.every_dropped(connection)
        expected = rows(dropped)
        counted = await connection.fetch(sql["row_counts"], account)
        found: dict[str, int] = dict(counted[0])
        # Rows may be more than the log tells of when the log has lost its beginning or has gone on meanwhile.
        is_exact = is_whole and passed
        least = "" if is_exact else "at least "
        return [
            f"read model {table} has {count} rows, the log says {least}{expected.get(table, 0)}"
            for table, count in found.items()
            if (count != expected.get(table, 0) if is_exact else count < expected.get(table, 0))
        ]
    except AWAY as error:
        return [f"the read models could not be read: {str(error) or type(error).__name__}"]
    finally:
        connection.terminate()


async def _passed(connection: Connection, sql: str, ends: Mapping[Part, int], wait_s: float) -> bool | None:
    """True when the read models stand exactly at the ends, False when they are past one, None when behind."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        rows = await connection.fetch(sql)
        known = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        read = {part: end for part, end in ends.items() if part[0] not in NOT_PROJECTED}
        if all(known.get(part, -1) >= end for part, end in read.items()):
            return all(known[part] == end for part, end in read.items())
        if asyncio.get_running_loop().time() > deadline:
            return None
        await asyncio.sleep(POLL_S)


def run(say: Callable[[str], None] = print, *, account: str | None = None, span: Span = ALWAYS) -> int:
    """The command: prints the report, answers the exit code. Needs `MILLRACE_KAFKA` and `MILLRACE_POSTGRES`."""
    from millrace_cli.settings import DatabaseSettings, LogSettings
    from millrace_runtime.settings import read

    log, database = read(LogSettings), read(DatabaseSettings)
    cluster = Cluster(log.kafka, log.namespace, "millrace-verify", log.security)
    verified = asyncio.run(verify(cluster, database.postgres.get_secret_value(), account=account, span=span))
    for line in verified.lines():
        say(line)
    return 0 if verified.holds else 1
