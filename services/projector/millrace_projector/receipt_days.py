"""A day on the log: where it begins and ends in each partition, and the trees over its facts.

A fact is of the day at whose time its broker took it: a day begins at the first record of a partition that is not
older than its start. What is read is bounded, whatever the day holds: Postgres sorts the facts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from millrace_core.errors import Retry
from millrace_core.receipts import FACT_TOPICS, Chunk, Trees, entry_of, fact_of
from millrace_core.record import Received
from millrace_kafka.reader import Part, Reader
from millrace_store.pool import Connection
from millrace_store.projection import Projection
from millrace_store.receipts import SortedFacts

RECEIPT_ROOTS, RECEIPT_LEAVES = "receipt-roots", "receipt-leaves"
RECORDS_AT_ONCE = 1_000
# However long Postgres sorted: the session must not be taken for dead.
REST_S_MAX = 5.0
POLL_S = 0.1


async def fact_parts(reader: Reader) -> list[Part]:
    """Every partition that holds facts."""
    return await reader.partitions(FACT_TOPICS)


async def beginning(reader: Reader, day: int) -> dict[Part, int]:
    """Where a day begins in each partition: at its end where it holds nothing so late."""
    parts = await fact_parts(reader)
    # Asked for first, so that what comes in between is not passed over.
    ends = await reader.ends(parts)
    found = await reader.first_at(parts, day)
    return {part: ends[part] if (first := found[part]) is None else first.offset for part in parts}


async def trees(
    reader: Reader,
    connection: Connection,
    starts: Mapping[Part, int],
    ends: Mapping[Part, int],
    *,
    seed: bytes,
    account: str | None = None,
    share: float = 1.0,
) -> AsyncIterator[Chunk]:
    """The trees over the facts between these offsets, in chunks, account by account. `share` is how much of the loop's
    time it may take. Raises Retry when reading stands still, and what the driver raises."""
    facts = SortedFacts(connection)
    await facts.begin()
    rest = _resting(share)
    async for records in reader.read(starts, ends, max_records=RECORDS_AT_ONCE):
        await facts.add(_entries(records, seed, account))
        await rest()
    made = Trees()
    async for page in facts.pages():
        for owner, entry in page:
            if (chunk := made.add(owner.decode(), entry)) is not None:
                yield chunk
        await rest()
    if (chunk := made.end()) is not None:
        yield chunk
    await facts.end()


def _entries(records: Sequence[Received], seed: bytes, account: str | None) -> list[tuple[bytes, bytes, int, bytes]]:
    found = ((record.offset, fact_of(record)) for record in records)
    return [
        (fact.account.encode(), fact.id, offset, entry_of(seed, fact))
        for offset, fact in found
        if fact is not None and account in (None, fact.account)
    ]


def _resting(share: float) -> Callable[[], Awaitable[None]]:
    """A pause for others after each piece of work, as long as the piece makes due."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def pause() -> None:
        nonlocal began
        await asyncio.sleep(min((loop.time() - began) * (1.0 / share - 1.0), REST_S_MAX))
        began = loop.time()

    return pause


async def until_projected(reader: Reader, connection: Connection, *, wait_s: float) -> None:
    """Return when the read models hold all receipts that are on the log now. Raises Retry when they do not in time."""
    ends = await reader.ends(await reader.partitions((RECEIPT_ROOTS, RECEIPT_LEAVES)))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        reached = await Projection().positions(connection)
        if all(reached.get(part, 0) >= end for part, end in ends.items()):
            return
        if loop.time() > deadline:
            raise Retry(
                f"the read models do not hold the receipts on the log within {wait_s:g} s: does a projector run?"
            )
        await asyncio.sleep(POLL_S)
