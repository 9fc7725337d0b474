"""Seed 001, "API surface at a glance": `GET /v1/customers/{id}`, `GET /v1/tickets`; and "what data is safe to read"."""

from typing import Any

import pytest

from tests.support.api_world import ApiWorld
from tests.support.signing import signed_headers
from tests.support.telling import tell

ADAM = {
    "id": 421,
    "name": "Adam Smith",
    "email": "adam@example.com",
    "plan": "pro",
    "password_hash": "x",
    "created_at": "2024-05-01T12:00:00Z",
}


async def told(api: ApiWorld, name: str, properties: Any) -> None:
    await tell(api.dsn, api.account, name, properties)


# ── GET /v1/customers/{id} ──────────────────────────────────────────────────────────────────────────────────────────
async def test_a_customer_is_what_events_told_of_it(api: ApiWorld) -> None:
    await told(api, "customer.signed_up", ADAM)
    await told(api, "subscription.created", {"id": "sub_1", "customer_id": 421, "plan": "pro"})
    await told(
        api, "invoice.created", {"id": "in_1", "customer": {"id": 421}, "amount": 900, "created_at": "2024-06-01"}
    )
    await told(api, "invoice.paid", {"id": "in_2", "customer_id": "421", "amount": 12.5, "created_at": "2024-07-01"})
    await told(api, "ticket.created", {"id": 5519, "subject": "No mail", "customer_id": 421})
    answer = await api.ask("GET", "/v1/customers/421")
    assert answer.status == 200
    customer = answer.json
    assert {name: customer[name] for name in ("id", "name", "email", "plan", "open_tickets")} == {
        "id": "421",
        "name": "Adam Smith",
        "email": "adam@example.com",
        "plan": "pro",
        "open_tickets": 1,
    }
    assert customer["created_at"] == "2024-05-01T12:00:00Z"
    assert "password_hash" not in customer
    (subscription,) = customer["subscriptions"]
    assert (subscription["id"], subscription["status"]) == ("sub_1", "active")
    invoice = customer["latest_invoice"]
    assert (invoice["id"], invoice["status"], invoice["amount"]) == ("in_2", "paid", 12.5)


async def test_a_signed_request_is_answered_alike(api: ApiWorld) -> None:
    await told(api, "customer.created", {"id": "signed-1", "name": "Sig"})
    wanted = {"name": "ops", "surface": "ops", "scopes": ["read:customers"]}
    key = (await api.ask("POST", "/v1/keys", wanted)).data
    headers = signed_headers(key["key"], key["secret"], "GET", "/v1/customers/signed-1")
    answer = await api.ask("GET", "/v1/customers/signed-1", headers=headers)
    assert (answer.status, answer.json["name"]) == (200, "Sig")
    assert answer.headers["x-ratelimit-limit"]


async def test_a_customer_that_is_not_there_or_anothers_is_not_found(api: ApiWorld) -> None:
    await told(api, "customer.created", {"id": "mine", "name": "Mine"})
    for answer in (await api.ask("GET", "/v1/customers/nobody"), await api.ask_b("GET", "/v1/customers/mine")):
        assert answer.status == 404
        assert answer.error["code"] == "not_found"
        assert answer.error["request_id"]


async def test_without_the_scope_nothing_is_read(api: ApiWorld) -> None:
    key = (await api.ask("POST", "/v1/keys", {"name": "n", "scopes": ["read:events"]})).data["key"]
    for path in ("/v1/customers", "/v1/customers/421", "/v1/tickets", "/v1/tickets/1", "/v1/safe-fields"):
        answer = await api.ask("GET", path, key=key)
        assert (answer.status, answer.error["code"].lower()) == (403, "forbidden"), path
    assert (await api.ask("GET", "/v1/customers/421", key="none")).status == 401


async def test_a_deleted_customer_is_gone(api: ApiWorld) -> None:
    await told(api, "customer.created", {"id": "gone", "name": "Gone"})
    await told(api, "customer.deleted", {"id": "gone"})
    assert (await api.ask("GET", "/v1/customers/gone")).status == 404
    assert (await api.ask("GET", "/v1/customers?search=Gone")).json["data"] == []


async def test_customers_are_found_by_words_of_their_name(api: ApiWorld) -> None:
    await told(api, "customer.created", {"id": "w1", "name": "Zebulon Pike"})
    await told(api, "customer.created", {"id": "w2", "name": "Zebulon Vance"})
    found = (await api.ask("GET", "/v1/customers?search=zebulon")).json
    assert ([one["id"] for one in found["data"]], found["has_more"]) == (["w2", "w1"], False)
    assert (await api.ask_b("GET", "/v1/customers?search=zebulon")).json["data"] == []


# ── GET /v1/tickets ─────────────────────────────────────────────────────────────────────────────────────────────────
async def test_tickets_are_listed_by_filters_and_in_pages(api: ApiWorld) -> None:
    for n in range(5):
        ticket = {"id": f"t{n}", "subject": f"Page {n}", "customer_id": "pager", "created_at": f"2025-01-0{n + 1}"}
        await told(api, "ticket.created", ticket | {"priority": "high" if n % 2 else "low"})
    await told(api, "ticket.closed", {"id": "t0", "assignee": "eve"})

    async def listed(query: str) -> list[str]:
        answer = await api.ask("GET", f"/v1/tickets?customer=pager&{query}")
        assert answer.status == 200, answer.body
        return [one["id"] for one in answer.json["data"]]

    assert await listed("") == ["t4", "t3", "t2", "t1", "t0"]
    assert await listed("status=closed") == ["t0"]
    assert await listed("priority=high") == ["t3", "t1"]
    assert await listed("assignee=eve") == ["t0"]
    assert await listed("search=page+3") == ["t3"]
    assert await listed("created_from=2025-01-02&created_to=2025-01-04T00:00:00Z") == ["t2", "t1"]
    assert await listed("updated_from=2020-01-01T00:00:00Z&updated_to=2020-01-02T00:00:00Z") == []
    seen, query = [], "/v1/tickets?customer=pager&limit=2"
    page = (await api.ask("GET", query)).json
    while True:
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        page = (await api.ask("GET", f"{query}&cursor={page['next_cursor']}")).json
    assert seen == ["t4", "t3", "t2", "t1", "t0"]
    assert page["next_cursor"] is None


async def test_one_ticket_is_read(api: ApiWorld) -> None:
    await told(api, "ticket.created", {"ticket": {"id": 5520, "subject": "One", "body": "free text"}})
    ticket = (await api.ask("GET", "/v1/tickets/5520")).json
    assert (ticket["subject"], ticket["status"]) == ("One", "open")
    assert "body" not in ticket


@pytest.mark.parametrize(
    "query", ["status=%00", "limit=0", "limit=101", "cursor=x", "created_from=never", "search=%00", "customer=%00"]
)
async def test_what_cannot_be_asked_is_refused(api: ApiWorld, query: str) -> None:
    answer = await api.ask("GET", f"/v1/tickets?{query}")
    assert (answer.status, answer.error["code"]) == (400, "validation_failed")


@pytest.mark.parametrize("path", ["/v1/customers/%00", "/v1/tickets/%00", f"/v1/customers/{'x' * 257}"])
async def test_what_is_no_id_is_refused(api: ApiWorld, path: str) -> None:
    assert (await api.ask("GET", path)).status == 400


# ── what data is safe to read ───────────────────────────────────────────────────────────────────────────────────────
async def test_an_account_says_what_may_be_read(api: ApiWorld) -> None:
    await told(api, "customer.created", {"id": "safe", "name": "S", "mrr": 12, "email": "s@example.com"})
    shown = (await api.ask("GET", "/v1/safe-fields")).data
    assert {one["kind"]: one["is_default"] for one in shown}["customer"] is True
    await api.ask("PUT", "/v1/safe-fields/customer", {"fields": ["mrr", "name"]})
    customer = (await api.ask("GET", "/v1/customers/safe")).json
    assert (customer["mrr"], customer["name"]) == (12, "S")
    assert "email" not in customer
    await api.ask("DELETE", "/v1/safe-fields/customer")
    assert "mrr" not in (await api.ask("GET", "/v1/customers/safe")).json
    for body in ({"fields": ["a", "a"]}, {"fields": ["$x"]}, {"fields": "a"}, {}):
        assert (await api.ask("PUT", "/v1/safe-fields/customer", body)).status == 400
    assert (await api.ask("PUT", "/v1/safe-fields/order", {"fields": []})).status == 400
