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
    """`redriven_at` is when it was last sent again."""

    key: Content | None
    value: Content | None
    headers: Json
    redriven_at: datetime | None
    redrives: list["RedriveView"]


@dataclass(frozen=True, slots=True)
class RedriveView:
    """One time it was sent again. `asked` and no further: it may or may not have been written, and is not written by
    itself. `to` is the place of the new record."""

    key: str
    state: Literal["asked", "written", "refused"]
    to: str | None
    reason: str | None
    requested_by: str
    asked_at: datetime
    done_at: datetime | None


async def get(tx: Connection, account: str, id: str) -> DeadLetterView:
    topic, partition, offset = place(id)
    row = await tx.fetchrow(_SQL["get_dead_letter"], account, topic, partition, offset)
    if row is None:
        raise NotFound("dead letter", id[:64])
    redrives = [_redrive(each) for each in await tx.fetch(_SQL["redrives_of"], account, topic, partition, offset)]
    return DeadLetterView(
        **_summary(row),
        redriven_at=max((each.done_at for each in redrives if each.state == "written" and each.done_at), default=None),
        redrives=redrives,
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
    return place(letter.id)


def place(id: str) -> tuple[str, int, int]:
    """The place behind an id. Raises NoSuchId when it is none."""
    topic, _, rest = id.partition(":")
    partition, _, offset = rest.partition(":")
    if topic not in TOPICS or not (_is_number(partition, 6) and _is_number(offset, 18)):
        raise NoSuchId("dead letter", id[:64])
    return topic, int(partition), int(offset)


def id_of(row: Row) -> str:
    """The written form of its place."""
    return f"{row['topic']}:{row['partition']}:{row['offset']}"


def _is_number(text: str, digits_max: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits_max


def _summary(row: Row) -> Mapping[str, Any]:
    source = None
    if row["source_topic"] is not None:
        source = f"{row['source_topic']}:{row['source_partition']}:{row['source_offset']}"
    return {
        "id": id_of(row),
        "at": row["at"],
        "reason": row["reason"],
        "source": source,
    }


def _redrive(row: Row) -> RedriveView:
    to = None if row["to_offset"] is None else f"{row['target']}:{row['to_partition']}:{row['to_offset']}"
    return RedriveView(
        key=row["key"],
        state=row["state"],
        to=to,
        reason=row["reason"],
        requested_by=row["requested_by"],
        asked_at=row["asked_at"],
        done_at=row["done_at"],
    )


def _content(value: bytes | None) -> Content | None:
    if value is None:
        return None
    try:
        return Content("utf-8", value.decode())
    except UnicodeDecodeError:
        return Content("base64", base64.b64encode(value).decode())
