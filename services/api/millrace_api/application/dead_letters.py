"""Dead letters: records that could not be handled, as they were, with the reason.

Their id is their place on the log, written `dead-letters:2:17`.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from millrace_api.application.problems import NoSuchId, NotFound
from millrace_api.application.views import Json
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/dead_letters")

TOPICS = frozenset({"dead-letters", "dead-letters-tx"})

Below = tuple[datetime, str, int, int]


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


async def listed(tx: Connection, account: str, *, below: Below, count: int) -> list[DeadLetterSummary]:
    """Newest first."""
    rows = await tx.fetch(_SQL["list_dead_letters"], account, *below, count)
    return [DeadLetterSummary(**_summary(row)) for row in rows]


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
