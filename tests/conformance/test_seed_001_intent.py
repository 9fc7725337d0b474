"""Seed 001, "The AI matches the request to a registered action": prompts against the registry and live data."""

from typing import Any

import orjson
import pytest

from tests.conformance.test_seed_001_actions import error, register
from tests.conformance.test_seed_001_audit import entries
from tests.e2e.conftest import Millrace
from tests.support.user import Answer
from tests.support.waiting import eventually

INVOICE: dict[str, Any] = {
    "description": "Refund an invoice",
    "roles": ["owner"],
    "parameters": {"type": "object", "properties": {"invoice_id": {"type": "string"}}, "required": ["invoice_id"]},
    "confirmation": {"policy": "always"},
}


async def resolve(millrace: Millrace, prompt: str) -> Answer:
    return await millrace.user.ask("POST", "/v1/actions/resolve", {"prompt": prompt})


@pytest.fixture
async def shop(millrace: Millrace) -> Millrace:
    """The page's: Adam, his invoices, and the contract."""
    told = [
        ("customer.signed_up", {"id": 421, "name": "Adam Novak"}),
        ("invoice.paid", {"id": "in_1", "customer_id": 421, "created_at": "2026-01-01"}),
        ("invoice.paid", {"id": "in_2", "customer_id": 421, "created_at": "2026-02-01"}),
        ("customer.signed_up", {"id": 430, "name": "Sarah Lee"}),
        ("customer.signed_up", {"id": 431, "name": "Sarah Kim"}),
    ]
    url = millrace.user.gateway + "/v1/events/fire"
    for name, payload in told:
        answer = await millrace.user.send("POST", url, orjson.dumps({"event": name, "payload": payload}))
        assert answer.status == 202
    await register(millrace, "saas.refund_invoice", **INVOICE)

    async def are_there() -> bool:
        found = await resolve(millrace, "refund Adam's last invoice")
        sarahs = await resolve(millrace, "refund Sarah's last invoice")
        return found.json.get("params") == {"invoice_id": "in_2"} and len(sarahs.json.get("options", ())) == 2

    await eventually(are_there, timeout_s=20, every_s=0.2, what="the events are in the read models")
    return millrace


async def test_the_pages_prompt_is_resolved_asked_about_confirmed_and_done(shop: Millrace) -> None:
    understood = (await resolve(shop, "refund Adam's last invoice")).json
    assert understood["status"] == "resolved"
    assert (understood["action"], understood["params"]) == ("saas.refund_invoice", {"invoice_id": "in_2"})
    assert (understood["surface"], understood["roles"]) == ("admin", ["owner"])
    assert understood["confirmation_required"] is True
    asked = await shop.user.ask("POST", "/v1/actions/run", {"prompt": "refund Adam's last invoice"})
    assert (asked.status, asked.json["status"]) == (202, "confirmation_required")
    card = asked.json["confirmation"]
    assert (card["action"], card["params"]) == ("saas.refund_invoice", {"invoice_id": "in_2"})
    done = await shop.user.ask("POST", f"/v1/actions/confirmations/{card['id']}/confirm")
    assert done.json["status"] == "completed"
    assert shop.sink.arrived["/saas.refund_invoice"][-1].body["params"] == {"invoice_id": "in_2"}


async def test_two_sarahs_are_asked_about(shop: Millrace) -> None:
    answer = (await resolve(shop, "refund Sarah's last invoice")).json
    assert answer["status"] == "clarification_required"
    assert {option.split(" (")[0] for option in answer["options"]} == {"Sarah Lee", "Sarah Kim"}


async def test_what_is_not_in_the_registry_is_refused_and_nothing_runs(shop: Millrace) -> None:
    for prompt in ("delete Adam's account", "refund Zoe's last invoice"):
        assert (await resolve(shop, prompt)).json["status"] == "refused"
        ran = await shop.user.ask("POST", "/v1/actions/run", {"prompt": prompt})
        assert (ran.status, ran.json["status"]) == (200, "refused")


async def test_a_prompt_is_in_the_audit_with_how_it_was_put_and_understood(shop: Millrace) -> None:
    await resolve(shop, "refund Adam's last invoice")
    told = (await entries(shop, "kind=action.prompted&outcome=resolved", 1))[0]
    assert told["prompt"] == "refund Adam's last invoice"
    assert "saas.refund_invoice" in told["rendered_prompt"]
    assert orjson.loads(told["response"])["params"] == {"invoice_id": "in_2"}
    assert (told["action"], told["params"]) == ("saas.refund_invoice", {"invoice_id": "in_2"})
    assert told["duration_ms"] > 0


async def test_strangers_neither_see_the_data_nor_the_registry(shop: Millrace) -> None:
    answer = await shop.stranger.ask("POST", "/v1/actions/resolve", {"prompt": "refund Adam's last invoice"})
    assert answer.json["status"] == "refused"


async def test_a_body_is_a_call_or_a_prompt(shop: Millrace) -> None:
    nul = {"prompt": "refund Adam's last invoice\x00"}
    for body in ({}, {"action": "a.b", "prompt": "x"}, {"prompt": "x", "params": {"a": 1}}, {"prompt": ""}, nul):
        assert error(await shop.user.ask("POST", "/v1/actions/run", body)) == (400, "validation_failed")
