"""Seed 002, the intake surface: every endpoint, header, code and example of the page, under the page's headings."""

import re
import secrets
from typing import Any

import orjson
import pytest

from millrace_core import ids
from millrace_core.messages import Event, decode
from millrace_kafka.reader import read_all
from tests.support import curl
from tests.support.api_world import ApiWorld
from tests.support.user import Answer

BASE = "/api/v1"
PAGE_BASE = "https://app.iozen.ai/api/v1"
NAME_FIELD = {"name": "name", "type": "text", "required": True}


async def bot(api: ApiWorld, **more: Any) -> str:
    made = await api.ask("POST", f"{BASE}/intake-bots", {"name": "Contact", "fields": [NAME_FIELD]} | more)
    assert made.status == 201, made.body
    return str(made.data["id"])


async def submitted(api: ApiWorld, bot_id: str, name: str = "Jane Doe", **more: Any) -> Answer:
    return await api.ask("POST", f"{BASE}/intake-bots/{bot_id}/submissions", {"data": {"name": name}}, **more)


async def key_with(api: ApiWorld, *scopes: str) -> str:
    body = {"name": "scoped", "scopes": list(scopes), "surface": "intake"}
    return str((await api.ask("POST", "/v1/keys", body)).data["key"])


# ── Authentication, Response Format ────────────────────────────────────────────────────────────────────────────────
async def test_authentication_is_by_bearer_token(api: ApiWorld) -> None:
    key = await key_with(api, "read:intake-bots")
    assert key.startswith("iozen_live_")
    assert (await api.ask("GET", f"{BASE}/intake-bots", key=key)).status == 200
    for headers in ({"authorization": ""}, {"authorization": "Bearer iozen_live_unknown"}):
        refused = await api.ask("GET", f"{BASE}/intake-bots", headers=headers)
        assert (refused.status, refused.error["code"]) == (401, "unauthorized")


async def test_success_and_error_have_the_envelope(api: ApiWorld) -> None:
    good = (await api.ask("GET", f"{BASE}/intake-bots")).json
    assert good.keys() == {"success", "data"}
    assert good["success"] is True
    bad = (await api.ask("GET", f"{BASE}/intake-bots/nothing")).json
    assert bad.keys() == {"success", "error"}
    assert bad["success"] is False
    assert {"code", "message", "details"} <= bad["error"].keys()
    assert bad["error"]["code"] == "not_found"
    unknown = await api.ask("GET", f"{BASE}/nothing")
    assert (unknown.status, unknown.error["code"]) == (404, "not_found")


# ── Common Headers ──────────────────────────────────────────────────────────────────────────────────────────────────
async def test_response_headers(api: ApiWorld) -> None:
    for answer in (await api.ask("GET", f"{BASE}/intake-bots"), await api.ask("GET", f"{BASE}/intake-bots/none")):
        assert answer.headers["X-Request-Id"]
        limit, left = int(answer.headers["X-RateLimit-Limit"]), int(answer.headers["X-RateLimit-Remaining"])
        assert 0 <= left <= limit
        assert len(answer.headers["X-RateLimit-Reset"]) == 13, "Unix ms"


async def test_the_request_id_is_the_callers(api: ApiWorld) -> None:
    answer = await api.ask("GET", f"{BASE}/intake-bots/none", headers={"x-request-id": "mine-1"})
    assert answer.headers["X-Request-Id"] == answer.error["request_id"] == "mine-1"


# ── Endpoints: Intake Bots ──────────────────────────────────────────────────────────────────────────────────────────
async def test_list_and_get_intake_bots(api: ApiWorld) -> None:
    id = await bot(api, description="Who are you?")
    got = (await api.ask("GET", f"{BASE}/intake-bots/{id}")).data
    assert (got["id"], got["name"], got["status"], got["fields"]) == (id, "Contact", "published", [NAME_FIELD])
    listed = (await api.ask("GET", f"{BASE}/intake-bots")).data
    assert got in listed["items"]


async def test_bots_are_made_changed_published_and_deleted(api: ApiWorld) -> None:
    id = await bot(api, status="draft")
    draft = await submitted(api, id)
    assert (draft.status, draft.error["code"]) == (409, "conflict")
    patched = await api.ask("PATCH", f"{BASE}/intake-bots/{id}", {"status": "published", "name": "New"})
    assert (patched.data["status"], patched.data["name"]) == ("published", "New")
    assert (await submitted(api, id)).status == 201
    assert (await api.ask("DELETE", f"{BASE}/intake-bots/{id}")).data == {"id": id, "deleted": True}
    for path in (id, f"{id}/submissions"):
        assert (await api.ask("GET", f"{BASE}/intake-bots/{path}")).status == 404


async def test_what_cannot_be_a_bot_is_told(api: ApiWorld) -> None:
    for body, where in (
        ({"name": "x"}, "body.fields"),
        ({"name": "x", "fields": [{"name": "a", "type": "wish"}]}, "body.fields.0.type"),
        ({"name": "x", "fields": [{"name": "a", "type": "select"}]}, "body.fields"),
        ({"name": "x", "fields": [], "colour": "red"}, "body.colour"),
    ):
        refused = await api.ask("POST", f"{BASE}/intake-bots", body)
        assert (refused.status, refused.error["code"]) == (400, "validation_failed")
        assert refused.error["details"]["errors"][0]["where"] == where


# ── Endpoints: Submissions ──────────────────────────────────────────────────────────────────────────────────────────
async def test_create_get_and_list_submissions(api: ApiWorld) -> None:
    id = await bot(api)
    made = await submitted(api, id)
    assert made.status == 201
    assert (made.data["intake_bot_id"], made.data["data"]) == (id, {"name": "Jane Doe"})
    path = f"{BASE}/intake-bots/{id}/submissions"
    assert (await api.ask("GET", f"{path}/{made.data['id']}")).data == made.data
    assert (await api.ask("GET", path)).data == {"items": [made.data], "next_cursor": None, "has_more": False}
    other = await bot(api)
    assert (await api.ask("GET", f"{BASE}/intake-bots/{other}/submissions/{made.data['id']}")).status == 404


async def test_a_submission_is_checked_against_the_bots_fields(api: ApiWorld) -> None:
    id = await bot(api, fields=[NAME_FIELD, {"name": "email", "type": "email"}])
    body = {"data": {"email": "x", "more": 1}}
    refused = await api.ask("POST", f"{BASE}/intake-bots/{id}/submissions", body)
    assert (refused.status, refused.error["code"]) == (400, "validation_failed")
    assert refused.error["details"]["errors"] == [
        {"where": "body.data.name", "problem": "is required"},
        {"where": "body.data.email", "problem": "must be an email address"},
        {"where": "body.data.more", "problem": "is not a field of this form"},
    ]


async def test_each_submission_is_an_event(api: ApiWorld) -> None:
    id = await bot(api)
    made = await submitted(api, id)
    position = made.headers["X-Millrace-Position"]
    assert re.fullmatch(r"events:\d+:\d+", position)
    told_at = "SELECT told_at FROM control.submissions WHERE id = $1"
    assert await api.value(told_at, ids.uuid_of(made.data["id"])) is not None
    records = await read_all(api.cluster, ["events"])
    (event,) = [decode(r.value, Event) for r in records if f"events:{r.partition}:{r.offset}" == position]
    assert (event.identifier, event.account) == ("e:forms/submission.created", api.account)
    assert (
        orjson.loads(bytes(event.properties)).items() >= {"id": made.data["id"], "data": {"name": "Jane Doe"}}.items()
    )


# ── Endpoints: Webhooks ─────────────────────────────────────────────────────────────────────────────────────────────
async def test_webhooks_are_registered_listed_shown_and_deleted(api: ApiWorld) -> None:
    body = {"url": "https://example.com/hook", "events": ["submission.created"], "description": "mine"}
    made = await api.ask("POST", f"{BASE}/webhooks", body)
    assert made.status == 201
    assert made.data["secret"].startswith("whsec_")
    assert (made.data["url"], made.data["events"], made.data["description"]) == tuple(body.values())
    shown = {name: value for name, value in made.data.items() if name != "secret"}
    path = f"{BASE}/webhooks/{made.data['id']}"
    assert (await api.ask("GET", path)).data == shown, "the secret is shown once"
    assert shown in (await api.ask("GET", f"{BASE}/webhooks")).data["items"]
    assert (await api.ask("DELETE", path)).data == {"id": made.data["id"], "deleted": True}
    assert (await api.ask("GET", path)).status == 404


async def test_a_webhook_needs_an_address_and_known_events(api: ApiWorld) -> None:
    for body in (
        {"events": ["submission.created"]},
        {"url": "https://example.com", "events": []},
        {"url": "https://example.com", "events": ["submission.creatd"]},
        {"url": "http://10.0.0.1/", "events": ["submission.created"]},
    ):
        refused = await api.ask("POST", f"{BASE}/webhooks", body)
        assert (refused.status, refused.error["code"]) == (400, "validation_failed"), body


# ── Scopes ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        ("read:intake-bots", "GET", "intake-bots"),
        ("read:intake-bots", "GET", "intake-bots/{bot}"),
        ("read:submissions", "GET", "intake-bots/{bot}/submissions"),
        ("read:submissions", "GET", "intake-bots/{bot}/submissions/{submission}"),
        ("write:intake-bots", "POST", "intake-bots/{bot}/submissions"),
        ("manage:webhooks", "GET", "webhooks"),
        ("manage:webhooks", "GET", "webhooks/{webhook}"),
        ("manage:webhooks", "POST", "webhooks"),
        ("manage:webhooks", "DELETE", "webhooks/{webhook}"),
    ],
)
async def test_each_endpoint_wants_its_scope(api: ApiWorld, scope: str, method: str, path: str) -> None:
    id = await bot(api)
    hook = {"url": "https://example.com/hook", "events": ["submission.created"]}
    named = {
        "bot": id,
        "submission": (await submitted(api, id)).data["id"],
        "webhook": (await api.ask("POST", f"{BASE}/webhooks", hook)).data["id"],
    }
    where = f"{BASE}/{path.format(**named)}"
    body = None if method != "POST" else hook if path == "webhooks" else {"data": {"name": "Jane"}}
    right, wrong = await key_with(api, scope), await key_with(api, "read:runs")
    refused = await api.ask(method, where, body, key=wrong)
    assert (refused.status, refused.error["code"]) == (403, "forbidden")
    other = await api.ask(method, where, body, key=api.key_b)
    assert other.status == 404 or "{" not in path, "what another account owns is not there"
    assert (await api.ask(method, where, body, key=right)).status in (200, 201)


# ── Pagination ──────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_lists_go_on_by_cursor(api: ApiWorld) -> None:
    id = await bot(api)
    made = [(await submitted(api, id, f"n{n}")).data["id"] for n in range(5)]
    path, seen, cursor = f"{BASE}/intake-bots/{id}/submissions?limit=2", [], ""
    while True:
        page = (await api.ask("GET", path + cursor)).data
        seen += [item["id"] for item in page["items"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        await submitted(api, id, "added meanwhile")
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made[::-1], "stable while rows are added"


async def test_the_limit_is_1_to_100_and_50_where_none_is_given(api: ApiWorld) -> None:
    id = await bot(api)
    insert = """INSERT INTO control.submissions (account, id, form, data, created_at, told_at)
        SELECT account, gen_random_uuid(), id, '{"name": "x"}', now(), now() FROM control.forms, generate_series(1, 51)
        WHERE id = $1"""
    await api.execute(insert, ids.uuid_of(id))
    path = f"{BASE}/intake-bots/{id}/submissions"
    assert len((await api.ask("GET", path)).data["items"]) == 50
    assert len((await api.ask("GET", f"{path}?limit=100")).data["items"]) == 51
    for limit in ("0", "101", "many"):
        refused = await api.ask("GET", f"{path}?limit={limit}")
        assert (refused.status, refused.error["code"]) == (400, "validation_failed")
    assert (await api.ask("GET", f"{path}?cursor=clxyz")).error["code"] == "validation_failed"


async def test_the_pages_curl_line_for_lists(api: ApiWorld) -> None:
    await bot(api)
    await bot(api)
    cursor = (await api.ask("GET", f"{BASE}/intake-bots?limit=1")).data["next_cursor"]
    line = (
        'curl "https://app.iozen.ai/api/v1/intake-bots?limit=10&cursor=clxyz..." \\\n'
        '-H "Authorization: Bearer iozen_live_your_key_here"'
    )
    replaced = {PAGE_BASE: api.url + BASE, "clxyz...": cursor, "iozen_live_your_key_here": api.key}
    answer = await curl.run(api, line, replaced=replaced)
    assert answer.status == 200
    assert answer.data["items"]


# ── Idempotency ─────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_the_pages_curl_line_for_a_submission(api: ApiWorld) -> None:
    id = await bot(api)
    line = (
        "curl -X POST https://app.iozen.ai/api/v1/intake-bots/BOT_ID/submissions \\\n"
        '-H "Authorization: Bearer iozen_live_your_key_here" \\\n'
        '-H "Content-Type: application/json" \\\n'
        '-H "Idempotency-Key: unique-request-id-12345" \\\n'
        """-d '{"data": {"name": "Jane Doe"}}'"""
    )
    key = await key_with(api, "write:intake-bots")
    replaced = {PAGE_BASE: api.url + BASE, "BOT_ID": id, "iozen_live_your_key_here": key}
    first, again = [await curl.run(api, line, replaced=replaced) for _ in range(2)]
    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len((await api.ask("GET", f"{BASE}/intake-bots/{id}/submissions")).data["items"]) == 1


async def test_another_body_under_the_key_is_a_conflict_and_the_key_is_its_senders(api: ApiWorld) -> None:
    id, headers = await bot(api), {"idempotency-key": secrets.token_hex(8)}
    first = await submitted(api, id, headers=headers)
    refused = await submitted(api, id, "John Doe", headers=headers)
    assert (refused.status, refused.error["code"]) == (409, "idempotency_conflict")
    mine = await key_with(api, "write:intake-bots")
    assert (await submitted(api, id, headers=headers, key=mine)).data["id"] != first.data["id"]


# ── Request Body Limits ─────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_body_over_1_mb_is_a_400(api: ApiWorld) -> None:
    id = await bot(api)
    raw = orjson.dumps({"data": {"name": "x" * 1_048_576}})
    refused = await api.ask("POST", f"{BASE}/intake-bots/{id}/submissions", raw=raw)
    assert (refused.status, refused.error["code"]) == (400, "validation_failed")
