"""`millrace control republish`: queue everything in force for the relay, and wait until the relay has published it."""

import asyncio

from millrace_core.errors import Retry
from millrace_store import aggregates, outbox
from millrace_store.pool import connect

POLL_S = 0.2
WAIT_S_MAX = 600.0
STATEMENT_S = 600.0


async def republish(dsn: str, *, wait_s: float = WAIT_S_MAX) -> int:
    """How many entries went out. Raises Retry when no relay runs that would publish them: they stay queued."""
    connection = await connect(dsn, name="millrace republish", statement_s=STATEMENT_S)
    try:
        count = await aggregates.republish(connection)
        try:
            async with asyncio.timeout(wait_s):
                while await outbox.count_unpublished(connection):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            left = await outbox.count_unpublished(connection)
            raise Retry(
                f"{left} of {count} entries still wait in the outbox after {wait_s:g} s: the relay runs in the API, "
                "start one and they go out by themselves"
            ) from None
        return count
    finally:
        await connection.close()
