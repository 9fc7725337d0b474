"""Accounts made by those who have none: by the API where it is let, by the command line always."""

import secrets
from dataclasses import fields
from typing import Any

import pytest

from millrace_api import http
from millrace_api.application.api import Api
from millrace_cli import bootstrap
from millrace_core.clock import ManualClock
from millrace_core.errors import Reject
from millrace_web.rate_limits import RateLimits
from tests.support import asgi
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually

EMAIL = "owner@example.test"


async def test_whoever_signs_up_owns_an_account_and_the_rate_is_small(api: ApiWorld) -> None:
    name = f"shop {secrets.token_hex(4)}"

    async def ask(**more: Any) -> Any:
        return await api.ask(
            "POST", "/v1/accounts", {"name": name, "email": EMAIL, **more}, headers={"authorization": ""}
        )

    made = await ask()
    assert made.status == 201, made.body
    assert (made.data["account"]["name"], made.data["account"]["plan"]) == (name, "free")
    assert (made.data["person"]["email"], made.data["person"]["role"]) == (EMAIL, "owner")
    key = made.data["key"]["key"]
    me = await api.ask("GET", "/v1/accounts/me", key=key)
    assert me.data["id"] == made.data["account"]["id"]
    (owner,) = (await api.ask("GET", "/v1/people", key=key)).data
    assert owner["id"] == made.data["person"]["id"]
    assert (await api.ask("GET", f"/v1/people/{owner['id']}")).status == 404, "another account's"

    taken = await ask()
    assert (taken.status, taken.error["code"]) == (409, "CONFLICT")
    for wrong in ({"name": f"{name} 2", "email": "nobody"}, {"name": f"{name} (test)"}):
        assert (await ask(**wrong)).status == 400
    refused = [answer for answer in [await ask() for _ in range(8)] if answer.status != 409]
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(429, "RATE_LIMITED")}
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert (await api.ask("GET", "/v1/accounts/me")).status == 200, "who has a key is not held up"


async def test_it_is_off_unless_it_is_set() -> None:
    nothing: Any = dict.fromkeys(field.name for field in fields(Api))
    rate = RateLimits(ManualClock())
    app = http.application(Api(**nothing), authenticator=None, cursors=None, open_rate=rate, version="0")  # type: ignore[arg-type]
    body = b'{"name": "shop", "email": "owner@example.test"}'
    refused = await asgi.ask(app, "POST", "/v1/accounts", body=body, headers={"content-type": "application/json"})
    assert (refused.status, refused.json["error"]["code"]) == (403, "FORBIDDEN")


async def test_the_command_line_makes_an_account_with_its_owner(api: ApiWorld) -> None:
    name = f"office {secrets.token_hex(4)}"
    made = await bootstrap.create_account(api.seals, name=name, email=EMAIL, plan="pro")

    async def is_known() -> bool:
        return (await api.ask("GET", "/v1/accounts/me", key=made.key)).status == 200

    await eventually(is_known, what="the key is in force")
    account = (await api.ask("GET", "/v1/accounts/me", key=made.key)).data
    assert (account["name"], account["plan"]) == (name, "pro")
    (owner,) = (await api.ask("GET", "/v1/people", key=made.key)).data
    assert (owner["email"], owner["role"]) == (EMAIL, "owner")
    with pytest.raises(Reject, match="already"):
        await bootstrap.create_account(api.seals, name=name, email=EMAIL, plan="pro")
