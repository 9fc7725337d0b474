"""Twenty prompts written when the resolver was finished, which it was never tuned on. What it does with them is told in
docs/guides/actions.md as it came out; that nothing is ever invented must hold here too."""

import asyncio
from typing import Any

from millrace_core import intents
from millrace_core.intents import Outcome, Refused, Resolved, Unclear
from tests.support.intent_world import CONTRACTS, world

CLEAR: list[tuple[str, str, dict[str, Any]]] = [
    ("issue a refund for Adam's latest invoice", "refund_invoice", {"invoice_id": "in_9"}),
    ("Eve wants her money back for invoice in_5", "refund_invoice", {"invoice_id": "in_5"}),
    ("we need to refund 5 euros of invoice in_9", "refund_invoice", {"invoice_id": "in_9", "amount": 5}),
    ("stop Adam Novak's subscription", "cancel_subscription", {"subscription_id": "sub_1"}),
    ("put Acme's subscription on hold", "pause_subscription", {"subscription_id": "sub_4"}),
    ("forward invoice in_2 please", "send_invoice", {"invoice_id": "in_2"}),
    ("mark ticket 5519 as resolved", "close_ticket", {"ticket_id": "5519"}),
    ("ticket 5520 priority low", "set_ticket_priority", {"ticket_id": "5520", "priority": "low"}),
    ("lengthen Eve Stone's trial by 30 days", "extend_trial", {"customer_id": "422", "days": 30}),
    ("Bob forgot his password, reset it", "reset_password", {"customer_id": "424"}),
    ("grant Bob Marsh a 10% discount", "apply_discount", {"customer_id": "424", "percent": 10}),
    (
        "set Sarah's email address to sarah@lee.example",
        "update_email",
        {"customer_id": "423", "email": "sarah@lee.example"},
    ),
]
AMBIGUOUS = ["send Adam his stuff", "cancel it", "refund the invoice from last month", "pause Eve's subscription"]
IMPOSSIBLE = [
    "refund Eve's second to last order",
    "merge tickets 5519 and 5520",
    "never mind",
    "refund Mallory",
]
RIGHT = 11


def outcomes() -> list[tuple[str, Outcome, bool]]:
    return [
        *((prompt, (came := of(prompt)), came == Resolved(f"saas.{name}", params)) for prompt, name, params in CLEAR),
        *((prompt, (came := of(prompt)), isinstance(came, Unclear)) for prompt in AMBIGUOUS),
        *((prompt, (came := of(prompt)), isinstance(came, Refused)) for prompt in IMPOSSIBLE),
    ]


def of(prompt: str) -> Outcome:
    return asyncio.run(intents.resolve(prompt, CONTRACTS, role="owner", facts=world()))


def test_what_came_out_stays_as_it_was_told() -> None:
    assert sum(right for _, _, right in outcomes()) == RIGHT


def test_no_call_is_a_wrong_one() -> None:
    for prompt, outcome, right in outcomes():
        assert right or not isinstance(outcome, Resolved), (prompt, outcome)
