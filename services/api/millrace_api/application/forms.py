"""Forms (intake bots) and submissions: made, listed, filled in.

A submission is a row that stays as long as its form, and an event, `e:forms/submission.created`, that all who listen
hear of. The row is committed first; the event's id and uniqueKey follow from it, so that it may be written again after
a crash, and counts once. Only a published form takes submissions. Not here: which answers fit (`millrace_core.forms`),
who writes the event when the log was away (`telling`).
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
import orjson

from millrace_api.application import merging
from millrace_api.application.notation import stored
from millrace_api.application.problems import Conflict, Invalid, NotFound, at
from millrace_core import forms, ids
from millrace_core.event import Posted, check_depth, iso_of, make_event
from millrace_core.event_names import SUBMISSION_CREATED
from millrace_core.messages import Event, Raw
from millrace_store import queries
from millrace_store.aggregates import Row, ms
from millrace_store.pool import Connection

_SQL = queries.load("api/forms")
_PUBLIC_ID_BYTES = 12
# Half of what an event may hold: names and times stand beside it.
DATA_BYTES_MAX = 524_288

Status = Literal["draft", "published"]


@dataclass(frozen=True, slots=True)
class FormView:
    """`public_id` names the form's page, `/forms/<public_id>`, which is there while it is published."""

    id: str
    name: str
    description: str | None
    status: Status
    fields: list[dict[str, Any]]
    public_id: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SubmissionView:
    """`submitted_by` is the API key; null = the public page."""

    id: str
    form_id: str
    data: Any
    submitted_by: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A form as its owner wants it."""

    name: str
    fields: Sequence[Mapping[str, Any]]
    description: str | None = None
    status: Status = "published"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission that stands, and the event about it."""

    view: SubmissionView
    event: Event


async def create(tx: Connection, account: str, wanted: Wanted, *, id: str, now: datetime) -> FormView:
    row = await tx.fetchrow(
        _SQL["insert_form"],
        account,
        ids.uuid_of(id),
        secrets.token_urlsafe(_PUBLIC_ID_BYTES),
        wanted.name,
        wanted.description,
        _fields_text(wanted.fields),
        wanted.status,
        now,
    )
    assert row is not None
    return _view(row)


async def get(tx: Connection, account: str, id: str, *, what: str = "form") -> FormView:
    return _view(await _found(tx, "get_form", account, id, what))


async def listed(tx: Connection, account: str, *, below: UUID | None, count: int, skipped: int = 0) -> list[FormView]:
    """Newest first."""
    return [_view(row) for row in await tx.fetch(_SQL["list_forms"], account, below, count, skipped)]


async def counted(tx: Connection, account: str) -> int:
    total: int = await tx.fetchval(_SQL["count_forms"], account)
    return total


async def update(
    tx: Connection, account: str, id: str, named: Mapping[str, Any], *, now: datetime, what: str = "form"
) -> FormView:
    """Change the members named (those of Wanted). Submissions that are there stay as they are."""
    row = await _found(tx, "lock_form", account, id, what)
    merged = merging.merged(Wanted, _view(row), named)
    text = _fields_text(merged.fields)
    changed = await tx.fetchrow(
        _SQL["update_form"], account, row["id"], merged.name, merged.description, text, merged.status, now
    )
    assert changed is not None
    return _view(changed)


async def delete(tx: Connection, account: str, id: str, *, now: datetime, what: str = "form") -> None:
    """The form and its submissions are not shown any more; the events about them stay."""
    row = await _found(tx, "lock_form", account, id, what)
    await tx.execute(_SQL["delete_form"], account, row["id"], now)


async def published(tx: Connection, public_id: str) -> tuple[str, FormView]:
    """The account and form behind a public page."""
    row = await tx.fetchrow(_SQL["all_public_form"], public_id)
    if row is None:
        raise NotFound("form", public_id[:64])
    return row["account"], _view(row)


async def submit(
    tx: Connection,
    account: str,
    form_id: str,
    data: Any,
    *,
    id: str,
    submitted_by: str | None,
    now: datetime,
    what: str = "form",
    nonce: str | None = None,
) -> Submitted:
    """Keep an answer under this id. Of those sent under one nonce the first stands, and is what the others get. Raises
    Invalid naming every field that does not fit, Conflict for a draft."""
    row = await _found(tx, "share_form", account, form_id, what)
    if row["status"] != "published":
        raise Conflict(f"This {what} is a draft: publish it before anything is submitted.")
    text = _checked(_fields_of(row), data)
    made = await tx.fetchrow(
        _SQL["insert_submission"], account, ids.uuid_of(id), row["id"], text, submitted_by, now, nonce
    )
    if made is None:
        made = await tx.fetchrow(_SQL["submission_of_page"], account, row["id"], nonce)
    assert made is not None
    return Submitted(_submission(made), event_of(made, form_name=row["name"]))


async def submission(tx: Connection, account: str, form_id: str, id: str, *, what: str = "form") -> SubmissionView:
    form = await _found(tx, "get_form", account, form_id, what)
    row = await tx.fetchrow(_SQL["get_submission"], account, form["id"], stored(id, "submission", ids.SUBMISSION))
    if row is None:
        raise NotFound("submission", id)
    return _submission(row)


async def submissions(
    tx: Connection,
    account: str,
    form_id: str,
    *,
    below: UUID | None,
    count: int,
    skipped: int = 0,
    what: str = "form",
) -> list[SubmissionView]:
    """Newest first."""
    form = await _found(tx, "get_form", account, form_id, what)
    rows = await tx.fetch(_SQL["list_submissions"], account, form["id"], below, count, skipped)
    return [_submission(row) for row in rows]


async def submissions_counted(tx: Connection, account: str, form_id: str) -> int:
    total: int = await tx.fetchval(_SQL["count_submissions"], account, stored(form_id, "form", ids.FORM))
    return total


async def untold(tx: Connection, *, before: datetime, count: int) -> list[Event]:
    """The events of all accounts that may not be on the log yet, the oldest first."""
    rows = await tx.fetch(_SQL["all_untold_submissions"], before, count)
    return [event_of(row, form_name=row["form_name"]) for row in rows]


async def told(tx: Connection, event: Event, now: datetime) -> None:
    """It is on the log."""
    assert event.unique_key is not None
    await tx.execute(_SQL["tell_submission"], event.account, ids.uuid_of(event.unique_key), now)


def event_of(row: Row, *, form_name: str) -> Event:
    """The event about a submission, the same each time. Those of one form keep their order."""
    id, form = ids.prefixed(ids.SUBMISSION, row["id"]), ids.prefixed(ids.FORM, row["form"])
    at_ms = ms(row["created_at"])
    head = msgspec.json.encode({"id": id, "form_id": form, "form_name": form_name, "created_at": iso_of(at_ms)})
    properties = head[:-1] + b',"data":' + row["data"].encode() + b"}"
    posted = Posted(SUBMISSION_CREATED, Raw(properties), unique_key=id, ordering_key=form)
    return make_event(posted, account=row["account"], now_ms=at_ms)


async def _found(tx: Connection, statement: str, account: str, id: str, what: str) -> Row:
    row = await tx.fetchrow(_SQL[statement], account, stored(id, what, ids.FORM))
    if row is None:
        raise NotFound(what, id)
    return row


def _fields_text(given: Sequence[Mapping[str, Any]]) -> str:
    with at("fields"):
        return msgspec.json.encode(forms.parse_fields(given)).decode()


def _fields_of(row: Row) -> tuple[forms.Field, ...]:
    return msgspec.json.decode(row["fields"], type=tuple[forms.Field, ...])


def _checked(fields: Sequence[forms.Field], data: Any) -> str:
    if not isinstance(data, dict):
        raise Invalid("must be an object with a member for each field", where="data")
    with at("data"):
        check_depth(data)
    wrong = [(f"data.{one.field}", one.problem) for one in forms.check(fields, data)]
    if wrong:
        message = "; ".join(f"{where} {problem}" for where, problem in wrong)
        raise Invalid(f"does not fit the form: {message}", where="data", wrong=wrong)
    try:
        text = orjson.dumps(data)
    except TypeError as error:
        raise Invalid(f"cannot be kept: {error}", where="data") from None
    if len(text) > DATA_BYTES_MAX:
        raise Invalid(f"has {len(text)} bytes, at most {DATA_BYTES_MAX} are taken", where="data")
    return text.decode()


def _view(row: Row) -> FormView:
    return FormView(
        id=ids.prefixed(ids.FORM, row["id"]),
        name=row["name"],
        description=row["description"],
        status=row["status"],
        fields=json.loads(row["fields"]),
        public_id=row["public_id"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _submission(row: Row) -> SubmissionView:
    return SubmissionView(
        id=ids.prefixed(ids.SUBMISSION, row["id"]),
        form_id=ids.prefixed(ids.FORM, row["form"]),
        data=orjson.Fragment(row["data"].encode()),
        submitted_by=row["submitted_by"],
        created_at=row["created_at"],
    )
