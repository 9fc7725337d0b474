"""What was answered under an `Idempotency-Key`, kept for a day: whoever asks again gets it again, and nothing is done.

A key is in the scope of the API key that sent it. Where claim, work and `keep` share a transaction, the work is done
once: one who asks while the first is under way waits for its end by the row's lock, and what fails leaves nothing
behind. Work outside Postgres claims the key and holds it by a time, so that nobody waits with a connection; where the
one who held it died, the next one does it again, so it must be safe to repeat.
Not here: headers and statuses (`millrace_web.idempotency`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from millrace_core import limits
from millrace_core.errors import Stale
from millrace_store import queries
from millrace_store.pool import Connection

_SQL = queries.load("idempotency")
_FORGOTTEN_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under its key. `request` is a digest: two with the same are one request made twice."""

    account: str
    api_key: str
    key: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the first was answered: a status and a body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Claimed:
    """Since when the key stands for the request, and what was answered; None = do it, and `keep` what is answered."""

    at: datetime
    answer: Answer | None


async def claim(tx: Connection, asked: Asked, *, now: datetime) -> Claimed:
    """Take the key, or find what came of it. Raises Stale when it stands for another request."""
    over = now - timedelta(milliseconds=limits.IDEMPOTENCY_KEPT_MS)
    await tx.execute(_SQL["forget"], asked.account, over, _FORGOTTEN_AT_ONCE)
    row = await tx.fetchrow(_SQL["claim"], *_named(asked), now, over)
    assert row is not None
    if row["request"] != asked.request:
        raise Stale("the key stands for another request")
    return Claimed(row["asked_at"], None if row["status"] is None else Answer(row["status"], row["body"]))


async def hold(tx: Connection, asked: Asked, *, now: datetime) -> datetime | None:
    """Take the work under a claimed key, for work that is done outside this transaction; until when it is held. None
    while another request holds it: ask again."""
    until = now + timedelta(seconds=limits.IDEMPOTENCY_HELD_S)
    taken = await tx.fetchval(_SQL["hold"], *_named(asked), now, until)
    return until if taken else None


async def let_go(tx: Connection, asked: Asked, held: datetime) -> None:
    """Give up work that was held until then and came to nothing."""
    await tx.execute(_SQL["let_go"], *_named(asked), held)


async def keep(tx: Connection, asked: Asked, answer: Answer) -> None:
    """Give this answer from now on, unless there is one already."""
    await tx.execute(_SQL["keep"], *_named(asked), answer.status, answer.body)


def _named(asked: Asked) -> tuple[object, ...]:
    return asked.account, asked.api_key, asked.key, asked.request
