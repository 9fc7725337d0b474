"""Customers: what events told of them, with their subscriptions, their latest invoice and how many tickets are open.

customers.named(tx, account, "Adam", most=5)          every customer whose name has that word
customers.latest_invoice(tx, account, id, "paid")     the newest invoice of that status, or None
"""

from dataclasses import dataclass
from typing import Any, Final

from millrace_api.application import entities
from millrace_api.application.entities import Entity, Safe
from millrace_core import limits
from millrace_store import queries
from millrace_store.pool import Connection

_SQL = queries.load("api/entities")
OPEN: Final = ("open", "new", "pending", "waiting", "on_hold", "in_progress", "reopened")


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer and what belongs to him."""

    itself: Entity
    subscriptions: list[Entity]
    latest_invoice: Entity | None
    open_tickets: int

    def shown(self, safe: Safe) -> dict[str, Any]:
        """What may be read of all that."""
        latest = self.latest_invoice
        return self.itself.shown(safe) | {
            "subscriptions": [subscription.shown(safe) for subscription in self.subscriptions],
            "latest_invoice": None if latest is None else latest.shown(safe),
            "open_tickets": self.open_tickets,
        }


async def get(tx: Connection, account: str, id: str) -> Customer:
    itself = await entities.get(tx, account, "customer", id)
    most = limits.CUSTOMER_SUBSCRIPTIONS_SHOWN_MAX
    count = await tx.fetchval(_SQL["count_of_customer"], account, "ticket", id, list(OPEN), limits.TICKETS_COUNTED_MAX)
    return Customer(
        itself,
        await entities.of_customer(tx, account, "subscription", id, most=most),
        await latest_invoice(tx, account, id),
        count,
    )


async def named(tx: Connection, account: str, name: str, *, most: int) -> list[Entity]:
    """The customers whose name has all words of this one, whatever their case. One who is called just so comes first,
    but is not told apart: who must not guess looks whether there are several."""
    rows = await tx.fetch(_SQL["customers_named"], account, name, most)
    return [entities.entity_of("customer", row) for row in rows]


async def latest_invoice(tx: Connection, account: str, customer: str, status: str | None = None) -> Entity | None:
    """The newest invoice of a customer, of this status (`paid`) if one is given."""
    found = await entities.of_customer(tx, account, "invoice", customer, most=1, status=status)
    return found[0] if found else None
