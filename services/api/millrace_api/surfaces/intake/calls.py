"""Lists of the intake surface: cursor and limit, 50 items where none is given."""

from typing import Annotated

from fastapi import Depends, Query, Request

from millrace_api.surfaces.calls import Listing
from millrace_core import limits
from millrace_web.paging import CURSOR_CHARS_MAX, PageQuery

LIMIT_DEFAULT = 50

CursorText = Annotated[
    str | None, Query(max_length=CURSOR_CHARS_MAX, description="From `next_cursor` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=limits.PAGE_LIMIT_MAX, description="Max items per page.")]


def listing(request: Request, cursor: CursorText = None, limit: Limit = LIMIT_DEFAULT) -> Listing:
    """The page this request asks for."""
    return Listing(PageQuery(cursor, limit), request.app.state.cursors)


ListingHere = Annotated[Listing, Depends(listing)]
