"""What was answered under an `Idempotency-Key`, kept for a day: whoever asks again gets it again, and nothing is done.

A key is in the scope of the API key that sent it. Where claim, work and `keep` share a transaction, the work is done
once: one who asks while the first is under way waits for its end by the row's lock, and what fails leaves nothing
behind. Work in several transactions claims in one of its own; asked again before its answer is kept, it goes on beside
or behind the first, so it must be safe to repeat.
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


async def keep(tx: Connection, asked: Asked, answer: Answer) -> None:
    """Give this answer from now on, unless there is one already."""
    await tx.execute(_SQL["keep"], *_named(asked), answer.status, answer.body)


def _named(asked: Asked) -> tuple[object, ...]:
    return asked.account, asked.api_key, asked.key, asked.request
