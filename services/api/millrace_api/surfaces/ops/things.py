"""What the routes of customers and tickets share: filters, pages by the things' own ids, and shapes for OpenAPI."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict

from millrace_api.application.entities import Below, Entity, Safe
from millrace_api.surfaces.calls import Listing
from millrace_core import limits
from millrace_web.paging import Page

START: Below = (2**62, "")
"""Above every row."""

_TEXT = "^[^\\u0000]*$"
Id = Annotated[
    str,
    Path(
        min_length=1,
        max_length=limits.ID_CHARS_MAX,
        pattern=_TEXT,
        description="The id that your events give it.",
        examples=["421"],
    ),
]


def text(description: str, *examples: str) -> Any:
    """A filter that is any text."""
    return Query(max_length=limits.ID_CHARS_MAX, pattern=_TEXT, description=description, examples=list(examples))


Status = Annotated[str | None, text("Only those of this status.", "open")]
Search = Annotated[
    str | None, text("Only those with all these words in name, e-mail, company, number or subject.", "adam")
]
CreatedFrom = Annotated[datetime | None, Query(description="Only those that came to be then or later (ISO 8601).")]
CreatedTo = Annotated[datetime | None, Query(description="Only those that came to be before that.")]
UpdatedFrom = Annotated[datetime | None, Query(description="Only those last told of then or later.")]
UpdatedTo = Annotated[datetime | None, Query(description="Only those last told of before that.")]


class Thing(BaseModel):
    """`id` is the sender's own. Beside what is named here it has the fields that the account lets be read."""

    model_config = ConfigDict(extra="allow")

    id: str
    created_at: datetime
    updated_at: datetime


_TIMES = {"created_at": "2026-05-01T12:00:00Z", "updated_at": "2026-05-02T08:30:00Z"}
_SUBSCRIPTION = {"id": "sub_1", "status": "active", "plan": "pro", "customer_id": "421"} | _TIMES
_INVOICE = {"id": "in_2", "status": "paid", "amount": 12.5, "currency": "EUR", "customer_id": "421"} | _TIMES
_CUSTOMER = {"id": "421", "name": "Adam Smith", "email": "adam@example.com", "status": None, "plan": "pro"} | _TIMES
_TICKET = {
    "id": "5519",
    "subject": "No mail",
    "status": "open",
    "priority": "high",
    "assignee": None,
    "customer_id": "421",
} | _TIMES


def _example(**one: Any) -> ConfigDict:
    return ConfigDict(extra="allow", json_schema_extra={"examples": [one]})


class Ticket(Thing):
    """A ticket; its members as they were last told."""

    model_config = _example(**_TICKET)

    subject: Any = None
    status: Any = None
    priority: Any = None
    assignee: Any = None
    customer_id: Any = None


class Customer(Thing):
    """A customer; its members as they were last told."""

    model_config = _example(**_CUSTOMER)

    name: Any = None
    email: Any = None
    status: Any = None


class WholeCustomer(Customer):
    """A customer with what belongs to it. At most 20 subscriptions, the newest first."""

    model_config = _example(**_CUSTOMER, subscriptions=[_SUBSCRIPTION], latest_invoice=_INVOICE, open_tickets=1)

    subscriptions: list[Thing]
    latest_invoice: Thing | None
    open_tickets: int


def below(listing: Listing, account: str, name: str) -> Below:
    """Where the list goes on."""
    at = listing.cursors.after(listing.query, account=account, listing=name)
    return START if at is None else (int(at[0]), str(at[1]))


def page(listing: Listing, rows: list[Entity], account: str, name: str, safe: Safe) -> Page[Any]:
    """The page, cut to what may be read."""
    cut = listing.page(rows, account, name, lambda row: [row.created_ms, row.id])
    return Page([row.shown(safe) for row in cut.items], cut.next_cursor)
