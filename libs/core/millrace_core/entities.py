"""What an event of the provider `ops` says of a customer, ticket, invoice or subscription.

`e:ops/ticket.created` speaks of a ticket, whatever word stands behind the dot. It is named by `id` or `ticket_id` (or
the payload has it whole, as `ticket`), by the sender's own id, a text or a whole number; both are kept as text. Each
member of the payload is a member of the thing, and of two events that name one the later stands: an event need not say
everything again. A customer that lies in the payload of another thing is told of as well. A name that ends in
`.deleted` erases what was told before it. Pure; what cannot be read says nothing, and never takes its event with it.
Not here: which of two events is the later one, and what may be shown of a thing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal

from millrace_core import limits

PREFIX: Final = "e:ops/"
Kind = Literal["customer", "ticket", "invoice", "subscription"]
KINDS: Final[tuple[Kind, ...]] = ("customer", "ticket", "invoice", "subscription")
ERASING: Final = frozenset({"deleted", "erased"})

# A name that says how the thing stands, for payloads without a `status`.
_IMPLIED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ticket.created": "open",
        "ticket.opened": "open",
        "ticket.reopened": "open",
        "ticket.pending": "pending",
        "ticket.resolved": "resolved",
        "ticket.closed": "closed",
        "invoice.created": "draft",
        "invoice.finalized": "open",
        "invoice.sent": "open",
        "invoice.paid": "paid",
        "invoice.voided": "void",
        "invoice.refunded": "refunded",
        "subscription.created": "active",
        "subscription.activated": "active",
        "subscription.renewed": "active",
        "subscription.resumed": "active",
        "subscription.paused": "paused",
        "subscription.cancelled": "cancelled",
        "subscription.canceled": "cancelled",
        "subscription.expired": "expired",
    }
)

SAFE_FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        "customer": ("name", "email", "company", "status", "plan", "locale", "timezone", "country", "tags"),
        "ticket": ("number", "subject", "status", "priority", "assignee", "channel", "tags", "customer_id"),
        "invoice": (
            "number",
            "status",
            "amount",
            "amount_due",
            "amount_paid",
            "total",
            "currency",
            "due_at",
            "paid_at",
            "customer_id",
            "subscription_id",
        ),
        "subscription": (
            "status",
            "plan",
            "quantity",
            "interval",
            "amount",
            "currency",
            "started_at",
            "current_period_end",
            "cancel_at",
            "cancelled_at",
            "customer_id",
        ),
    }
)
"""What may be read of each kind unless its account says otherwise: nothing free in form, no payment details, no
address, no telephone number."""

_RESERVED = frozenset({"id", "created", "created_at", "updated", "updated_at"})
_is_field = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}").fullmatch


@dataclass(frozen=True, slots=True)
class Told:
    """What one event says of one thing. `created_ms` is when the sender says it came to be."""

    kind: Kind
    id: str
    members: Mapping[str, Any]
    erases: bool = False
    created_ms: int | None = None


@lru_cache(maxsize=4_096)
def about(identifier: str) -> tuple[Kind, str] | None:
    """The kind that events of this identifier speak of, and what they say happened to it; None for all others."""
    if not identifier.startswith(PREFIX):
        return None
    kind, _, verb = identifier[len(PREFIX) :].partition(".")
    return next(((known, verb) for known in KINDS if known == kind and verb and "." not in verb), None)


def told_by(identifier: str, properties: str) -> list[Told]:
    """What an event says, its properties given as JSON text: nothing, one thing, or a thing and its customer."""
    found = about(identifier)
    if found is None:
        return []
    try:
        payload = json.loads(properties)
    except (ValueError, RecursionError):
        return []
    return _told(*found, payload) if isinstance(payload, dict) else []


def _told(kind: Kind, verb: str, payload: dict[str, Any]) -> list[Told]:
    whole = payload.get(kind)
    said: dict[str, Any] = {**payload, **whole} if isinstance(whole, dict) else payload
    id = _id_of(said.get(f"{kind}_id"))
    if isinstance(whole, dict) or id is None:
        id = _id_of(said.get("id")) or id
    if id is None:
        return []
    if verb in ERASING:
        return [Told(kind, id, {}, erases=True)]
    members, others = _members(kind, said), []
    if kind != "customer":
        others = _customer(said.get("customer"))
        customer = others[0].id if others else _id_of(said.get("customer_id")) or _id_of(said.get("customer"))
        for name in ("customer", "customer_id"):
            members.pop(name, None)
        if customer is not None:
            members["customer_id"] = customer
    implied = _IMPLIED.get(f"{kind}.{verb}")
    if implied is not None and not isinstance(said.get("status"), str):
        members["status"] = implied
    return [Told(kind, id, _bounded(members) | {"id": id}, created_ms=_created(said)), *others]


def _customer(nested: Any) -> list[Told]:
    """The customer inside another thing's payload."""
    id = _id_of(nested.get("id")) if isinstance(nested, dict) else None
    if id is None:
        return []
    members = _bounded(_members("customer", nested)) | {"id": id}
    return [Told("customer", id, members, created_ms=_created(nested))]


def _members(kind: Kind, said: Mapping[str, Any]) -> dict[str, Any]:
    own = {kind, f"{kind}_id", *_RESERVED}
    members = {name: value for name, value in said.items() if name not in own and _is_field(name)}
    # Things are looked up by it: it has the length of an index's key.
    if "status" in members and not _is_status(members["status"]):
        del members["status"]
    return members


def _is_status(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= limits.ENTITY_STATUS_CHARS_MAX)


def _bounded(members: Mapping[str, Any]) -> dict[str, Any]:
    """The first so many by name, those that are too large left out."""
    small = (
        (name, value)
        for name, value in sorted(members.items())
        if len(json.dumps(value)) <= limits.ENTITY_VALUE_CHARS_MAX
    )
    return {name: value for (name, value), _ in zip(small, range(limits.ENTITY_MEMBERS_TOLD_MAX), strict=False)}


def _id_of(value: Any) -> str | None:
    """421 and "421" are one id."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    return text if 0 < len(text) <= limits.ID_CHARS_MAX and text.isprintable() else None


def _created(said: Mapping[str, Any]) -> int | None:
    given = said.get("created_at", said.get("created"))
    return moment_ms(given)


def moment_ms(given: Any) -> int | None:
    """A time as senders write it, ISO 8601 (in UTC where it names no zone) or Unix time in seconds or milliseconds, in
    milliseconds since 1970; None when it is none of these."""
    try:
        if isinstance(given, str):
            at = datetime.fromisoformat(given)
            ms = round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
        elif isinstance(given, int | float) and not isinstance(given, bool):
            ms = round(given * 1000 if abs(given) < _SECONDS_MAX else given)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return ms if 0 <= ms < _MS_MAX else None


_SECONDS_MAX = 100_000_000_000  # the year 5138 in seconds, 1973 in milliseconds
_MS_MAX = 253_402_300_800_000  # the year 10000


def stamp(at_ms: int, partition: int, offset: int) -> str:
    """Where a record stands among all of `events`: stamps sort as their records came, by the broker's time, and within
    a partition exactly."""
    return f"{at_ms:015d}.{partition:05d}.{offset:019d}"


def shown(kind: Kind, members: Mapping[str, Any], safe: tuple[str, ...] | None) -> dict[str, Any]:
    """Of a thing's members those that may be read. `safe` is what the account allows; None = as shipped."""
    allowed = SAFE_FIELDS[kind] if safe is None else safe
    return {name: members[name] for name in allowed if name in members}


def check_fields(fields: list[str]) -> str | None:
    """Why these cannot be the fields that may be read; None when they can."""
    if len(fields) > limits.SAFE_FIELDS_MAX or len(set(fields)) != len(fields):
        return f"at most {limits.SAFE_FIELDS_MAX} fields, each once"
    wrong = next((name for name in fields if not _is_field(name)), None)
    return None if wrong is None else f"{wrong[:80]!r} is no field: 1 to 64 letters, digits, '_', '.' or '-'"
