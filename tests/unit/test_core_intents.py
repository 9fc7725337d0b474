"""Prompts and what they must come to: clear ones a call, ambiguous ones a question, impossible ones a refusal; never a
contract or a value that is in neither the registry, the prompt nor the data."""

import asyncio
import json
from typing import Any

import pytest

from millrace_core import intents, prompts
from millrace_core.intents import Found, Outcome, Refused, Resolved, Unclear
from tests.support.intent_world import CONTRACTS, World, world

CLEAR: list[tuple[str, str, dict[str, Any]]] = [
    ("refund Adam's last invoice", "refund_invoice", {"invoice_id": "in_9"}),
    ("Refund adam's last invoice", "refund_invoice", {"invoice_id": "in_9"}),
    ("please refund the latest invoice of Adam Novak", "refund_invoice", {"invoice_id": "in_9"}),
    ("Can you refund Eve's invoice?", "refund_invoice", {"invoice_id": "in_5"}),
    ("reimburse Adam's most recent invoice", "refund_invoice", {"invoice_id": "in_9"}),
    ("refund invoice in_7", "refund_invoice", {"invoice_id": "in_7"}),
    ("refund Adam's invoice in_7", "refund_invoice", {"invoice_id": "in_7"}),
    ("refund $20 of Adam's last invoice", "refund_invoice", {"invoice_id": "in_9", "amount": 20}),
    ("refund 12.50 from Adam's last invoice", "refund_invoice", {"invoice_id": "in_9", "amount": 12.5}),
    (
        "refund Adam's last invoice because it was charged twice",
        "refund_invoice",
        {"invoice_id": "in_9", "reason": "it was charged twice"},
    ),
    ("give Adam the money back for his last invoice", "refund_invoice", {"invoice_id": "in_9"}),
    ("refund Acme's paid invoice", "refund_invoice", {"invoice_id": "in_2"}),
    ("refund the last bill of Adam", "refund_invoice", {"invoice_id": "in_9"}),
    ("send Adam's last invoice", "send_invoice", {"invoice_id": "in_9"}),
    ("email invoice in_4 again", "send_invoice", {"invoice_id": "in_4"}),
    ("send Sarah's open invoice", "send_invoice", {"invoice_id": "in_4"}),
    ("cancel Adam's subscription", "cancel_subscription", {"subscription_id": "sub_1"}),
    ("Could you please cancel the subscription of Adam Novak", "cancel_subscription", {"subscription_id": "sub_1"}),
    ("cancel subscription sub_3", "cancel_subscription", {"subscription_id": "sub_3"}),
    ("cancel Eve's active subscription", "cancel_subscription", {"subscription_id": "sub_2"}),
    (
        "cancel Adam's subscription because he moved away",
        "cancel_subscription",
        {"subscription_id": "sub_1", "reason": "he moved away"},
    ),
    ("terminate Acme's membership", "cancel_subscription", {"subscription_id": "sub_4"}),
    ("pause Adam's subscription", "pause_subscription", {"subscription_id": "sub_1"}),
    ("suspend subscription sub_4", "pause_subscription", {"subscription_id": "sub_4"}),
    (
        "send the kb link how-to-reset-password to ticket 5519",
        "send_kb_link",
        {"ticket_id": 5519, "article": "how-to-reset-password"},
    ),
    (
        'send the article "reset-password" for ticket #5520',
        "send_kb_link",
        {"ticket_id": 5520, "article": "reset-password"},
    ),
    ("close ticket 5519", "close_ticket", {"ticket_id": "5519"}),
    ("please close ticket number 5520", "close_ticket", {"ticket_id": "5520"}),
    ("resolve Adam's ticket", "close_ticket", {"ticket_id": "5519"}),
    ("close Eve's open ticket", "close_ticket", {"ticket_id": "5520"}),
    ("assign ticket 5519 to kim@example.com", "assign_ticket", {"ticket_id": "5519", "email": "kim@example.com"}),
    ("set the priority of ticket 5519 to high", "set_ticket_priority", {"ticket_id": "5519", "priority": "high"}),
    ("change ticket 5520 priority to urgent", "set_ticket_priority", {"ticket_id": "5520", "priority": "urgent"}),
    ("extend Adam's trial by 14 days", "extend_trial", {"customer_id": "421", "days": 14}),
    ("extend the trial of Sarah Lee by 7 days", "extend_trial", {"customer_id": "423", "days": 7}),
    ("reset Bob's password", "reset_password", {"customer_id": "424"}),
    ("reset the password of customer 424", "reset_password", {"customer_id": "424"}),
    ("apply a 20% discount to Acme", "apply_discount", {"customer_id": "425", "percent": 20}),
    ("give Sarah a 15 percent discount", "apply_discount", {"customer_id": "423", "percent": 15}),
    ("change Bob's email to bob@new.example", "update_email", {"customer_id": "424", "email": "bob@new.example"}),
    ('add a note to Eve: "called twice"', "add_note", {"customer_id": "422", "note": "called twice"}),
]

AMBIGUOUS = [
    "refund Adam",
    "refund Adam's invoice",
    "refund his last invoice",
    "refund the last invoice",
    "refund Adam's first invoice",
    "refund Adam's previous invoice",
    "cancel Eve's subscription",
    "cancel the subscription",
    "extend Adam's trial",
    "extend Adam's trial by 14",
    "apply a discount to Acme",
    "close the ticket",
    "close Eve's ticket",
    "set the priority of ticket 5519",
    "change Bob's email",
    "refund Adam's last invoice and cancel Adam's subscription",
    "assign ticket 5519",
    "refund Adam's last invoice via paypal",
    "please",
]
TWO_ADAMS = [
    "refund Adam's last invoice",
    "cancel Adam's subscription",
    "reset Adam's password",
    "extend Adam's trial by 14 days",
]

IMPOSSIBLE = [
    "refund Zoe's last invoice",
    "refund Sarah's last invoice",
    "refund Bob's last invoice",
    "refund invoice in_999",
    "refund Eve's invoice in_9",
    "delete Adam's account",
    "ship order 77 to Adam",
    "drop the database",
    "make me an admin",
    "don't refund Adam's last invoice",
    "how do I refund an invoice?",
    "who is Adam?",
    "refund all invoices",
    "cancel every subscription",
    "cancel Adam's subscription tomorrow",
    "cancel Adam's subscription if he does not pay",
    "close ticket 9999",
    "cancel Bob's subscription",
    "reset the password of customer 999",
    "transfer 100 to Adam",
]


def resolved(prompt: str, facts: World | None = None, *, role: str = "owner") -> Outcome:
    return asyncio.run(intents.resolve(prompt, CONTRACTS, role=role, facts=facts or world()))


def two_adams() -> World:
    return world(Found("499", "Adam Brook"))


@pytest.mark.parametrize(("prompt", "action", "params"), CLEAR, ids=[one[0] for one in CLEAR])
def test_a_clear_prompt_is_a_call(prompt: str, action: str, params: dict[str, Any]) -> None:
    assert resolved(prompt) == Resolved(f"saas.{action}", params)


@pytest.mark.parametrize("prompt", AMBIGUOUS)
def test_an_ambiguous_prompt_is_asked_back(prompt: str) -> None:
    assert isinstance(resolved(prompt), Unclear), resolved(prompt)


@pytest.mark.parametrize("prompt", TWO_ADAMS)
def test_of_two_adams_it_is_asked_which(prompt: str) -> None:
    outcome = resolved(prompt, two_adams())
    assert isinstance(outcome, Unclear)
    assert outcome.options == ("Adam Novak (421)", "Adam Brook (499)")


def test_a_whole_name_tells_two_adams_apart() -> None:
    assert resolved("reset Adam Brook's password", two_adams()) == Resolved(
        "saas.reset_password", {"customer_id": "499"}
    )


@pytest.mark.parametrize("prompt", IMPOSSIBLE)
def test_an_impossible_prompt_is_refused(prompt: str) -> None:
    assert isinstance(resolved(prompt), Refused), resolved(prompt)


def test_a_role_that_may_not_is_refused() -> None:
    for role in ("member", "admin"):
        outcome = resolved("refund Adam's last invoice", role=role)
        assert isinstance(outcome, Refused)
        assert "owner" in outcome.reason


def test_nothing_is_invented_whatever_is_asked() -> None:
    """Every contract is a registered one, every value stands in the prompt or in the data."""
    known = {one.id for one in CONTRACTS}
    cut = [" ".join(one[0].split()[:n]) for one in CLEAR for n in range(1, len(one[0].split()))]
    every = [*[one[0] for one in CLEAR], *AMBIGUOUS, *IMPOSSIBLE, *cut]
    for facts in (world(), two_adams()):
        data = {found.id for found in facts.people} | {found.id for _, found, _ in facts.things}
        for prompt in every:
            outcome = resolved(prompt, facts)
            if isinstance(outcome, Resolved):
                assert outcome.action in known
                typed = {str(prompts.number(word)) for word in prompts.read(prompt)}
                for value in outcome.params.values():
                    assert str(value) in data | typed or str(value) in prompt, (prompt, outcome)


def test_there_are_enough_of_them() -> None:
    assert len(CLEAR) + len(AMBIGUOUS) + len(TWO_ADAMS) + len(IMPOSSIBLE) >= 60


@pytest.mark.parametrize(
    "prompt", ["", " ", "💥" * 100, "a" * 4_000, "'" * 500, '"' * 501, json.dumps({"action": "x"}), "\x00"]
)
def test_garbage_is_no_call(prompt: str) -> None:
    assert not isinstance(resolved(prompt), Resolved)
