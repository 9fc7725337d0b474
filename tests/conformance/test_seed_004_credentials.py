"""Seed 004, "Credentials": create, list without values, delete; used by steps."""

import secrets
from typing import Any

import pytest

from millrace_core.keyring import credential_value
from millrace_core.messages import CredentialControl, decode
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld

VALUE = "xoxb-your-token"


def page(**more: Any) -> dict[str, Any]:
    """The page's body, under a name of its own."""
    return {"name": f"Slack Bot Token {secrets.token_hex(4)}", "type": "api_key", "value": VALUE} | more


async def made(api: ApiWorld, **more: Any) -> Any:
    answer = await api.ask("POST", "/v1/credentials", page(**more))
    assert answer.status == 201, answer.body
    assert VALUE.encode() not in answer.body
    return answer.data


async def on_the_log(api: ApiWorld, id: str) -> list[bytes | None]:
    key = f"credential/{api.account}/{id}".encode()
    return [one.value for one in await read_all(api.cluster, ["control"]) if one.key == key]


def call(named: str) -> dict[str, Any]:
    return {"id": "tell", "type": "http", "config": {"url": "https://slack.com/api/x", "credential": named}}


# ── Create Credential ───────────────────────────────────────────────────────────────────────────────────────────────
async def test_create_credential(api: ApiWorld) -> None:
    credential = await made(api)
    assert credential["id"].startswith("cred_")
    assert credential["type"] == "api_key"
    assert credential["placement"] == {"where": "header", "name": "X-API-Key", "prefix": ""}
    (value,) = await on_the_log(api, credential["id"])
    assert VALUE.encode() not in (value or b"")
    control = decode(value, CredentialControl)
    ring = api.seals.ring
    assert ring.open(control.secret, account=api.account, name=credential_value(credential["id"])) == VALUE


@pytest.mark.parametrize("type", ["api_key", "bearer", "basic"])
async def test_every_type(api: ApiWorld, type: str) -> None:
    assert (await made(api, type=type, value="user:password"))["type"] == type


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"type": "carrier_pigeon"}, "body.type"),
        ({"value": "short"}, "body.value"),
        ({"type": "basic", "value": "no-colon-here"}, "body.value"),
        ({"name": ""}, "body.name"),
        ({"name": "cred_x"}, "body.name"),
        ({"placement": {"name": "Host"}}, "body.placement"),
        ({"hosts": ["https://x"]}, "body.hosts"),
    ],
)
async def test_what_is_wrong_is_named_and_not_repeated(api: ApiWorld, more: dict[str, Any], where: str) -> None:
    refused = await api.ask("POST", "/v1/credentials", page(**more))
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["errors"][0]["where"] == where
    assert str(more.get("value", VALUE)).encode() not in refused.body


async def test_a_name_is_taken_once(api: ApiWorld) -> None:
    name = (await made(api))["name"]
    refused = await api.ask("POST", "/v1/credentials", page(name=name))
    assert (refused.status, refused.error["code"]) == (409, "CONFLICT")


async def test_an_idempotency_key_makes_it_once_and_keeps_no_value(api: ApiWorld) -> None:
    body, headers = page(), {"idempotency-key": secrets.token_hex(8)}
    first = await api.ask("POST", "/v1/credentials", body, headers=headers)
    again = await api.ask("POST", "/v1/credentials", body, headers=headers)
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotency-replayed"] == "true"


# ── List Credentials ────────────────────────────────────────────────────────────────────────────────────────────────
async def test_list_credentials_never_returns_values(api: ApiWorld) -> None:
    mine = [(await made(api))["id"] for _ in range(2)][::-1]
    answer = await api.ask("GET", "/v1/credentials?limit=2")
    assert [one["id"] for one in answer.data] == mine
    assert answer.json["meta"]["page"] == 1
    assert answer.json["meta"]["total"] >= 2
    assert VALUE.encode() not in answer.body
    one = await api.ask("GET", f"/v1/credentials/{mine[0]}")
    assert "value" not in one.data
    assert "sealed" not in one.body.decode()


# ── Update (native), Delete Credential ──────────────────────────────────────────────────────────────────────────────
async def test_a_value_can_be_rotated(api: ApiWorld) -> None:
    id = (await made(api, type="bearer"))["id"]
    changed = await api.ask("PATCH", f"/v1/credentials/{id}", {"value": "xoxb-another"})
    assert changed.data["version"] == 2
    assert b"xoxb-another" not in changed.body
    control = decode((await on_the_log(api, id))[-1], CredentialControl)
    assert api.seals.ring.open(control.secret, account=api.account, name=credential_value(id)) == "xoxb-another"
    null = await api.ask("PATCH", f"/v1/credentials/{id}", {"value": None})
    assert null.status == 400


async def test_delete_credential(api: ApiWorld) -> None:
    id = (await made(api))["id"]
    assert (await api.ask("DELETE", f"/v1/credentials/{id}")).status == 200
    assert (await api.ask("GET", f"/v1/credentials/{id}")).status == 404
    assert (await on_the_log(api, id))[-1] is None


@pytest.mark.parametrize("by", ["id", "name"])
async def test_deleting_what_is_in_use_says_what_uses_it(api: ApiWorld, by: str) -> None:
    credential = await made(api)
    job = (await api.ask("POST", "/v1/jobs", {"name": "tell", "step": call(credential[by])})).data
    refused = await api.ask("DELETE", f"/v1/credentials/{credential['id']}")
    assert (refused.status, refused.error["code"]) == (409, "CONFLICT")
    assert job["id"] in refused.error["message"]
    step = {"type": "transform", "config": {"value": 1}}
    assert (await api.ask("PATCH", f"/v1/jobs/{job['id']}", {"step": step})).status == 200
    assert (await api.ask("DELETE", f"/v1/credentials/{credential['id']}")).status == 200


async def test_a_workflow_uses_it_as_saved_and_as_published(api: ApiWorld) -> None:
    credential = await made(api)
    body = {"name": "tell", "nodes": [call(credential["id"])], "edges": [], "status": "published"}
    workflow = (await api.ask("POST", "/v1/workflows", body)).data
    refused = await api.ask("DELETE", f"/v1/credentials/{credential['id']}")
    assert (refused.status, workflow["id"] in refused.error["message"]) == (409, True)
    other = {"nodes": [{"id": "x", "type": "transform", "config": {"value": 1}}]}
    assert (await api.ask("PATCH", f"/v1/workflows/{workflow['id']}", other)).status == 200
    refused = await api.ask("DELETE", f"/v1/credentials/{credential['id']}")
    assert refused.status == 409, "what events start still names it"
    await api.ask("PATCH", f"/v1/workflows/{workflow['id']}", {"status": "published"})
    assert (await api.ask("DELETE", f"/v1/credentials/{credential['id']}")).status == 200
    missing = await api.ask("POST", "/v1/workflows", body)
    assert missing.error["details"]["errors"][0]["where"] == "body.nodes.0.config.credential"


async def test_a_step_names_one_that_is_there_and_the_plan_holds_no_value(api: ApiWorld) -> None:
    for named in ("Nobody's", "cred_x", "", "a\0b"):
        refused = await api.ask("POST", "/v1/jobs", {"name": "tell", "step": call(named)})
        assert refused.error["details"]["errors"][0]["where"] == "body.steps.0.config.credential", named
    credential = await made(api)
    other = await api.ask_b("POST", "/v1/jobs", {"name": "tell", "step": call(credential["id"])})
    assert other.status == 400, "another account's is none"
    await api.ask("POST", "/v1/chains", {"name": "tell", "steps": [call(credential["name"])]})
    everything = b"".join(one.value or b"" for one in await read_all(api.cluster, ["control"]))
    assert VALUE.encode() not in everything


async def test_another_account_and_a_key_without_the_scope(api: ApiWorld) -> None:
    id = (await made(api))["id"]
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"hosts": []})):
        assert (await api.ask_b(method, f"/v1/credentials/{id}", body)).status == 404
    weak = (await api.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["read:credentials"]})).data["key"]
    assert (await api.ask("GET", f"/v1/credentials/{id}", key=weak)).status == 200
    for method, path, sent in (("POST", "", page()), ("DELETE", f"/{id}", None), ("PATCH", f"/{id}", {"hosts": []})):
        assert (await api.ask(method, f"/v1/credentials{path}", sent, key=weak)).status == 403
