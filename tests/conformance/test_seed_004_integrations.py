"""Seed 004, "Integrations": list what is connected, test it by a real round trip."""

import secrets
from typing import Any

import pytest

from millrace_devstack.ports import free_port
from tests.support.api_world import ApiWorld
from tests.support.receiver import answers, answers_status, receiving

VALUE = "xoxb-your-token"
SLACK_OK = b'{"ok":true,"user":"bot","team":"Acme"}'


async def credential(api: ApiWorld, **more: Any) -> Any:
    body = {"name": f"token {secrets.token_hex(4)}", "type": "api_key", "value": VALUE} | more
    return (await api.ask("POST", "/v1/credentials", body)).data


async def connected(api: ApiWorld, **more: Any) -> Any:
    body = {"provider": "slack", "credential": (await credential(api))["id"]} | more
    answer = await api.ask("POST", "/v1/integrations", body)
    assert answer.status == 201, answer.body
    return answer.data


def answers_json(body: bytes, status: int = 200) -> Any:
    return answers_status(status, headers="content-type: application/json\r\n", body=body)


# ── connecting (native) ─────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_provider_is_connected_by_a_credential(api: ApiWorld) -> None:
    token = await credential(api)
    made = await connected(api, credential=token["name"])
    assert made["id"].startswith("int_")
    assert (made["provider"], made["name"], made["base_url"]) == ("slack", "Slack", "https://slack.com/api")
    assert (made["credential"], made["last_test"]) == (token["id"], None)
    assert (await api.ask("GET", f"/v1/integrations/{made['id']}")).data == made


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"provider": "fax"}, "body.provider"),
        ({"provider": "http"}, "body.base_url"),
        ({"base_url": "http://10.0.0.1/"}, "body.base_url"),
        ({"credential": "Nobody's"}, "body.credential"),
        ({"credential": "a\0b"}, "body.credential"),
        ({"name": "a\0b"}, "body.name"),
    ],
)
async def test_what_cannot_be_connected_is_named(api: ApiWorld, more: dict[str, Any], where: str) -> None:
    body = {"provider": "slack", "credential": (await credential(api))["id"]} | more
    refused = await api.ask("POST", "/v1/integrations", body)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["errors"][0]["where"] == where


async def test_a_credential_goes_to_its_hosts_only(api: ApiWorld) -> None:
    token = await credential(api, hosts=["api.github.com"])
    refused = await api.ask("POST", "/v1/integrations", {"provider": "slack", "credential": token["id"]})
    assert refused.error["details"]["errors"][0]["where"] == "body.credential"
    await connected(api, provider="github", credential=token["id"])


# ── List Connected Integrations ─────────────────────────────────────────────────────────────────────────────────────
async def test_list_connected_integrations(api: ApiWorld) -> None:
    newest = [(await connected(api))["id"] for _ in range(2)][::-1]
    answer = await api.ask("GET", "/v1/integrations?limit=2")
    assert [one["id"] for one in answer.data] == newest
    assert (answer.json["meta"]["page"], answer.json["meta"]["limit"]) == (1, 2)
    assert VALUE.encode() not in answer.body


# ── Test Integration ────────────────────────────────────────────────────────────────────────────────────────────────
async def test_test_integration_is_a_real_round_trip(api: ApiWorld) -> None:
    async with receiving(answers_json(SLACK_OK)) as receiver:
        made = await connected(api, base_url=receiver.url(""))
        answer = await api.ask("POST", f"/v1/integrations/{made['id']}/test")
        (request,) = receiver.requests
    assert answer.status == 200
    assert request.line == "POST /auth.test HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {VALUE}"
    tested = answer.data
    assert (tested["status"], tested["http_status"]) == ("succeeded", 200)
    assert tested["message"] == "connected as bot of Acme"
    assert tested["duration_ms"] > 0
    shown = (await api.ask("GET", f"/v1/integrations/{made['id']}")).data
    assert shown["last_test"] == tested


async def test_the_credential_is_used_as_it_is_now_and_repeated_by_nobody(api: ApiWorld) -> None:
    token = await credential(api)
    async with receiving(answers_json(b'{"ok":false,"error":"no such token: xoxb-another-one"}')) as receiver:
        made = await connected(api, base_url=receiver.url(""), credential=token["id"])
        await api.ask("PATCH", f"/v1/credentials/{token['id']}", {"value": "xoxb-another-one"})
        answer = await api.ask("POST", f"/v1/integrations/{made['id']}/test")
        assert receiver.requests[0].headers["authorization"] == "Bearer xoxb-another-one"
    assert answer.data["status"] == "failed"
    assert answer.data["message"] == "Slack refused it: no such token: ***"


async def test_any_http_api_is_asked_at_its_url(api: ApiWorld) -> None:
    async with receiving(answers_status(401)) as receiver:
        made = await connected(api, provider="http", base_url=receiver.url("/health?x=1"))
        answer = await api.ask("POST", f"/v1/integrations/{made['id']}/test")
        (request,) = receiver.requests
    assert request.line == "GET /health?x=1 HTTP/1.1"
    assert request.headers["x-api-key"] == VALUE
    assert (answer.data["status"], answer.data["http_status"]) == ("failed", 401)
    assert "not accepted" in answer.data["message"]


async def test_nobody_there_and_nonsense_are_failed_tests(api: ApiWorld) -> None:
    gone = await connected(api, base_url=f"http://127.0.0.1:{free_port()}")
    answer = await api.ask("POST", f"/v1/integrations/{gone['id']}/test")
    assert (answer.status, answer.data["status"], answer.data["http_status"]) == (200, "failed", None)
    assert answer.data["message"].startswith("connect_failed: ")
    async with receiving(answers(b"what?\r\n\r\n")) as receiver:
        odd = await connected(api, base_url=receiver.url(""))
        answer = await api.ask("POST", f"/v1/integrations/{odd['id']}/test")
    assert answer.data["message"].startswith("bad_response: ")


async def test_a_test_is_made_once_under_an_idempotency_key(api: ApiWorld) -> None:
    async with receiving(answers_json(SLACK_OK)) as receiver:
        made = await connected(api, base_url=receiver.url(""))
        headers = {"idempotency-key": secrets.token_hex(8)}
        first = await api.ask("POST", f"/v1/integrations/{made['id']}/test", headers=headers)
        again = await api.ask("POST", f"/v1/integrations/{made['id']}/test", headers=headers)
        assert len(receiver.requests) == 1
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")


# ── deleting ────────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_credential_in_use_says_which_integration_uses_it(api: ApiWorld) -> None:
    token = await credential(api)
    made = await connected(api, credential=token["id"])
    refused = await api.ask("DELETE", f"/v1/credentials/{token['id']}")
    assert (refused.status, made["id"] in refused.error["message"]) == (409, True)
    assert (await api.ask("DELETE", f"/v1/integrations/{made['id']}")).status == 200
    assert (await api.ask("GET", f"/v1/integrations/{made['id']}")).status == 404
    assert (await api.ask("DELETE", f"/v1/integrations/{made['id']}")).status == 404
    assert (await api.ask("DELETE", f"/v1/credentials/{token['id']}")).status == 200


async def test_another_account_and_a_key_without_the_scope(api: ApiWorld) -> None:
    made = await connected(api)
    path = f"/v1/integrations/{made['id']}"
    for method, asked in (("GET", path), ("DELETE", path), ("POST", f"{path}/test")):
        assert (await api.ask_b(method, asked)).status == 404
    body = {"provider": "slack", "credential": made["credential"]}
    assert (await api.ask_b("POST", "/v1/integrations", body)).status == 400, "another account's credential is none"
    weak = (await api.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["read:integrations"]})).data["key"]
    assert (await api.ask("GET", path, key=weak)).status == 200
    refused = (("POST", "/v1/integrations", body), ("DELETE", path, None), ("POST", f"{path}/test", None))
    for method, asked, sent in refused:
        assert (await api.ask(method, asked, sent, key=weak)).status == 403
