"""Things that events told of, as they are read: found, listed, and cut to the fields that their account lets be read.

Not here: what an event says of them (`millrace_core.entities`, the projector), customers and tickets as such.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

import orjson

from millrace_api.application.problems import Invalid, NotFound
from millrace_core import entities
from millrace_core.entities import Kind
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/entities")

Safe = Mapping[str, tuple[str, ...]]
"""The kinds for which an account says what may be read, and what."""

Below = tuple[int, str]
"""Sort keys of the last row of the page before."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing with every member that was told, and when it came to be and was last spoken of."""

    kind: Kind
    id: str
    members: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    created_ms: int

    def text(self, name: str) -> str | None:
        """A member that is a text or a number, as text."""
        value = self.members.get(name)
        return str(value) if isinstance(value, str | int | float) else None

    def shown(self, safe: Safe) -> dict[str, Any]:
        """What may be read of it."""
        known = entities.shown(self.kind, self.members, safe.get(self.kind))
        return {"id": self.id, **known, "created_at": self.created_at, "updated_at": self.updated_at}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which things a list shows; None = any."""

    status: str | None = None
    customer: str | None = None
    priority: str | None = None
    assignee: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class SafeFieldsView:
    """What may be read of one kind. `is_default`: it is what is shipped."""

    kind: str
    fields: Sequence[str]
    is_default: bool
    updated_at: datetime | None


async def get(tx: Connection, account: str, kind: Kind, id: str) -> Entity:
    row = await tx.fetchrow(_SQL["get_entity"], account, kind, id)
    if row is None:
        raise NotFound(kind, id)
    return entity_of(kind, row)


async def listed(tx: Connection, account: str, kind: Kind, *, below: Below, count: int, filter: Filter) -> list[Entity]:
    """Newest first."""
    rows = await tx.fetch(
        _SQL["list_entities"],
        account,
        kind,
        *below,
        count,
        filter.status,
        filter.customer,
        filter.priority,
        filter.assignee,
        _ms(filter.created_from),
        _ms(filter.created_to),
        _ms(filter.updated_from),
        _ms(filter.updated_to),
        filter.search,
    )
    return [entity_of(kind, row) for row in rows]


async def of_customer(
    tx: Connection, account: str, kind: Kind, customer: str, *, most: int, status: str | None = None
) -> list[Entity]:
    """The newest things of a kind that belong to a customer."""
    rows = await tx.fetch(_SQL["entities_of_customer"], account, kind, customer, status, most)
    return [entity_of(kind, row) for row in rows]


async def safe_of(tx: Connection, account: str) -> Safe:
    """What the account says may be read."""
    return {row["kind"]: tuple(row["fields"]) for row in await tx.fetch(_SQL["safe_fields"], account)}


async def safe_fields(tx: Connection, account: str) -> list[SafeFieldsView]:
    """What may be read, kind by kind."""
    rows = {row["kind"]: row for row in await tx.fetch(_SQL["safe_fields"], account)}
    return [
        SafeFieldsView(kind, rows[kind]["fields"], is_default=False, updated_at=rows[kind]["updated_at"])
        if kind in rows
        else SafeFieldsView(kind, entities.SAFE_FIELDS[kind], is_default=True, updated_at=None)
        for kind in entities.KINDS
    ]


async def set_safe_fields(tx: Connection, account: str, kind: str, fields: list[str] | None, *, now: datetime) -> None:
    """Let these be read of a kind, in this order; None = what is shipped. Holds for the next read."""
    if kind not in get_args(Kind):
        raise NotFound("kind of thing", kind[:64])
    if fields is None:
        await tx.execute(_SQL["forget_safe_fields"], account, kind)
        return
    if (wrong := entities.check_fields(fields)) is not None:
        raise Invalid(wrong, where="fields")
    await tx.execute(_SQL["keep_safe_fields"], account, kind, fields, now)


def entity_of(kind: Kind, row: Row) -> Entity:
    """A row's thing."""
    members = {name: told[1] for name, told in orjson.loads(row["members"]).items() if name != "id"}
    return Entity(kind, row["id"], members, _moment(row["created_ms"]), _moment(row["updated_ms"]), row["created_ms"])


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(at: datetime | None) -> int | None:
    if at is None:
        return None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
