"""The audit as its owner reads it: what was asked, decided and done, by whom, and what came of it.

Entries are made by those who act (`millrace_core.audit`) and only ever added. As CSV a cell that a spreadsheet would
take for a formula is written as text.
"""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import get_args
from uuid import UUID

from millrace_api.application.database import Database
from millrace_api.application.notation import stored
from millrace_api.application.problems import Invalid, NotFound, Unavailable
from millrace_api.application.runs import Log, Place
from millrace_api.application.views import ErrorView, Json, error_of, raw
from millrace_core import audit, ids, limits
from millrace_core.errors import Retry
from millrace_core.messages import AuditEntry, AuditKind
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/audit")
KINDS: tuple[str, ...] = get_args(AuditKind)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Below = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class AuditView:
    """One entry. `params` and `result` are as they were sent and answered."""

    id: str
    at: datetime
    kind: str
    actor: str
    role: str | None
    action: str | None
    version: int | None
    run: str | None
    confirmation: str | None
    prompt: str | None
    rendered_prompt: str | None
    response: str | None
    outcome: str | None
    error: ErrorView | None
    duration_ms: float | None
    params: Json
    result: Json


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries a list shows; None = any."""

    kind: str | None = None
    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    run: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def write(log: Log, *entries: AuditEntry) -> Place:
    """Put them on the log. Raises Unavailable when that is not known: then nothing they are about may be done."""
    try:
        *_, place = await log.write([audit.to_output(entry) for entry in entries])
    except Retry as error:
        raise Unavailable("The log cannot be reached right now, and nothing is done without it.") from error
    return place


async def listed(tx: Connection, account: str, *, below: Below, count: int, filter: Filter) -> list[AuditView]:
    """Newest first."""
    return [_view(row) for row in await _rows(tx, account, below=below, count=count, filter=filter)]


async def get(tx: Connection, account: str, id: str) -> AuditView:
    row = await tx.fetchrow(_SQL["get_audit"], account, stored(id, "audit entry", ids.AUDIT))
    if row is None:
        raise NotFound("audit entry", id)
    return _view(row)


COLUMNS = (*(one.name for one in fields(AuditView) if one.name != "error"), "error_code", "error_message")


async def as_csv(database: Database, account: str, *, below: Below, filter: Filter) -> AsyncIterator[bytes]:
    """Every entry as CSV, newest first, some rows at a time: as many as there are, in bounded memory. Holds a
    connection only while it reads."""
    head = _line(COLUMNS)
    while True:
        async with database.asking() as tx:
            rows = await _rows(tx, account, below=below, count=limits.AUDIT_CSV_ROWS, filter=filter)
        yield head + b"".join(_line(_cells(row)) for row in rows)
        head = b""
        if len(rows) < limits.AUDIT_CSV_ROWS:
            return
        below = rows[-1]["at"], rows[-1]["id"]


def safe_cell(text: str) -> str:
    """The cell's text, such that no spreadsheet works it out."""
    return "'" + text if text.startswith(_FORMULA) else text


async def _rows(tx: Connection, account: str, *, below: Below, count: int, filter: Filter) -> Sequence[Row]:
    if filter.kind is not None and filter.kind not in KINDS:
        raise Invalid(f"one of {', '.join(KINDS)}", where="kind")
    rows: Sequence[Row] = await tx.fetch(
        _SQL["list_audit"],
        account,
        *below,
        count,
        filter.kind,
        filter.actor,
        filter.action,
        filter.outcome,
        filter.run,
        filter.since,
        filter.until,
    )
    return rows


def _view(row: Row) -> AuditView:
    same = ("at", "kind", "actor", "role", "action", "version", "run", "confirmation", "prompt", "response", "outcome")
    return AuditView(
        id=ids.prefixed(ids.AUDIT, row["id"]),
        rendered_prompt=row["rendered"],
        error=error_of(row),
        duration_ms=row["duration_ms"],
        params=raw(row["params"]),
        result=raw(row["result"]),
        **{name: row[name] for name in same},
    )


def _cells(row: Row) -> list[str]:
    named = {"id": ids.prefixed(ids.AUDIT, row["id"]), "rendered_prompt": row["rendered"]}
    return [_text(named[name] if name in named else row[name]) for name in COLUMNS]


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bytes():
            return value.decode("utf-8", "replace")
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case _:
            return str(value)


def _line(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([safe_cell(cell) for cell in cells])
    return out.getvalue().encode("utf-8", "replace")
