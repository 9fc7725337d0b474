"""A registry and live data for prompts: thirteen contracts, some customers with invoices, subscriptions and tickets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace_core import actions
from millrace_core.actions import Contract
from millrace_core.intents import Found, Thing

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}


def contract(
    id: str, description: str, properties: dict[str, Any], *, role: str = "member", optional: str = "", **more: Any
) -> Contract:
    required = [name for name in properties if name not in optional.split()]
    return actions.parse(
        {
            "id": id,
            "description": description,
            "surface": "admin",
            "roles": [role],
            "endpoint": "https://example.com/",
            "parameters": {"type": "object", "properties": properties, "required": required},
            **more,
        }
    )


CONTRACTS = (
    contract(
        "saas.refund_invoice",
        "Refund an invoice of a customer",
        {"invoice_id": TEXT, "amount": {"type": "number"}, "reason": TEXT},
        role="owner",
        optional="amount reason",
        synonyms=["give money back", "money back"],
    ),
    contract("saas.send_invoice", "Send an invoice to its customer again", {"invoice_id": TEXT}),
    contract(
        "saas.cancel_subscription",
        "Cancel a subscription",
        {"subscription_id": TEXT, "reason": TEXT},
        role="admin",
        optional="reason",
    ),
    contract("saas.pause_subscription", "Pause a subscription", {"subscription_id": TEXT}, role="admin"),
    contract(
        "saas.send_kb_link", "Send a link to an article of the knowledge base", {"ticket_id": WHOLE, "article": TEXT}
    ),
    contract("saas.close_ticket", "Close a ticket", {"ticket_id": TEXT}),
    contract("saas.assign_ticket", "Assign a ticket to somebody", {"ticket_id": TEXT, "email": TEXT}),
    contract(
        "saas.set_ticket_priority",
        "Set the priority of a ticket",
        {"ticket_id": TEXT, "priority": {"type": "string", "enum": ["low", "normal", "high", "urgent"]}},
    ),
    contract("saas.extend_trial", "Extend the trial of a customer", {"customer_id": TEXT, "days": WHOLE}),
    contract("saas.reset_password", "Reset the password of a customer", {"customer_id": TEXT}, role="admin"),
    contract("saas.apply_discount", "Apply a discount", {"customer_id": TEXT, "percent": WHOLE}, role="owner"),
    contract("saas.update_email", "Change the email address of a customer", {"customer_id": TEXT, "email": TEXT}),
    contract("saas.add_note", "Add a note to a customer", {"customer_id": TEXT, "note": TEXT}, synonyms=["note"]),
)


@dataclass
class World:
    """A `Facts` in memory: customers by name; (kind, id, customer, status, label), newest first."""

    people: Sequence[Found] = ()
    things: Sequence[tuple[Thing, Found, str]] = ()
    asked: list[str] = field(default_factory=list)

    async def customers(self, name: str, *, most: int) -> Sequence[Found]:
        self.asked.append(name)
        words = name.lower().split()
        return [
            one for one in self.people if all(word in [*one.label.lower().split(), f"{one.id}@x.com"] for word in words)
        ][:most]

    async def of_customer(self, kind: Thing, customer: str, *, status: str | None, most: int) -> Sequence[Found]:
        return [
            found
            for its_kind, found, its_status in self.things
            if its_kind == kind and found.customer == customer and status in (None, its_status)
        ][:most]

    async def get(self, kind: Thing, id: str) -> Found | None:
        if kind == "customer":
            return next((one for one in self.people if one.id == id), None)
        return next((found for its_kind, found, _ in self.things if (its_kind, found.id) == (kind, id)), None)


def world(*more: Found) -> World:
    """One Adam; Eve has two subscriptions; Sarah has only an open invoice; Bob has nothing."""
    return World(
        [
            Found("421", "Adam Novak"),
            Found("422", "Eve Stone"),
            Found("423", "Sarah Lee"),
            Found("424", "Bob Marsh"),
            Found("425", "Acme"),
            *more,
        ],
        [
            ("invoice", Found("in_9", "in_9", "421"), "paid"),
            ("invoice", Found("in_7", "in_7", "421"), "paid"),
            ("invoice", Found("in_5", "in_5", "422"), "paid"),
            ("invoice", Found("in_4", "in_4", "423"), "open"),
            ("invoice", Found("in_3", "in_3", "425"), "open"),
            ("invoice", Found("in_2", "in_2", "425"), "paid"),
            ("subscription", Found("sub_1", "sub_1", "421"), "active"),
            ("subscription", Found("sub_2", "sub_2", "422"), "active"),
            ("subscription", Found("sub_3", "sub_3", "422"), "paused"),
            ("subscription", Found("sub_4", "sub_4", "425"), "active"),
            ("ticket", Found("5519", "5519", "421"), "open"),
            ("ticket", Found("5520", "5520", "422"), "open"),
            ("ticket", Found("5521", "5521", "422"), "closed"),
        ],
    )
