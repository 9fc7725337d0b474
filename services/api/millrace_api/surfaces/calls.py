"""What routes of every surface are given: the API, the caller, pages, and reads that wait for the caller's own writes.

Not here: requests that are done once under an Idempotency-Key (`once`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute

from millrace_api.application.api import Api
from millrace_api.application.problems import NotYetReadable
from millrace_core import ids
from millrace_web import positions
from millrace_web.api_keys import ApiKey
from millrace_web.authentication import require
from millrace_web.caller_rates import note
from millrace_web.paging import Cursors, Numbered, Page, PageQuery

T = TypeVar("T")
START = datetime(9999, 12, 31, tzinfo=UTC), UUID(int=2**128 - 1)
"""Above every row: where the first page of a list by time begins."""

OPEN_PLAN = "business"
"""600 requests a minute of one process."""


class StrictRequest(Request):
    """JSON as RFC 8259 has it: no NaN, no lone surrogates."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is read strictly."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def api_of(request: Request) -> Api:
    """The one API of this process."""
    found: Api = request.app.state.api
    return found


ApiHere = Annotated[Api, Depends(api_of)]


async def arrived(
    api: ApiHere,
    _: Annotated[ApiKey, Depends(require(None))],
    x_millrace_position: Annotated[
        str | None,
        Header(description="From the answer to a write: the read waits until the read models hold that write."),
    ] = None,
) -> None:
    """Wait, for those with a key, for the write the caller shows. Raises NotYetReadable when it takes over 2 s."""
    if x_millrace_position is None:
        return
    wanted = {(at.topic, at.partition): at.offset for at in positions.parse(x_millrace_position)}
    if not await api.arrivals.passed(wanted):
        raise NotYetReadable()


@dataclass(frozen=True, slots=True)
class Listing:
    """A page that was asked for, of a list that is told apart by its name and filters."""

    query: PageQuery
    cursors: Cursors

    @property
    def count(self) -> int:
        """One more than the page holds: whether there is more is then known."""
        return self.query.limit + 1

    def below_id(self, account: str, listing: str) -> UUID | None:
        """Where a list by id goes on; None = at its start."""
        at = self.cursors.after(self.query, account=account, listing=listing)
        return None if at is None else ids.uuid_of(str(at[0]))

    def below(self, account: str, listing: str) -> tuple[datetime, UUID]:
        """Where a list by time and id goes on."""
        at = self.cursors.after(self.query, account=account, listing=listing)
        return START if at is None else (from_micros(int(at[0])), ids.uuid_of(str(at[1])))

    def by_id(self, rows: Sequence[T], account: str, listing: str) -> Page[T]:
        """The page of a list by id."""
        return self.page(rows, account, listing, lambda row: [row.id])

    def page(self, rows: Sequence[T], account: str, listing: str, at: Any) -> Page[T]:
        """The page; `at` gives a row's sort keys."""
        return self.cursors.page(rows, self.query, account=account, listing=listing, at=at)


def listing(request: Request, query: Annotated[PageQuery, Depends()]) -> Listing:
    """The page this request asks for."""
    return Listing(query, request.app.state.cursors)


ListingHere = Annotated[Listing, Depends(listing)]


@dataclass(frozen=True, slots=True)
class NumberedListing(Listing):
    """A page of a list that is paged by number too: with `page`, how many rows are `skipped`."""

    page_number: int | None = 1
    skipped: int = 0


def numbered_listing(request: Request, query: Annotated[Numbered, Depends()]) -> NumberedListing:
    """The page this request asks for, by cursor or by number."""
    page = PageQuery(query.cursor, query.limit)
    by_cursor = query.cursor is not None
    return NumberedListing(page, request.app.state.cursors, None if by_cursor else query.number, query.skipped)


NumberedHere = Annotated[NumberedListing, Depends(numbered_listing)]


def cursors_of(request: Request) -> Cursors:
    """The one maker of cursors."""
    found: Cursors = request.app.state.cursors
    return found


CursorsHere = Annotated[Cursors, Depends(cursors_of)]


def caller(scope: str | None) -> Any:
    """The key that asks, which must have this scope (None = any key)."""
    return Depends(require(scope))


Caller = ApiKey


def open_to_all(request: Request) -> None:
    """Of a route that needs no key: all who ask share one rate, so that they cannot crowd out those who have one."""
    note(request.scope, request.app.state.open_rate.take("", OPEN_PLAN))


def micros(at: datetime) -> int:
    """A sort key of a time, exact as Postgres keeps it."""
    return round((at - _EPOCH).total_seconds() * 1_000_000)


def from_micros(value: int) -> datetime:
    """The time behind a sort key."""
    return datetime.fromtimestamp(value // 1_000_000, UTC).replace(microsecond=value % 1_000_000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
