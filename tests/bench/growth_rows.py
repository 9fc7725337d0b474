"""The API's lists over ten million rows: whether any reads a day of facts from end to end, and how long each takes.

The statements are the API's own, with every choice of their filters, over its own kind of pool; what a request costs
beside them does not depend on the rows. Of each list the 95th percentile of all its calls, and the median of the choice
of filters that takes longest.
"""

import sys
import time
import uuid
from collections import defaultdict
from statistics import median

from millrace_api.application.database import Database
from millrace_store.migrations import migrate
from millrace_store.pool import Pool, open_pool
from tests.bench.report import Figure, figure, percentile
from tests.bench.stack import Stack
from tests.support import many_rows
from tests.support.many_rows import Asked, asked, scanned, small_parts

CALLS = 20
"""Of each choice: lists with filters have dozens of them, and hundreds."""

LIST_MS_MAX = 50


async def lists(stack: Stack, *, rows: int) -> list[Figure]:
    """Fill, explain, ask."""
    dsn = await stack.postgres.ensure_database(f"rows{uuid.uuid1().hex[:10]}")
    await migrate(dsn)
    async with open_pool(dsn, name="bench", statement_s=3_600.0) as pool:
        began = time.perf_counter()
        async with Database(pool, holds_s=None).asking() as connection:
            count = await many_rows.fill(connection, rows)
            print(f"{count:,} rows in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            every, small = await asked(connection), await small_parts(connection)
            scans = {one.says: found for one in every if (found := await scanned(connection, one, small=small))}
        for says, found in scans.items():
            print(f"{says} reads {', '.join(found)}", file=sys.stderr, flush=True)
        took = await _asked(pool, [one for one in every if ".list_" in one.says])
    name = f"{count / 1e6:.1f} M rows"
    return [
        figure(f"{name}: statements that scan a day", f"of {len(every)}", len(scans), bar=0, better="less"),
        *(made for listing, choices in sorted(took.items()) for made in _figures(f"{name}: {listing}", choices)),
    ]


async def _asked(pool: Pool, every: list[Asked]) -> dict[str, dict[str, list[float]]]:
    """Of each list, and of each of its choices, how long the calls took, in milliseconds."""
    took: dict[str, dict[str, list[float]]] = defaultdict(dict)
    async with Database(pool, holds_s=None).asking() as connection:
        for one in every:
            calls = took[one.says.split()[0].partition(".")[2]].setdefault(one.says, [])
            for _ in range(CALLS):
                began = time.perf_counter()
                await connection.fetch(one.sql, *one.values)
                calls.append((time.perf_counter() - began) * 1000)
    return took


def _figures(name: str, choices: dict[str, list[float]]) -> list[Figure]:
    says = max(choices, key=lambda says: median(choices[says]))
    print(f"slowest: {median(choices[says]):.1f} ms {says}", file=sys.stderr, flush=True)
    all_calls = [ms for calls in choices.values() for ms in calls]
    return [
        figure(f"{name}, p95", "ms", percentile(all_calls, 0.95), bar=LIST_MS_MAX, better="less"),
        figure(f"{name}, slowest", "ms", choices[says], bar=LIST_MS_MAX, better="less"),
    ]
