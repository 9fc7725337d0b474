"""Dead letters: records that could not be handled, as they were, with the reason.

Their id is their place on the log, written `dead-letters:2:17`.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from millrace_api.application.problems import Invalid, NoSuchId, NotFound
from millrace_api.application.views import Json
from millrace_core import limits
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/dead_letters")

TOPICS = frozenset({"dead-letters", "dead-letters-tx"})

Below = tuple[datetime, str, int, int]


# Bounds that every offset from UTC can be written in.
_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; what is None does not narrow. `topic` is where the refused record stood, `reason` a part
    of the reason in any case, `since` the first moment and `until` the one after the last."""

    topic: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def name(self) -> str:
        """Tells apart the lists of different filters."""
        return f"dead letters {self!r}"

    def values(self) -> tuple[str | None, str | None, datetime, datetime]:
        """As the statements take it."""
        for where, text in (("topic", self.topic), ("reason", self.reason)):
            if text is not None and "\0" in text:
                raise Invalid("must not contain the character U+0000", where=where)
        since, until = max(self.since or _FIRST, _FIRST), min(self.until or _LAST, _LAST)
        return self.topic, self.reason, since, until


@dataclass(frozen=True, slots=True)
class Counted:
    """`exact` is false when there are more than were counted."""

    count: int
    exact: bool


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """`source` is the place of the refused record."""

    id: str
    at: datetime
    reason: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes as text: as they are where they are UTF-8, else in base64."""

    encoding: Literal["utf-8", "base64"]
    text: str


@dataclass(frozen=True, slots=True)
class DeadLetterView(DeadLetterSummary):
    key: Content | None
    value: Content | None
    headers: Json


async def get(tx: Connection, account: str, id: str) -> DeadLetterView:
    topic, partition, offset = _place(id)
    row = await tx.fetchrow(_SQL["get_dead_letter"], account, topic, partition, offset)
    if row is None:
        raise NotFound("dead letter", id[:64])
    return DeadLetterView(
        **_summary(row),
        key=_content(row["key"]),
        value=_content(row["value"]),
        headers=orjson.Fragment(row["headers"]),
    )


async def listed(tx: Connection, account: str, *, below: Below, count: int, only: Filter) -> list[DeadLetterSummary]:
    """Newest first."""
    rows = await tx.fetch(_SQL["list_dead_letters"], account, *only.values(), *below, count)
    return [DeadLetterSummary(**_summary(row)) for row in rows]


async def counted(tx: Connection, account: str, *, only: Filter) -> Counted:
    """How many there are, counted up to a bound."""
    most = limits.DEAD_LETTERS_COUNTED_MAX
    found = await tx.fetchval(_SQL["count_dead_letters"], account, *only.values(), most + 1)
    return Counted(min(found, most), exact=found <= most)


def place_of(letter: DeadLetterSummary) -> tuple[str, int, int]:
    """The sort keys behind the time."""
    return _place(letter.id)


def _place(id: str) -> tuple[str, int, int]:
    topic, _, rest = id.partition(":")
    partition, _, offset = rest.partition(":")
    if topic not in TOPICS or not (_is_number(partition, 6) and _is_number(offset, 18)):
        raise NoSuchId("dead letter", id[:64])
    return topic, int(partition), int(offset)


def _is_number(text: str, digits_max: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits_max


def _summary(row: Row) -> Mapping[str, Any]:
    source = None
    if row["source_topic"] is not None:
        source = f"{row['source_topic']}:{row['source_partition']}:{row['source_offset']}"
    return {
        "id": f"{row['topic']}:{row['partition']}:{row['offset']}",
        "at": row["at"],
        "reason": row["reason"],
        "source": source,
    }


def _content(value: bytes | None) -> Content | None:
    if value is None:
        return None
    try:
        return Content("utf-8", value.decode())
    except UnicodeDecodeError:
        return Content("base64", base64.b64encode(value).decode())
