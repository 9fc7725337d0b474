"""Dead letters sent again: each once for each key its caller gives, and never twice for one.

That it was asked for is committed before the record is written, and its place after the ack. Whoever dies in between
leaves it `asked`: whether it was written is then not known, and it is not written again but under another key.
Not here: what the record is (`millrace_core.dead_letters`), and what becomes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from millrace_api.application import dead_letters
from millrace_api.application.database import Database
from millrace_api.application.dead_letters import DeadLetterView
from millrace_api.application.problems import Conflict, Invalid, NotFound, Unavailable
from millrace_api.application.runs import Log, Place
from millrace_core import limits
from millrace_core.dead_letters import SENT_AGAIN_TO, sent_again
from millrace_core.errors import Reject, Retry
from millrace_core.record import Output
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/dead_letters")
ONCE = ""
"""The key of a caller who gives none: a letter is sent again once without a key."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, when, and under which key."""

    account: str
    requested_by: str
    now: datetime
    key: str = ONCE


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters: refused on this topic (None = any whose records can be sent again), for a reason that contains
    this, at `since` or later and before `until`; and none that was sent again before."""

    since: datetime
    until: datetime
    topic: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Redriven:
    """`letters` were chosen; so many were `written` or `refused` by this call, and are `left` for the next."""

    letters: int
    written: int
    refused: int
    left: int


async def one(database: Database, log: Log, asker: Asker, id: str) -> tuple[DeadLetterView, bool]:
    """Send one letter again; False when it was under this key before. Raises Conflict for one that cannot be."""
    topic, partition, offset = dead_letters.place(id)
    async with database.writing() as tx:
        row = await tx.fetchrow(_SQL["get_dead_letter"], asker.account, topic, partition, offset)
        if row is None:
            raise NotFound("dead letter", id[:64])
        output = _output(row, asker)
        if isinstance(output, Reject):
            raise Conflict(f"This dead letter stays where it is: {output}.")
        is_new = await _ask(tx, row, output, asker)
    if is_new:
        await _write(database, log, [(row, output)], asker)
    async with database.reading() as tx:
        return await dead_letters.get(tx, asker.account, id), is_new


async def count(tx: Connection, account: str, chosen: Chosen) -> int:
    """How many letters would be sent again, call by call."""
    return int(await tx.fetchval(_SQL["count_letters_to_redrive"], *_bounds(account, chosen)))


async def many(database: Database, log: Log, asker: Asker, chosen: Chosen) -> Redriven:
    """Send the oldest of these letters again, as many as one call may."""
    async with database.asking() as tx:
        letters = await count(tx, asker.account, chosen)
    done, refused = 0, 0
    while done < limits.REDRIVE_LETTERS_MAX:
        async with database.writing() as tx:
            batch = limits.REDRIVE_BATCH_LETTERS
            rows = await tx.fetch(_SQL["letters_to_redrive"], *_bounds(asker.account, chosen), batch)
            asked = [(row, output) for row in rows if isinstance(output := _output(row, asker), Output)]
            mine = [(row, output) for row, output in asked if await _ask(tx, row, output, asker)]
        if not rows:
            break
        refused += await _write(database, log, mine, asker)
        done += len(mine)
    return Redriven(letters, done - refused, refused, max(0, letters - done))


def _bounds(account: str, chosen: Chosen) -> tuple[object, ...]:
    topics = sorted(SENT_AGAIN_TO) if chosen.topic is None else [chosen.topic]
    if not set(topics) <= SENT_AGAIN_TO.keys():
        raise Invalid(f"records of these can be sent again: {', '.join(sorted(SENT_AGAIN_TO))}", where="topic")
    return account, chosen.since, chosen.until, topics, chosen.reason


def _output(row: Row, asker: Asker) -> Output | Reject:
    headers = [(name, text.encode()) for name, text in orjson.loads(row["headers"]) if text is not None]
    nonce = f"{dead_letters.id_of(row)}/{asker.key}"
    try:
        return sent_again(row["source_topic"] or "an unknown topic", row["key"], row["value"], headers, nonce=nonce)
    except Reject as reason:
        return reason


async def _ask(tx: Connection, row: Row, output: Output, asker: Asker) -> bool:
    """Whether it is this call's to write."""
    asked = await tx.fetchval(_SQL["ask_redrive"], *_named(row, asker), output.topic, asker.requested_by, asker.now)
    return asked is not None


async def _write(database: Database, log: Log, letters: Sequence[tuple[Row, Output]], asker: Asker) -> int:
    """Write what was asked for, and how it went. Answers how many were refused."""
    went: list[tuple[Row, Place | Reject]] = []
    for row, output in letters:
        try:
            (place,) = await log.write([output])
            went.append((row, place))
        except Reject as reason:
            went.append((row, reason))
        except Retry as error:
            untouched = [row for row, _ in letters[len(went) + 1 :]]
            await _tell(database, went, untouched, asker)
            raise Unavailable(
                f"The log cannot be reached right now: {dead_letters.id_of(row)} may or may not have been written, and "
                "is not written again under this Idempotency-Key. Those behind it were not: ask again for them."
            ) from error
    await _tell(database, went, (), asker)
    return sum(isinstance(outcome, Reject) for _, outcome in went)


async def _tell(
    database: Database, went: Sequence[tuple[Row, Place | Reject]], untouched: Sequence[Row], asker: Asker
) -> None:
    async with database.writing() as tx:
        for row in untouched:
            await tx.execute(_SQL["forget_redrive"], *_named(row, asker))
        for row, outcome in went:
            if isinstance(outcome, Reject):
                told = ("refused", None, None, str(outcome)[: limits.ERROR_MESSAGE_CHARS_MAX])
            else:
                told = ("written", outcome.partition, outcome.offset, None)  # type: ignore[assignment]
            await tx.execute(_SQL["end_redrive"], *_named(row, asker), *told, asker.now)


def _named(row: Row, asker: Asker) -> tuple[object, ...]:
    return asker.account, row["topic"], row["partition"], row["offset"], asker.key
