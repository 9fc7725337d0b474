"""The API's lists over ten million rows: whether any reads a day of facts from end to end, and how long each takes.

The statements are the API's own, with every choice of their filters, over its own kind of pool; what a request costs
beside them does not depend on the rows. A list's figure is the slowest of its choices: of each the 95th percentile.
"""

import sys
import time
import uuid
from collections import defaultdict

from millrace_api.application.database import Database
from millrace_store.migrations import migrate
from millrace_store.pool import Pool, open_pool
from tests.bench.report import Figure, figure, percentile
from tests.bench.stack import Stack
from tests.support import many_rows
from tests.support.many_rows import Asked, asked, scanned, small_parts

CALLS = 20
"""Of each choice: a list with filters has hundreds."""

LIST_MS_MAX = 50


async def lists(stack: Stack, *, rows: int) -> list[Figure]:
    """Fill, explain, ask."""
    dsn = await stack.postgres.ensure_database(f"rows{uuid.uuid1().hex[:10]}")
    await migrate(dsn)
    async with open_pool(dsn, name="bench", statement_s=3_600.0) as pool:
        began = time.perf_counter()
        async with Database(pool).asking() as connection:
            count = await many_rows.fill(connection, rows)
            print(f"{count:,} rows in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            every, small = await asked(connection), await small_parts(connection)
            scans = {one.says: found for one in every if (found := await scanned(connection, one, small=small))}
        for says, found in scans.items():
            print(f"{says} reads {', '.join(found)}", file=sys.stderr, flush=True)
        slowest = await _slowest(pool, [one for one in every if ".list_" in one.says])
    name = f"{count / 1e6:.1f} M rows"
    return [
        figure(f"{name}: statements that scan a day", f"of {len(every)}", len(scans), bar=0, better="less"),
        *(
            figure(f"{name}: {listing}, p95", "ms", ms, bar=LIST_MS_MAX, better="less")
            for listing, ms in sorted(slowest.items())
        ),
    ]


async def _slowest(pool: Pool, every: list[Asked]) -> dict[str, float]:
    """The worst choice of each list."""
    worst: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    async with Database(pool).asking() as connection:
        for one in every:
            took = []
            for _ in range(CALLS):
                began = time.perf_counter()
                await connection.fetch(one.sql, *one.values)
                took.append((time.perf_counter() - began) * 1000)
            listing = one.says.split()[0].partition(".")[2]
            worst[listing] = max(worst[listing], (percentile(took, 0.95), one.says))
    for ms, says in worst.values():
        print(f"slowest: {ms:.1f} ms {says}", file=sys.stderr, flush=True)
    return {listing: ms for listing, (ms, _) in worst.items()}
