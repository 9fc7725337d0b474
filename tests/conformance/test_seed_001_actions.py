"""Seed 001, "An action contract is a signed JSON declaration" and "Confirm & sign": contracts, calls, confirmations."""

import asyncio
import hashlib
import hmac
from dataclasses import replace
from typing import Any

import asyncpg
import orjson

from millrace_core import actions, ids
from tests.e2e.conftest import Millrace
from tests.support.signing import signed_headers
from tests.support.user import Answer, User
from tests.support.waiting import eventually

KB: dict[str, Any] = {
    "id": "saas.send_kb_link",
    "description": "Send a link to an article of the knowledge base",
    "surface": "admin",
    "roles": ["member"],
    "parameters": {
        "type": "object",
        "properties": {"ticket_id": {"type": "integer"}, "article": {"type": "string"}},
        "required": ["ticket_id", "article"],
    },
}
PARAMS = {"ticket_id": 5519, "article": "how-to-reset-password"}


async def register(millrace: Millrace, id: str, *, path: str | None = None, **more: Any) -> str:
    """A contract whose endpoint is a path of the sink; its secret."""
    contract = {**KB, "id": id, "endpoint": millrace.sink.url + (path or f"/{id}"), **more}
    answer = await millrace.user.ask("POST", "/v1/actions", contract)
    assert answer.status == 201, answer.body
    return str(answer.json["secret"])


async def register_again(millrace: Millrace, id: str, *, path: str) -> None:
    """The next version, which shows no secret."""
    contract = {**KB, "id": id, "endpoint": millrace.sink.url + path}
    answer = await millrace.user.ask("POST", "/v1/actions", contract)
    assert (answer.status, answer.json["secret"]) == (201, None), answer.body


async def run(user: User, id: str, params: Any = PARAMS, **headers: str) -> Answer:
    return await user.ask("POST", "/v1/actions/run", {"action": id, "params": params}, **headers)


def error(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


# ── contracts ───────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_contract_has_versions_and_its_secret_is_shown_once(millrace: Millrace) -> None:
    assert (await register(millrace, "reg.one")).startswith("as_live_")
    again = await millrace.user.ask(
        "POST", "/v1/actions", {**KB, "id": "reg.one", "endpoint": millrace.sink.url, "timeout_s": 5}
    )
    assert (again.status, again.json["version"], again.json["secret"]) == (201, 2, None)
    found = (await millrace.user.ask("GET", "/v1/actions/reg.one")).json
    assert found["contract"]["timeout_s"] == 5
    assert "secret" not in found
    listed = (await millrace.user.ask("GET", "/v1/actions/reg.one/versions?limit=1")).json
    assert ([one["version"] for one in listed["data"]], listed["has_more"]) == ([2], True)
    older = (await millrace.user.ask("GET", f"/v1/actions/reg.one/versions?cursor={listed['next_cursor']}")).json
    assert ([one["version"] for one in older["data"]], older["has_more"]) == ([1], False)
    names = [one["id"] for one in (await millrace.user.ask("GET", "/v1/actions?limit=100")).json["data"]]
    assert "reg.one" in names
    assert names == sorted(names)


async def test_a_contract_that_breaks_a_rule_is_refused_in_the_ops_envelope(millrace: Millrace) -> None:
    refused: list[dict[str, Any]] = [
        {"roles": []},
        {"endpoint": "http://169.254.169.254/"},
        {"parameters": {"$ref": "http://x/"}},
    ]
    for wrong in refused:
        answer = await millrace.user.ask(
            "POST", "/v1/actions", {**KB, "id": "reg.wrong", "endpoint": millrace.sink.url, **wrong}
        )
        assert error(answer) == (400, "validation_failed"), answer.body


async def test_a_signed_contract_is_checked_when_it_is_registered_and_before_each_run(millrace: Millrace) -> None:
    wanted = {"name": "signer", "surface": "ops", "scopes": ["*"]}
    key = await millrace.user.make("/v1/keys", wanted)
    contract = {**KB, "id": "reg.signed", "endpoint": millrace.sink.url + "/reg.signed"}
    signature = actions.sign(key["secret"], actions.canonical(contract))
    forged = {**contract, "timeout_s": 3, "signature": signature, "signed_by": key["key"]}
    assert error(await millrace.user.ask("POST", "/v1/actions", forged)) == (400, "validation_failed")
    signed = {**contract, "signature": signature, "signed_by": key["key"]}
    made = await millrace.user.ask("POST", "/v1/actions", signed)
    assert (made.status, made.json["signature"], made.json["signed_by"]) == (201, signature, key["id"])
    assert (await run(millrace.user, "reg.signed")).json["status"] == "completed"
    assert (await millrace.user.ask("POST", f"/v1/keys/{key['id']}/rotate", {"grace_s": 3_600})).status == 200
    assert (await run(millrace.user, "reg.signed")).json["status"] == "completed", "the secret before is good too"
    assert (await millrace.user.ask("POST", f"/v1/keys/{key['id']}/rotate", {"grace_s": 0})).status == 200
    assert error(await run(millrace.user, "reg.signed")) == (409, "conflict"), "signed with a secret that is over"
    await millrace.user.delete(f"/v1/keys/{key['id']}")
    assert error(await run(millrace.user, "reg.signed")) == (409, "conflict")


async def test_a_contract_that_does_not_hold_any_more_is_no_ones_trouble_but_its_own(millrace: Millrace) -> None:
    await register(millrace, "reg.broken")
    connection = await asyncpg.connect(millrace.platform.postgres)
    try:
        await connection.execute("UPDATE control.actions SET contract = '{}' WHERE name = 'reg.broken'")
    finally:
        await connection.close()
    assert error(await run(millrace.user, "reg.broken")) == (409, "conflict")
    assert (await millrace.user.ask("POST", "/v1/actions/resolve", {"prompt": "sing a song"})).status == 200


async def test_a_strangers_account_knows_nothing_of_it(millrace: Millrace) -> None:
    await register(millrace, "reg.own", confirmation={"policy": "always"})
    card = (await run(millrace.user, "reg.own")).json["confirmation"]["id"]
    for method, path in (
        ("GET", "/v1/actions/reg.own"),
        ("GET", "/v1/actions/reg.own/versions"),
        ("DELETE", "/v1/actions/reg.own"),
        ("POST", "/v1/actions/reg.own/rotate-secret"),
        ("GET", f"/v1/actions/confirmations/{card}"),
        ("POST", f"/v1/actions/confirmations/{card}/confirm"),
        ("POST", f"/v1/actions/confirmations/{card}/refuse"),
    ):
        assert error(await millrace.stranger.ask(method, path)) == (404, "not_found"), path
    assert error(await run(millrace.stranger, "reg.own")) == (404, "not_found")
    assert (await millrace.stranger.ask("GET", "/v1/actions")).json["data"] == []
    assert (await millrace.stranger.ask("GET", "/v1/actions/confirmations")).json["data"] == []


# ── POST /v1/actions/run ────────────────────────────────────────────────────────────────────────────────────────────
async def test_the_pages_call_runs_and_its_result_comes_back(millrace: Millrace) -> None:
    secret = await register(millrace, "saas.send_kb_link")
    millrace.sink.answers["/saas.send_kb_link"] = {"sent": True, "to": "ä"}
    answer = await run(millrace.user, "saas.send_kb_link")
    assert answer.status == 200
    body = answer.json
    assert (body["status"], body["result"]) == ("completed", {"sent": True, "to": "ä"})
    (arrived,) = millrace.sink.arrived["/saas.send_kb_link"]
    assert arrived.body["params"] == PARAMS
    assert arrived.headers["x-opsiq-signature"] == (
        "sha256=" + hmac.new(secret.encode(), arrived.raw, hashlib.sha256).hexdigest()
    )
    assert arrived.headers["x-opsiq-delivery-id"] == arrived.headers["x-opsiq-idempotency-key"] == body["id"]
    assert arrived.headers["x-opsiq-timestamp"].isdigit()
    listed = await millrace.user.get(f"/v1/runs/{body['id']}")
    assert (listed["status"], listed["plan_kind"], listed["plan_name"]) == ("completed", "action", "saas.send_kb_link")
    assert (await millrace.user.ask("GET", f"/v1/actions/runs/{body['id']}")).json["status"] == "completed"


async def test_a_signed_caller_runs_it_and_the_nonce_is_taken_once(millrace: Millrace) -> None:
    await register(millrace, "run.signed")
    key = await millrace.user.make("/v1/keys", {"name": "ops", "surface": "ops", "scopes": ["run:actions"]})
    body = orjson.dumps({"action": "run.signed", "params": PARAMS})
    signed = signed_headers(key["key"], key["secret"], "POST", "/v1/actions/run", body)
    headers = {"content-type": "application/json", **signed}
    url = millrace.user.api + "/v1/actions/run"
    for status in (200, 401):
        async with millrace.user.session.post(url, data=body, headers=headers) as answer:
            assert answer.status == status, await answer.read()


async def test_what_is_not_in_the_registry_cannot_be_called(millrace: Millrace) -> None:
    await register(millrace, "run.gone")
    await millrace.user.ask("DELETE", "/v1/actions/run.gone")
    for id in ("saas.invented", "run.gone", "run", "../run", "RUN.GONE"):
        assert error(await run(millrace.user, id)) == (404, "not_found"), id


async def test_parameters_that_break_the_contract_are_refused(millrace: Millrace) -> None:
    await register(millrace, "run.typed")
    for params in ({}, {"ticket_id": "5519", "article": "a"}, {**PARAMS, "extra": 1}):
        answer = await run(millrace.user, "run.typed", params)
        assert error(answer) == (400, "validation_failed"), params
    assert millrace.sink.arrived["/run.typed"] == []


async def test_an_endpoint_that_fails_for_a_while_is_asked_again_under_the_same_key(millrace: Millrace) -> None:
    await register(millrace, "run.flaky")
    millrace.sink.refuse["/run.flaky"] = 1
    answer = await run(millrace.user, "run.flaky")
    assert answer.json["status"] == "completed"
    keys = {one.headers["x-opsiq-idempotency-key"] for one in millrace.sink.arrived["/run.flaky"]}
    assert (len(millrace.sink.arrived["/run.flaky"]), len(keys)) == (2, 1)


async def test_an_endpoint_that_refuses_is_told(millrace: Millrace) -> None:
    await register(millrace, "run.refused")
    millrace.sink.gone.add("/run.refused")
    answer = await run(millrace.user, "run.refused")
    assert answer.status == 200
    assert (answer.json["status"], answer.json["error"]["code"]) == ("failed", "http_410")


async def test_a_contract_that_changes_holds_for_the_next_call(millrace: Millrace) -> None:
    await register(millrace, "run.moved", path="/run.moved.one")
    await run(millrace.user, "run.moved")
    await register_again(millrace, "run.moved", path="/run.moved.two")
    assert (await run(millrace.user, "run.moved")).json["status"] == "completed"
    places = ("/run.moved.one", "/run.moved.two")
    assert [len(millrace.sink.arrived[path]) for path in places] == [1, 1]


async def test_a_rotated_secret_signs_the_next_call(millrace: Millrace) -> None:
    await register(millrace, "run.rotated")
    rotated = (await millrace.user.ask("POST", "/v1/actions/run.rotated/rotate-secret")).json["secret"]
    assert (await run(millrace.user, "run.rotated")).json["status"] == "completed"
    (arrived,) = millrace.sink.arrived["/run.rotated"]
    assert arrived.headers["x-opsiq-signature"] == actions.sign(rotated, arrived.raw)


async def test_under_one_idempotency_key_it_is_run_once(millrace: Millrace) -> None:
    await register(millrace, "run.once")
    answers = await asyncio.gather(*[run(millrace.user, "run.once", idempotency_key="once-1") for _ in range(3)])
    assert len({answer.json["id"] for answer in answers}) == 1
    later = await run(millrace.user, "run.once", idempotency_key="once-1")
    assert later.headers["idempotency-replayed"] == "true"
    assert len(millrace.sink.arrived["/run.once"]) == 1
    other = await run(millrace.user, "run.once", {**PARAMS, "ticket_id": 1}, idempotency_key="once-1")
    assert error(other) == (409, "idempotency_conflict")


# ── confirmations ───────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_risky_action_is_run_after_a_yes_and_once(millrace: Millrace) -> None:
    await register(millrace, "ask.first", confirmation={"policy": "always", "expires_s": 60})
    asked = await run(millrace.user, "ask.first")
    assert (asked.status, asked.json["status"]) == (202, "confirmation_required")
    card = asked.json["confirmation"]
    assert (card["action"], card["params"], set(card) >= {"id", "expires_at"}) == ("ask.first", PARAMS, True)
    assert millrace.sink.arrived["/ask.first"] == []
    path = f"/v1/actions/confirmations/{card['id']}"
    assert (await millrace.user.ask("GET", path)).json["state"] == "pending"
    other = await millrace.user.ask("POST", f"{path}/confirm", {"params_hash": "0" * 64})
    assert error(other) == (409, "conflict")
    done = await millrace.user.ask("POST", f"{path}/confirm", {"params_hash": card["params_hash"]})
    assert (done.status, done.json["status"]) == (200, "completed")
    (arrived,) = millrace.sink.arrived["/ask.first"]
    assert arrived.body["params"] == PARAMS
    assert arrived.body["confirmation"]["id"] == card["id"]
    assert error(await millrace.user.ask("POST", f"{path}/confirm")) == (409, "conflict")
    assert error(await millrace.user.ask("POST", f"{path}/refuse")) == (409, "conflict")
    assert len(millrace.sink.arrived["/ask.first"]) == 1
    found = (await millrace.user.ask("GET", path)).json
    assert (found["state"], found["run"]) == ("confirmed", done.json["id"])


async def test_many_who_confirm_at_once_make_one_call(millrace: Millrace) -> None:
    await register(millrace, "ask.race", confirmation={"policy": "always"})
    card = (await run(millrace.user, "ask.race")).json["confirmation"]["id"]
    path = f"/v1/actions/confirmations/{card}/confirm"
    answers = await asyncio.gather(*[millrace.user.ask("POST", path) for _ in range(4)])
    assert {answer.json["id"] for answer in answers if answer.status == 200}
    assert len(millrace.sink.arrived["/ask.race"]) == 1


async def test_a_yes_whose_call_never_reached_the_log_is_mended_by_asking_again(millrace: Millrace) -> None:
    """As after a crash between the decision and the log: the same person asks again, also when the card's time is over
    by then, and it is one call."""
    await register(millrace, "ask.crash", confirmation={"policy": "always"})
    card = (await run(millrace.user, "ask.crash")).json["confirmation"]["id"]
    path = f"/v1/actions/confirmations/{card}"
    me = (await millrace.user.ask("GET", path)).json["requested_by"]
    decided = (
        "UPDATE control.confirmations SET state = 'confirmed', decided_by = $2, decided_role = 'owner', "
        "decided_at = now(), expires_at = now() WHERE id = $1"
    )
    connection = await asyncpg.connect(millrace.platform.postgres)
    try:
        await connection.execute(decided, ids.uuid_of(card), me)
    finally:
        await connection.close()
    assert millrace.sink.arrived["/ask.crash"] == []
    assert (await millrace.user.ask("POST", f"{path}/confirm")).json["status"] == "completed"
    assert error(await millrace.user.ask("POST", f"{path}/confirm")) == (409, "conflict")
    # One whose answer said `running`, or never came, asks under his key, and hears how it stands.
    again = await millrace.user.ask("POST", f"{path}/confirm", idempotency_key="ask.crash")
    assert (again.status, again.json["status"]) == (200, "completed")
    assert len(millrace.sink.arrived["/ask.crash"]) == 1


async def test_a_person_whose_role_is_too_low_neither_runs_nor_confirms(millrace: Millrace) -> None:
    await register(millrace, "ask.role", roles=["member"], confirmation={"policy": "always", "roles": ["owner"]})
    await register(millrace, "ask.owner", roles=["owner"])
    made = await millrace.user.ask("POST", "/v1/people", {"email": "member@example.com", "role": "member"})
    assert made.status == 201, made.body
    wanted = {"name": "hers", "scopes": ["run:actions", "confirm:actions"], "person": made.data["id"]}
    key = await millrace.user.make("/v1/keys", wanted)
    member = replace(millrace.user, key=key["key"])
    card = (await run(member, "ask.role")).json["confirmation"]["id"]
    path = f"/v1/actions/confirmations/{card}"
    assert error(await member.ask("POST", f"{path}/confirm")) == (403, "forbidden")
    assert error(await run(member, "ask.owner")) == (403, "forbidden")
    assert (await millrace.user.ask("POST", f"{path}/confirm")).json["status"] == "completed"


async def test_what_was_refused_is_not_run(millrace: Millrace) -> None:
    await register(millrace, "ask.no", confirmation={"policy": "always"})
    card = (await run(millrace.user, "ask.no")).json["confirmation"]["id"]
    path = f"/v1/actions/confirmations/{card}"
    assert (await millrace.user.ask("POST", f"{path}/refuse")).json["state"] == "refused"
    assert error(await millrace.user.ask("POST", f"{path}/confirm")) == (409, "conflict")
    assert millrace.sink.arrived["/ask.no"] == []
    listed = (await millrace.user.ask("GET", "/v1/actions/confirmations?state=refused")).json["data"]
    assert card in [one["id"] for one in listed]


async def test_a_yes_holds_for_the_contract_that_was_shown(millrace: Millrace) -> None:
    await register(millrace, "ask.changed", confirmation={"policy": "always"})
    card = (await run(millrace.user, "ask.changed")).json["confirmation"]["id"]
    await register(millrace, "ask.changed", confirmation={"policy": "always"}, path="/elsewhere")
    answer = await millrace.user.ask("POST", f"/v1/actions/confirmations/{card}/confirm")
    assert error(answer) == (409, "conflict")
    assert millrace.sink.arrived["/elsewhere"] == []


async def test_a_yes_whose_contract_changes_with_it_comes_to_nothing_and_says_so(millrace: Millrace) -> None:
    """As when the contract is registered anew between the decision and its call: by a trigger, in one transaction."""
    await register(millrace, "ask.meanwhile", confirmation={"policy": "always"})
    card = (await run(millrace.user, "ask.meanwhile")).json["confirmation"]["id"]
    path = f"/v1/actions/confirmations/{card}"
    change = """
        CREATE FUNCTION change_meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE control.actions SET digest = 'another' WHERE name = NEW.name;
            RETURN NEW;
        END $$;
        CREATE TRIGGER change AFTER UPDATE OF state ON control.confirmations
        FOR EACH ROW WHEN (NEW.name = 'ask.meanwhile') EXECUTE FUNCTION change_meanwhile();
    """
    connection = await asyncpg.connect(millrace.platform.postgres)
    try:
        await connection.execute(change)
        answer = await millrace.user.ask("POST", f"{path}/confirm", idempotency_key="ask.meanwhile")
        again = await millrace.user.ask("POST", f"{path}/confirm", idempotency_key="ask.meanwhile")
    finally:
        await connection.execute("DROP FUNCTION change_meanwhile CASCADE")
        await connection.close()
    assert (error(answer), error(again)) == ((409, "conflict"), (409, "conflict"))
    assert millrace.sink.arrived["/ask.meanwhile"] == []


async def test_a_yes_that_comes_too_late_is_none(millrace: Millrace) -> None:
    await register(millrace, "ask.late", confirmation={"policy": "always", "expires_s": 10})
    card = (await run(millrace.user, "ask.late")).json["confirmation"]["id"]
    path = f"/v1/actions/confirmations/{card}"

    async def is_late() -> bool:
        return bool((await millrace.user.ask("GET", path)).json["state"] == "expired")

    await eventually(is_late, timeout_s=20, every_s=0.5, what="the confirmation expires")
    assert error(await millrace.user.ask("POST", f"{path}/confirm")) == (409, "conflict")
    assert millrace.sink.arrived["/ask.late"] == []


async def test_only_those_the_contract_names_are_asked_about_a_condition(millrace: Millrace) -> None:
    await register(millrace, "ask.when", confirmation={"policy": "when", "when": "input.ticket_id > 6000"})
    assert (await run(millrace.user, "ask.when")).status == 200
    assert (await run(millrace.user, "ask.when", {**PARAMS, "ticket_id": 6001})).status == 202
