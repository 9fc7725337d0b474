"""Read models that have grown: so many rows over two weeks and more, and every statement the API asks of them.

The statements are taken from the SQL files: one that reads the facts and has no example of its values here fails, so a
new one cannot be forgotten. Members that may be null are filters: an example gives a value to each, and every choice of
them is asked.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import UUID

import millrace_store
from millrace_api.application.runs import STATUSES
from millrace_core.clock import SystemClock
from millrace_core.ids import DAY_MS
from millrace_store import days, queries
from millrace_store.days import DATED
from millrace_store.pool import Connection

FOLDER = Path(millrace_store.__file__).parent / "sql"
TODAY = SystemClock().now_ms() // DAY_MS
DAYS = 16
FILLED = range(TODAY - DAYS, TODAY)
"""Days with rows: the first two are behind every retention, and not dropped yet."""

ROWS_AN_EVENT = 5.52
LARGE, SHORT = "acc_large", "acc_short"
"""Six of ten events are of one account; another keeps five days only."""

_BASE = """
CREATE UNLOGGED TABLE public.base AS
SELECT n, ms, to_timestamp(ms / 1000.0) AS at, account,
       (lpad(to_hex(ms), 12, '0') || substr(md5('e' || n), 1, 20))::uuid AS event,
       (lpad(to_hex(ms), 12, '0') || substr(md5('r' || n), 1, 20))::uuid AS run,
       (lpad(to_hex(ms), 12, '0') || substr(md5('d' || n), 1, 20))::uuid AS delivery,
       md5(account || ' subscription ' || CASE n % 5003 WHEN 0 THEN 'rare' ELSE (n % 20)::text END)::uuid
           AS subscription,
       md5(account || ' endpoint ' || n % 7)::uuid AS endpoint,
       md5(account || ' plan ' || n % 5)::uuid AS plan,
       'e:shop/' || CASE WHEN n % 5003 = 0 THEN 'rare' ELSE 'order-' || n % 12 END AS identifier
FROM (SELECT n, ($2::bigint + n * ($3::float8 / $1))::bigint AS ms,
             CASE WHEN n / 2 % 10 < 6 THEN 'acc_large' WHEN n / 2 % 10 = 6 THEN 'acc_short' ELSE 'acc_' || n % 41 END
                 AS account
      FROM generate_series(0, $1::bigint - 1) AS n) AS timed
"""

# Every event has an outcome; every second one starts a run, the others a delivery. The rest follows from the number.
_FILL = {
    "events": """
        INSERT INTO read.events (id, account, identifier, received_at, hops, partition, "offset", properties)
        SELECT event, account, identifier, at, 0, n % 3, n / 3,
               convert_to('{"n":' || n || ',"note":"' || repeat('x', 100) || '"}', 'UTF8')
        FROM public.base""",
    "event_outcomes": """
        INSERT INTO read.event_outcomes (event, partition, "offset", account, outcome, decided_at)
        SELECT event, n % 3, n / 3, account, 'matched', at FROM public.base""",
    "event_matches": """
        INSERT INTO read.event_matches (event, kind, child, account, subscription, endpoint)
        SELECT event, CASE n % 2 WHEN 0 THEN 'run' ELSE 'delivery' END, CASE n % 2 WHEN 0 THEN run ELSE delivery END,
               account, subscription, CASE n % 2 WHEN 0 THEN NULL ELSE endpoint END
        FROM public.base""",
    "runs": """
        INSERT INTO read.runs (id, account, status, plan, plan_kind, subscription, event, identifier, input, created_at,
                               ended_at)
        SELECT run, account,
               CASE WHEN n % 20011 < 2 THEN 'running' WHEN n % 40009 < 2 THEN 'queued' WHEN n % 50 = 0 THEN 'failed'
                    WHEN n % 1001 < 2 THEN 'timed_out' ELSE 'completed' END,
               plan, 'job', subscription, event, identifier, '{}', at, at
        FROM public.base WHERE n % 2 = 0""",
    "steps": """
        INSERT INTO read.steps (run, node, account, status, attempts, started_at)
        SELECT run, 'a', account, 'completed', 1, at FROM public.base WHERE n % 2 = 0""",
    "step_attempts": """
        INSERT INTO read.step_attempts (run, node, attempt, account, status, started_at)
        SELECT run, 'a', 1, account, 'completed', at FROM public.base WHERE n % 2 = 0""",
    "deliveries": """
        INSERT INTO read.deliveries (id, account, endpoint, event, subscription, type, status, attempts, body,
                                     created_at, ended_at)
        SELECT delivery, account, endpoint, event, subscription, 'order', CASE
                   WHEN n % 20011 < 2 THEN 'retrying' WHEN n % 40009 < 2 THEN 'queued' WHEN n % 51 = 0 THEN 'failed'
                   ELSE 'succeeded' END, 1, '{}', at, at
        FROM public.base WHERE n % 2 = 1""",
    "delivery_attempts": """
        INSERT INTO read.delivery_attempts (delivery, n, account, outcome, at, duration_ms, url, status)
        SELECT delivery, 1, account, 'succeeded', at, 3.5, 'https://example.com/hook', 200
        FROM public.base WHERE n % 2 = 1""",
    "dead_letters": """
        INSERT INTO read.dead_letters (topic, partition, "offset", account, at, reason, source_topic, headers)
        SELECT 'dead-letters', n % 3, n, account, at, 'cannot be read: ' || n,
               CASE n % 3 WHEN 0 THEN 'events' ELSE 'steps' END, '[]'
        FROM public.base WHERE n % 50 = 0""",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One statement with values for all its parameters; `says` names it and the filters that are given."""

    says: str
    sql: str
    values: tuple[Any, ...]


async def fill(connection: Connection, rows: int) -> int:
    """About so many rows, at random nothing; how many there are then."""
    for account, kept in ((LARGE, 14), (SHORT, 5)):
        await connection.execute(
            "INSERT INTO control.accounts (id, version, name, plan, created_at, retention_days) "
            "VALUES ($1, 1, $1, 'free', now(), $2)",
            account,
            kept,
        )
    await days.make(connection, range(FILLED.start, TODAY + 3))
    events = int(rows / ROWS_AN_EVENT)
    await connection.execute("DROP TABLE IF EXISTS public.base")
    await connection.execute(
        _BASE.replace("$1", str(events)).replace("$2", str((TODAY - DAYS) * DAY_MS)).replace("$3", str(DAYS * DAY_MS))
    )
    count = 0
    for statement in _FILL.values():
        count += int((await connection.execute(statement)).rpartition(" ")[2])
    # As autovacuum does it: each partition, never what they are parts of.
    for row in await connection.fetch(queries.load("days")["parts"], "read"):
        await connection.execute(f'ANALYZE read."{row["relname"]}"')
    return count


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────────
UNWELL = ("failed", "cancelled", "timed_out", "stale", "dead_lettered")
FAR = datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1)


def statements() -> Mapping[str, str]:
    """Every statement of the API that reads facts, as `file.name`."""
    found = {}
    for path in sorted((FOLDER / "api").glob("*.sql")):
        for name, sql in queries.load(f"api/{path.stem}").items():
            if any(re.search(rf"\bread\.{table}\b", sql) for table in DATED):
                found[f"{path.stem}.{name}"] = sql
    return found


async def asked(connection: Connection, *, only: str = "") -> list[Asked]:
    """Every statement with every choice of its filters, for both accounts, for the first page and for a later one."""
    found = []
    for account in (LARGE, SHORT):
        examples = await _examples(connection, account)
        for name, sql in statements().items():
            if only in name:
                found += [choice for values in examples[name] for choice in _choices(name, sql, values)]
    return list(dict.fromkeys(found))


def _choices(name: str, sql: str, values: tuple[Any, ...]) -> Iterator[Asked]:
    optional = sorted({int(n) for n in re.findall(r"\$(\d+)::\w+ IS NULL OR", sql)})
    for count in range(len(optional) + 1):
        for given in combinations(optional, count):
            chosen = [value if n not in optional or n in given else None for n, value in enumerate(values, start=1)]
            says = f"{name} {chosen[0]}" + "".join(f" {values[n - 1]}" for n in given)
            yield Asked(says, sql, tuple(chosen))


async def _examples(connection: Connection, account: str) -> Mapping[str, list[tuple[Any, ...]]]:
    row = await connection.fetchrow(
        "SELECT * FROM public.base WHERE account = $1 AND n % 2 = 0 AND ms > $2 ORDER BY n LIMIT 1",
        account,
        (TODAY - 3) * DAY_MS,
    )
    other = await connection.fetchrow(
        "SELECT * FROM public.base WHERE account = $1 AND n % 2 = 1 AND ms > $2 ORDER BY n LIMIT 1",
        account,
        (TODAY - 3) * DAY_MS,
    )
    assert row is not None
    assert other is not None
    later = row["at"], row["event"]
    since, until = row["at"] - timedelta(days=1), row["at"]
    rare = UUID(md5(f"{account} subscription rare".encode()).hexdigest())
    event, run, delivery = row["event"], row["run"], other["delivery"]
    letter = "dead-letters", 0, 0
    return {
        "backtests.own_outcomes": [(account, (event,))],
        "backtests.run_times": [(account, row["plan"], 100)],
        "disabling.gone_endpoints": [(100,)],
        "disabling.failing_endpoints": [(since, until, 20)],
        "receipts.has_event": [(account, event)],
        "receipts.has_run": [(account, run)],
        "receipts.has_delivery": [(account, delivery)],
        "events.list_events": [(account, *FAR, 21), (account, *later, 101)],
        "events.list_events_of": [
            (account, *below, 21, of) for below in (FAR, later) for of in ("e:shop/order-3", "e:shop/rare")
        ],
        "events.get_event": [(account, event)],
        "events.event_repeats": [(account, event)],
        "events.matches_of_event": [(account, event, 1_000)],
        "events.count_matches": [(account, event)],
        "runs.list_runs": [
            (account, *below, 21, status, row["plan"], event, subscription)
            for below in (FAR, later)
            for status in ("completed", "failed", "timed_out", "running", "cancelled")
            for subscription in (row["subscription"], rare)
        ],
        "runs.list_runs_of_statuses": [
            (account, *below, 21, statuses, row["plan"])
            for below in (FAR, later)
            for statuses in (UNWELL, ("queued",), STATUSES)
        ],
        "runs.get_run": [(account, run)],
        "runs.steps_of_run": [(account, run)],
        "runs.attempts_of_run": [(account, run)],
        "deliveries.list_deliveries": [
            (account, *below, 21, status, other["endpoint"], other["event"])
            for below in (FAR, later)
            for status in ("succeeded", "failed", "queued", "retrying", "cancelled")
        ],
        "deliveries.get_delivery": [(account, delivery)],
        "deliveries.attempts_of_delivery": [(account, delivery)],
        "dead_letters.list_dead_letters": [
            (account, "events", "cannot", since, until, FAR[0], "", 0, 0, 21),
            (account, "steps", "nowhere", datetime(1, 1, 2, tzinfo=UTC), FAR[0], row["at"], "dead-letters", 1, 5, 21),
        ],
        "dead_letters.count_dead_letters": [(account, "events", "cannot", since, until, 100_001)],
        "dead_letters.get_dead_letter": [(account, *letter)],
        "dead_letters.letters_to_redrive": [(account, since, until, ("events",), "cannot", 20)],
        "dead_letters.count_letters_to_redrive": [(account, since, until, ("events",), "cannot")],
        "replays.events_between": [(account, since, UUID(int=0), until, 1_000, 8 << 20)],
        "replays.events_of_between": [(account, since, UUID(int=0), until, 1_000, 8 << 20, "e:shop/rare")],
        "traces.event": [(account, event)],
        "traces.repeats_of_event": [(account, event, 0, 0, 20)],
        "traces.children_of_event": [(account, event, 50, 1_000)],
        "traces.runs": [(account, (run,))],
        "traces.current_steps": [(account, (run,))],
        "traces.step_attempts": [(account, (run,), 1_000)],
        "traces.deliveries": [(account, (delivery,))],
        "traces.delivery_attempts": [(account, (delivery,), 1_000)],
        "traces.deliveries_before": [(account, *later, other["endpoint"], 1_000)],
    }


# ── how it is answered ──────────────────────────────────────────────────────────────────────────────────────────────
SMALL_ROWS = 500


async def scanned(connection: Connection, one: Asked, *, small: frozenset[str] = frozenset()) -> list[str]:
    """The partitions of facts that this reads from end to end. A day with next to nothing in it (`small`) is read that
    way by right: it is one page."""
    explained = str(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {one.sql}", *one.values))
    found: list[str] = []
    stack = [json.loads(explained)[0]["Plan"]]
    while stack:
        node = stack.pop()
        stack += node.get("Plans", [])
        name = node.get("Relation Name", "")
        if node["Node Type"] == "Seq Scan" and _table(name) in DATED and name not in small:
            found.append(name)
    return found


async def small_parts(connection: Connection) -> frozenset[str]:
    """Partitions with next to nothing in them."""
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'read' AND c.relkind = 'r' AND c.relispartition AND c.reltuples < $1",
        SMALL_ROWS,
    )
    return frozenset(row["relname"] for row in rows)


def day_name(day: int) -> str:
    """The last part of a partition's name."""
    return "d" + days.name_of(day).replace("-", "")


def _table(name: str) -> str:
    return re.sub(r"_(default|d\d{8})$", "", name)
