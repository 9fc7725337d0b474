"""Keys that change, people whose role bounds their keys, and test keys that act on an account of their own."""

import asyncio
import secrets
from typing import Any

import pytest

from millrace_api.application.database import Database
from millrace_api.key_uses import KeyUses
from millrace_core.clock import SystemClock
from millrace_store.pool import open_pool
from millrace_web.api_keys import ApiKey
from tests.support.api_world import ApiWorld
from tests.support.user import Answer


def email() -> str:
    return f"{secrets.token_hex(4)}@people.example"


async def person(api: ApiWorld, role: str, *, key: str | None = None) -> str:
    made = await api.ask("POST", "/v1/people", {"email": email(), "name": "P", "role": role}, key=key)
    assert made.status == 201, made.body
    return str(made.data["id"])


async def key_of(api: ApiWorld, who: str | None, *scopes: str, **more: Any) -> Any:
    body = {"name": "k", "scopes": list(scopes) or ["*"], "person": who} | more
    made = await api.ask("POST", "/v1/keys", body)
    assert made.status == 201, made.body
    return made.data


async def test_a_rotated_key_is_good_twice_for_its_grace(api: ApiWorld) -> None:
    made = await key_of(api, None, "read:runs")
    turned = await api.ask("POST", f"/v1/keys/{made['id']}/rotate", {"grace_s": 3_600})
    assert turned.status == 200
    assert turned.data["key"] != made["key"]
    assert turned.data["old_until"] is not None
    for key in (made["key"], turned.data["key"]):
        assert (await api.ask("GET", "/v1/runs", key=key)).status == 200
    again = await api.ask("POST", f"/v1/keys/{made['id']}/rotate", {"grace_s": 0})
    assert (await api.ask("GET", "/v1/runs", key=made["key"])).status == 401, "two rotations ago"
    assert (await api.ask("GET", "/v1/runs", key=turned.data["key"])).status == 401, "without grace"
    assert (await api.ask("GET", "/v1/runs", key=again.data["key"])).status == 200
    await api.ask("DELETE", f"/v1/keys/{made['id']}")
    assert (await api.ask("POST", f"/v1/keys/{made['id']}/rotate")).status == 409
    assert (await api.ask_b("POST", f"/v1/keys/{made['id']}/rotate")).status == 404


async def test_a_key_is_renamed(api: ApiWorld) -> None:
    made = await key_of(api, None, "read:runs")
    assert (await api.ask("PATCH", f"/v1/keys/{made['id']}", {"name": "mine"})).data["name"] == "mine"
    assert (await api.ask_b("PATCH", f"/v1/keys/{made['id']}", {"name": "theirs"})).status == 404


async def test_when_a_key_was_last_used_is_shown(api: ApiWorld) -> None:
    made = await key_of(api, None, "manage:keys")
    assert (await api.ask("GET", f"/v1/keys/{made['id']}")).data["last_used_at"] is None
    async with open_pool(api.dsn, name="test") as pool:
        uses = KeyUses(Database(pool), SystemClock())
        uses.note(ApiKey(made["id"], api.account, "k", "", frozenset(), "free", "automation"))
        await uses.write()
    assert (await api.ask("GET", f"/v1/keys/{made['id']}")).data["last_used_at"] is not None


async def test_a_role_bounds_what_a_persons_keys_may_and_its_change_holds_at_once(api: ApiWorld) -> None:
    who = await person(api, "member")
    key = (await key_of(api, who))["key"]
    assert (await api.ask("GET", "/v1/runs", key=key)).status == 200
    refused = await api.ask("POST", "/v1/keys", {"name": "x", "scopes": ["read:runs"]}, key=key)
    assert (refused.status, refused.error["code"]) == (403, "FORBIDDEN")
    assert (await api.ask("PATCH", f"/v1/people/{who}", {"role": "admin"})).data["role"] == "admin"
    mine = {"name": "x", "person": who}
    assert (await api.ask("POST", "/v1/keys", {**mine, "scopes": ["read:runs"]}, key=key)).status == 201
    nobodys = {"name": "x", "scopes": ["run:actions", "confirm:actions"]}
    assert (await api.ask("POST", "/v1/keys", nobodys, key=key)).status == 403, "it would act as an owner's"
    narrow = (await key_of(api, who, "manage:keys"))["key"]
    wide = await api.ask("POST", "/v1/keys", {**mine, "scopes": ["*"]}, key=narrow)
    assert wide.status == 403, "more than the key itself has"
    assert (await api.ask("DELETE", f"/v1/people/{who}")).data == {"id": who, "deleted": True}
    assert (await api.ask("GET", "/v1/runs", key=key)).status == 401, "his keys end with him"
    assert (await api.ask("GET", f"/v1/people/{who}")).status == 404


async def test_an_admin_does_nothing_to_an_owner(api: ApiWorld) -> None:
    owner = await person(api, "owner")
    admin = (await key_of(api, await person(api, "admin")))["key"]
    owners, nobodys = await key_of(api, owner), await key_of(api, None, "run:actions")
    for method, path, body in (
        ("PATCH", f"/v1/people/{owner}", {"role": "member"}),
        ("DELETE", f"/v1/people/{owner}", None),
        ("POST", "/v1/people", {"email": email(), "role": "owner"}),
        ("POST", "/v1/keys", {"name": "x", "scopes": ["read:runs"], "person": owner}),
        ("POST", f"/v1/keys/{owners['id']}/rotate", {}),
        ("PATCH", f"/v1/keys/{owners['id']}", {"name": "mine"}),
        ("DELETE", f"/v1/keys/{owners['id']}", None),
        ("POST", f"/v1/keys/{nobodys['id']}/rotate", {}),
        ("DELETE", f"/v1/keys/{nobodys['id']}", None),
    ):
        assert (await api.ask(method, path, body, key=admin)).status == 403, path


async def test_the_last_owner_stays(api: ApiWorld) -> None:
    owner = await api.ask_b("POST", "/v1/people", {"email": email(), "role": "owner"})
    path = f"/v1/people/{owner.data['id']}"
    for method, body in (("DELETE", None), ("PATCH", {"role": "admin"})):
        refused = await api.ask_b(method, path, body)
        assert (refused.status, refused.error["code"]) == (409, "CONFLICT")
    other = await api.ask_b("POST", "/v1/people", {"email": email(), "role": "owner"})
    both = await asyncio.gather(api.ask_b("DELETE", path), api.ask_b("DELETE", f"/v1/people/{other.data['id']}"))
    assert sorted(answer.status for answer in both) == [200, 409], "one of the two is left"


async def test_an_address_is_there_once(api: ApiWorld) -> None:
    address = email()
    assert (await api.ask("POST", "/v1/people", {"email": address})).status == 201
    assert (await api.ask("POST", "/v1/people", {"email": address.upper()})).status == 409
    assert (await api.ask_b("POST", "/v1/people", {"email": address})).status == 201, "in another account"
    assert (await api.ask("POST", "/v1/people", {"email": "nobody"})).status == 400


async def test_test_keys_act_on_an_account_of_their_own(api: ApiWorld) -> None:
    test = await key_of(api, None, surface="agents", test=True)
    live = await key_of(api, None, surface="agents")
    assert (test["key"][:8], live["key"][:8]) == ("th_test_", "th_live_")
    accounts = {
        name: (await api.ask("GET", "/v1/accounts/me", key=key)).data["id"]
        for name, key in (("test", test["key"]), ("live", live["key"]))
    }
    assert accounts["live"] == api.account
    assert accounts["test"] != api.account
    job = await api.ask("POST", "/v1/jobs", JOB, key=test["key"])
    assert job.status == 201
    assert (await api.ask("GET", f"/v1/jobs/{job.data['id']}")).status == 404
    second = await key_of(api, None, surface="agents", test=True)
    assert (await api.ask("GET", f"/v1/jobs/{job.data['id']}", key=second["key"])).status == 200
    shown = [key["id"] for key in (await api.ask("GET", "/v1/keys?limit=100")).data]
    assert test["id"] in shown, "its owner sees it"
    assert (await api.ask("DELETE", f"/v1/keys/{test['id']}")).status == 200
    assert (await api.ask("GET", "/v1/accounts/me", key=test["key"])).status == 401


JOB = {"name": "j", "step": {"type": "transform", "config": {"expression": "input"}}}


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/people"])
async def test_what_is_shown_once_is_shown_again_under_its_idempotency_key_and_kept_sealed(
    api: ApiWorld, path: str
) -> None:
    body = {"name": "x", "scopes": ["read:runs"]} if path == "/v1/keys" else {"email": email()}
    once = secrets.token_hex(8)

    async def ask() -> Answer:
        return await api.ask("POST", path, body, headers={"idempotency-key": once})

    first, again = await ask(), await ask()
    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    kept = await api.value("SELECT body FROM control.idempotency_keys WHERE key = $1", once)
    assert first.body not in kept
    assert b"mr_live_" not in kept
