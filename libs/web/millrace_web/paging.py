"""Lists in pages: an opaque cursor that says where the next page begins, and a limit from 1 to 100, 20 where not given.

A cursor is versioned and signed, and bound to its account and listing (filters included), so it cannot be made up,
carried to another account or used with other filters. It never expires; a limit out of range is an error.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query

from millrace_core import limits
from millrace_web.errors import ApiError, invalid

VERSION = 1
CURSOR_CHARS_MAX = 1_024
_SIGNATURE_BYTES = 12

CursorText = Annotated[
    str | None,
    Query(max_length=CURSOR_CHARS_MAX, description="From `meta.next_cursor` of the page before; absent = the first."),
]
Limit = Annotated[int, Query(ge=1, le=limits.PAGE_LIMIT_MAX, description="The most items of one page.")]


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The query of every list. Use as `page: Annotated[PageQuery, Depends()]`."""

    cursor: CursorText = None
    limit: Limit = limits.PAGE_LIMIT_DEFAULT


NUMBER_MAX = 10_000
"""The last page that can be asked for by number: what lies beyond is for cursors."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """The query of lists that are also paged by number: `page` or `cursor`, not both."""

    cursor: CursorText = None
    limit: Limit = limits.PAGE_LIMIT_DEFAULT
    page: Annotated[int | None, Query(ge=1, le=NUMBER_MAX, description="The page's number, from 1.")] = None

    def __post_init__(self) -> None:
        if self.cursor is not None and self.page is not None:
            raise invalid("page: not together with cursor; use one of them")

    @property
    def number(self) -> int:
        return self.page or 1

    @property
    def skipped(self) -> int:
        """How many items lie on the pages before."""
        return (self.number - 1) * self.limit


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, and its envelope's `meta`."""

    items: Sequence[T]
    next_cursor: str | None

    @property
    def meta(self) -> dict[str, Any]:
        return {"next_cursor": self.next_cursor, "has_more": self.next_cursor is not None}


class Cursors:
    """Makes and reads cursors. `secret` must be the same in every replica (derived from the key pepper)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(b"millrace cursor\0" + secret).digest()

    def encode(self, at: Sequence[str | int], *, account: str, listing: str) -> str:
        """The cursor for the page behind the row with these sort keys. `listing` names the list and its filters."""
        payload = orjson.dumps([VERSION, list(at)])
        return base64.urlsafe_b64encode(self._sign(payload, account, listing) + payload).rstrip(b"=").decode()

    def decode(self, cursor: str, *, account: str, listing: str) -> tuple[str | int, ...]:
        """The sort keys to go on behind. Raises ApiError 400 when it is not a cursor of this list."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _bad_cursor() from None
        signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(payload, account, listing)):
            raise _bad_cursor()
        version, at = orjson.loads(payload)
        if version != VERSION:
            raise _bad_cursor()
        return tuple(at)

    def after(self, query: PageQuery, *, account: str, listing: str) -> tuple[str | int, ...] | None:
        """Where this page begins; None = at the start."""
        return None if query.cursor is None else self.decode(query.cursor, account=account, listing=listing)

    def page(
        self, rows: Sequence[T], query: PageQuery, *, account: str, listing: str, at: Callable[[T], Sequence[str | int]]
    ) -> Page[T]:
        """The page out of rows of which one more than `query.limit` was asked for. `at` gives a row's sort keys."""
        if len(rows) <= query.limit:
            return Page(rows, None)
        items = rows[: query.limit]
        return Page(items, self.encode(at(items[-1]), account=account, listing=listing))

    def _sign(self, payload: bytes, account: str, listing: str) -> bytes:
        # JSON keeps the parts apart whatever they contain.
        bound = orjson.dumps([account, listing]) + b"\0" + payload
        return hmac.digest(self._secret, bound, "sha256")[:_SIGNATURE_BYTES]


def _bad_cursor() -> ApiError:
    return invalid("cursor: not a cursor of this list; take it from meta.next_cursor, with the same filters")
