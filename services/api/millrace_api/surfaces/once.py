"""Requests that are done once under an `Idempotency-Key`: asked again, they get the answer they got, byte for byte.

    async with once.changing(api) as doing:
        made = await things.create(doing.change, me.account, body.wanted())
        doing.answer = answers.one(made, status=201)
    return doing.answered()

The key is claimed and the answer kept in the transaction that does the work: one who asks while the first is under way
waits for its end, and what fails leaves nothing behind. Work that is a record on the log, or a call, cannot share a
transaction; there (`holding`) the claim is committed first and holds by a time, without a connection, and `id_for`
gives the ids that a repeat after a crash has again, so that the log knows them. Refusals that would come again (400,
404, 409, 422) are kept where they leave (`Refusals`). A key is remembered 24 h, in the scope of the API key that sent
it. Answers are kept under the key ring, since some hold a secret that is shown once.
Not here: the rows
(`millrace_store.idempotency`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_api.application.api import Api
from millrace_api.application.changes import Change
from millrace_api.application.problems import KeyReused, Problem, Unavailable
from millrace_api.surfaces import answers
from millrace_core import ids, limits
from millrace_core.clock import utc_now
from millrace_core.errors import Reject, Retry, Stale
from millrace_core.keyring import KeyRing, kept_answer
from millrace_store import idempotency
from millrace_store.idempotency import Answer, Asked, Claimed
from millrace_store.pool import Connection
from millrace_web import positions
from millrace_web.api_keys import ApiKey
from millrace_web.authentication import require
from millrace_web.idempotency import IdempotencyKey, digest_of

REFUSALS_KEPT = frozenset({400, 404, 409, 422})
_STATE = "millrace.once"


class Answered(Exception):
    """This was done before: `answer` is what was said then."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(slots=True)
class Doing:
    """The work under way. Set `answer` inside the block; it is kept as it is then."""

    tx: Connection
    change: Change
    answer: Response | None = None

    def answered(self) -> Response:
        """The answer, with where the change stands on the log."""
        assert self.answer is not None
        at = answers.position_of(self.change)
        if at is not None:
            self.answer.headers[positions.HEADER] = positions.render([at])
        return self.answer


@dataclass(slots=True)
class Holding:
    """The work under way on the log. Set `answer` inside the block."""

    answer: Response | None = None

    def answered(self) -> Response:
        assert self.answer is not None
        return self.answer


@dataclass(slots=True)
class Once:
    """One request, told apart by its key and what it asks. Without a key it is simply done."""

    asked: Asked | None
    ring: KeyRing
    claimed_at: datetime | None = None

    @property
    def key(self) -> str | None:
        return None if self.asked is None else self.asked.key

    @asynccontextmanager
    async def changing(self, api: Api) -> AsyncIterator[Doing]:
        """A change of what is in force (or any other work in Postgres: `doing.tx`). Raises KeyReused for a key that was
        another request's."""
        async with api.changes.begin() as change:
            await self.claim(change.tx, now=change.now)
            doing = Doing(change.tx, change)
            yield doing
            await self.keep(change.tx, doing.answer)

    @asynccontextmanager
    async def holding(self, api: Api) -> AsyncIterator[Holding]:
        """Work on the log, safe to repeat where its ids come from `id_for`. The others of this key wait meanwhile."""
        holding = Holding()
        if self.asked is None:
            yield holding
            return
        held = await self._held(api, self.asked)
        try:
            yield holding
        except BaseException:
            async with api.database.writing() as tx:
                await idempotency.let_go(tx, self.asked, held)
            raise
        async with api.database.writing() as tx:
            await self.keep(tx, holding.answer)

    async def _held(self, api: Api, asked: Asked) -> datetime:
        """The key, held until then. Nobody waits for it with a connection: the pool is everyone's."""
        last = api.clock.monotonic() + limits.IDEMPOTENCY_WAIT_S_MAX
        while True:
            async with api.database.writing() as tx:
                now = utc_now(api.clock)
                await self.claim(tx, now=now)
                held = await idempotency.hold(tx, asked, now=now)
            if held is not None:
                return held
            if api.clock.monotonic() >= last:
                raise Unavailable(
                    "The first request under this Idempotency-Key is still under way: ask again for its answer."
                )
            await asyncio.sleep(limits.IDEMPOTENCY_LOOKED_AT_EVERY_S)

    def id_for(self, prefix: str) -> str:
        """An id of this kind for what the request makes: the same each time it is asked under its key."""
        if self.asked is None or self.claimed_at is None:
            return ids.new_id(prefix)
        asked, at = self.asked, self.claimed_at
        return ids.derived_id(prefix, int(at.timestamp() * 1000), "once", asked.account, asked.api_key, asked.key)

    async def claim(self, tx: Connection, *, now: datetime) -> None:
        """Begin. Raises Answered when it was done before."""
        if self.asked is None:
            return
        try:
            claimed: Claimed = await idempotency.claim(tx, self.asked, now=now)
        except Stale:
            raise KeyReused() from None
        if claimed.answer is not None:
            raise Answered(_opened(self.ring, self.asked, claimed.answer))
        self.claimed_at = claimed.at

    async def keep(self, tx: Connection, answer: Response | None) -> None:
        """Give this answer from now on."""
        assert answer is not None
        if self.asked is not None:
            kept = Answer(answer.status_code, bytes(answer.body))
            await idempotency.keep(tx, self.asked, _sealed(self.ring, self.asked, kept))


def _sealed(ring: KeyRing, asked: Asked, answer: Answer) -> Answer:
    name = kept_answer(asked.api_key, asked.key)
    return Answer(answer.status, ring.seal(answer.body.decode(), account=asked.account, name=name).encode())


def _opened(ring: KeyRing, asked: Asked, answer: Answer) -> Answer:
    if answer.body.startswith(b"{"):  # kept by a version that did not seal them
        return answer
    name = kept_answer(asked.api_key, asked.key)
    try:
        return Answer(answer.status, ring.open(answer.body.decode(), account=asked.account, name=name).encode())
    except Reject:
        raise Unavailable(
            "This was done, but what was answered cannot be read: the key ring lacks the key it was kept under."
        ) from None


async def once(
    request: Request, me: Annotated[ApiKey, Depends(require(None))], idempotency_key: IdempotencyKey = None
) -> Once:
    """This request."""
    ring = request.app.state.api.keys.ring
    if idempotency_key is None:
        return Once(None, ring)
    asked = Asked(me.account, me.id, idempotency_key, await digest_of(request))
    request.scope[_STATE] = asked
    return Once(asked, ring)


OnceHere = Annotated[Once, Depends(once)]


async def on_answered(_: Request, error: Exception) -> Response:
    """What was said before."""
    assert isinstance(error, Answered)
    return answers.again(error.answer)


class Refusals:
    """The ASGI layer that keeps refusals under their key: nothing was done, so they need no transaction of the work."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        body = b""

        async def watched(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _STATE in scope and _is_kept(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                await self._keep(scope[_STATE], Answer(start["status"], body))
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, watched)

    async def _keep(self, asked: Asked, answer: Answer) -> None:
        try:
            async with self._api.database.writing() as tx:
                claimed = await idempotency.claim(tx, asked, now=utc_now(self._api.clock))
                if claimed.answer is None:
                    await idempotency.keep(tx, asked, _sealed(self._api.keys.ring, asked, answer))
        except (Stale, Problem, Retry):  # another request's key, or Postgres is away: the refusal is told all the same
            return


def _is_kept(start: Message) -> bool:
    replayed = answers.REPLAYED_BYTES
    return start["status"] in REFUSALS_KEPT and all(name.lower() != replayed for name, _ in start["headers"])
