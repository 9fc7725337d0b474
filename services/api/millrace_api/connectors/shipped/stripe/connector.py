"""Webhooks of Stripe, or of what speaks like it: customers, invoices and subscriptions become events.

Secrets: `webhook_secret` (`whsec_…`, as the dashboard shows it), and while it is rotated `old_webhook_secret`. Config:
`tolerance_s`, how old a signed webhook may be (300).
"""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

TOLERANCE_S = 300
CUSTOMER = ("id", "name", "email", "created", "currency", "description", "phone", "metadata")
INVOICE = ("id", "number", "status", "amount_due", "amount_paid", "amount_remaining", "total", "currency", "created")
# What Stripe deletes when a subscription ends is its own record: here it goes on as a cancelled one.
SUBSCRIPTION_VERBS = {"deleted": "cancelled"}


class Refused(Exception):
    """It is not taken."""


class StripeConnector:
    title = "Stripe"
    description = "Customers, invoices and subscriptions from Stripe's webhooks."
    secrets = ("webhook_secret", "old_webhook_secret")

    def identity_providers(self, connection: Any) -> list[dict[str, Any]]:
        return [{"name": "stripe", "thing": "customer", "id": "the id of Stripe's customer, cus_…"}]

    def context_providers(self, connection: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": "billing",
                "description": "Invoices and subscriptions of a customer, as Stripe has them.",
                "things": ["customer", "invoice", "subscription"],
            }
        ]

    def register_actions(self, connection: Any) -> list[dict[str, Any]]:
        return []

    def subscribers(self, connection: Any) -> list[dict[str, Any]]:
        return []

    def handle_webhook(self, connection: Any, request: Any) -> dict[str, Any]:
        try:
            self._check(connection, request)
        except Refused as refused:
            return {"refuse": {"status": 401, "message": str(refused)}}
        try:
            event = json.loads(request.body)
            thing = event["data"]["object"]
            kind, id = str(event["type"]), str(event["id"])
        except (ValueError, KeyError, TypeError):
            return {"refuse": {"status": 400, "message": "the body is no event of Stripe's"}}
        made = self._event(kind, thing)
        if made is None:
            return {"events": []}
        created = event.get("created")
        if isinstance(created, int):
            made["timestamp"] = _iso(created)
        return {"events": [made | {"unique_key": id, "ordering_key": str(thing.get("id", id))}]}

    def _check(self, connection: Any, request: Any) -> None:
        """The signature: `t=<Unix seconds>,v1=<hex HMAC-SHA256 over "t.body">`, several `v1` while a secret rotates."""
        parts = [part.strip().partition("=") for part in request.headers.get("stripe-signature", "").split(",")]
        times = [value for name, _, value in parts if name == "t"]
        given = [value for name, _, value in parts if name == "v1"]
        if len(times) != 1 or not times[0].isascii() or not times[0].isdigit() or not given:
            raise Refused("Stripe-Signature is missing or cannot be read")
        signed = times[0].encode() + b"." + request.body
        known = [connection.secrets[name] for name in self.secrets if connection.secrets.get(name)]
        expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in known]
        if not any(hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in given):
            raise Refused("Stripe-Signature does not match")
        if abs(connection.now - int(times[0])) > connection.config.get("tolerance_s", TOLERANCE_S):
            raise Refused("Stripe-Signature is too old, or from the future")

    def _event(self, kind: str, thing: dict[str, Any]) -> dict[str, Any] | None:
        match kind.split("."):
            case ["customer", verb]:
                return {"event": f"customer.{verb}", "payload": _some(thing, CUSTOMER)}
            case ["customer", "subscription", verb]:
                name = SUBSCRIPTION_VERBS.get(verb, verb)
                return {"event": f"subscription.{name}", "payload": _subscription(thing)}
            case ["invoice", verb]:
                return {"event": f"invoice.{verb}", "payload": _invoice(thing)}
        return None


def _some(thing: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: thing[name] for name in names if thing.get(name) is not None}


def _id(reference: Any) -> Any:
    """A reference is an id, or the whole thing where Stripe was asked to expand it."""
    return reference.get("id") if isinstance(reference, dict) else reference


def _invoice(thing: dict[str, Any]) -> dict[str, Any]:
    customer = {"id": _id(thing.get("customer")), "name": thing.get("customer_name")}
    customer["email"] = thing.get("customer_email")
    transitions = thing.get("status_transitions") or {}
    more = {
        "customer": {name: value for name, value in customer.items() if value is not None},
        "subscription_id": _id(thing.get("subscription")),
        "due_at": _iso_or_none(thing.get("due_date")),
        "paid_at": _iso_or_none(transitions.get("paid_at")),
    }
    return _some(thing, INVOICE) | {name: value for name, value in more.items() if value}


def _subscription(thing: dict[str, Any]) -> dict[str, Any]:
    items = (thing.get("items") or {}).get("data") or [{}]
    price = items[0].get("price") or items[0].get("plan") or {}
    more = {
        "customer_id": _id(thing.get("customer")),
        "plan": price.get("nickname") or price.get("lookup_key") or price.get("id"),
        "amount": price.get("unit_amount", price.get("amount")),
        "currency": thing.get("currency") or price.get("currency"),
        "interval": (price.get("recurring") or {}).get("interval") or price.get("interval"),
        "quantity": items[0].get("quantity"),
        "status": {"canceled": "cancelled"}.get(thing.get("status", ""), thing.get("status")),
        "started_at": _iso_or_none(thing.get("start_date")),
        "current_period_end": _iso_or_none(thing.get("current_period_end") or items[0].get("current_period_end")),
        "cancel_at": _iso_or_none(thing.get("cancel_at")),
        "cancelled_at": _iso_or_none(thing.get("canceled_at")),
    }
    return _some(thing, ("id", "created")) | {name: value for name, value in more.items() if value is not None}


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _iso_or_none(seconds: Any) -> str | None:
    return _iso(seconds) if isinstance(seconds, int) else None
