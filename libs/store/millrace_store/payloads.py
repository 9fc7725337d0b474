"""Large payloads read back: the one door to where they lie, today a table beside the others.

Rows that hold references come in, rows that hold payloads go out. The projector writes a payload in the transaction of
the row that refers to it, and both go with the same day, so what a row refers to is there. Only reads of single things
and replays come by here: lists show sizes (`control.payload_bytes`) and read no payload.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from millrace_core import payloads
from millrace_core.errors import Retry
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("payloads")


async def restored(
    connection: Connection, account: str, rows: Sequence[Row], *columns: str, owner: str = "id"
) -> Sequence[Row]:
    """These rows, with whole payloads in these columns; `owner` is the column with the id of what they belong to.

    Raises Retry when one is not there: its day is being dropped at this moment."""
    wanted = {
        (row[owner], digest)
        for row in rows
        for column in columns
        if (digest := payloads.digest_in(row[column])) is not None
    }
    if not wanted:
        return rows
    owners, digests = zip(*wanted, strict=True)
    found = {
        (each["owner"], each["digest"]): each["bytes"]
        for each in await connection.fetch(_SQL["payloads_of"], account, owners, digests)
    }
    if missing := wanted - found.keys():
        raise Retry(f"{len(missing)} payloads are not there any more")
    return [_whole(row, columns, row[owner], found) for row in rows]


def _whole(row: Any, columns: Sequence[str], owner: UUID, found: Mapping[tuple[UUID, bytes], bytes]) -> Row:
    whole = dict(row)
    for column in columns:
        digest = payloads.digest_in(row[column])
        if digest is not None:
            whole[column] = found[owner, digest]
    return whole
