"""Keys, subscriptions, jobs, chains and webhooks through HTTP, on real Kafka and Postgres."""

from typing import Any

import pytest

from millrace_core.credentials import key_digest
from millrace_core.keyring import endpoint_secret
from millrace_core.messages import FlowControl, SubscriptionControl, decode
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld

HTTP_STEP: dict[str, Any] = {
    "type": "http",
    "config": {"url": "http://127.0.0.1:9/x", "body": {"id": "${input.id}"}},
}


async def make_job(api: ApiWorld, **more: Any) -> Any:
    return (await api.ask("POST", "/v1/jobs", {"name": "call", "step": HTTP_STEP, **more})).data


async def control_values(api: ApiWorld, kind: str, id: str) -> list[bytes | None]:
    """Every version of an aggregate on the log, oldest first."""
    key = f"{kind}/{api.account}/{id}".encode()
    return [record.value for record in await read_all(api.cluster, ["control"]) if record.key == key]


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_key_is_shown_once_works_at_once_and_never_after_its_end(api: ApiWorld) -> None:
    made = (await api.ask("POST", "/v1/keys", {"name": "mine", "scopes": ["read:runs"]})).data
    assert made["key"].startswith("mr_live_")
    assert (await api.ask("GET", "/v1/runs", key=made["key"])).status == 200
    assert "key" not in (await api.ask("GET", f"/v1/keys/{made['id']}")).data
    listed = (await api.ask("GET", "/v1/keys?limit=100")).body
    assert made["key"].encode() not in listed
    assert made["hint"].encode() in listed

    ended = await api.ask("DELETE", f"/v1/keys/{made['id']}")
    assert ended.data["revoked_at"] is not None
    refused = await api.ask("GET", "/v1/runs", key=made["key"])
    assert refused.status == 401
    assert refused.error["code"] == "UNAUTHORIZED"
    again = await api.ask("DELETE", f"/v1/keys/{made['id']}")
    assert again.data["revoked_at"] == ended.data["revoked_at"]


async def test_no_key_is_stored_in_the_clear(api: ApiWorld) -> None:
    made = (await api.ask("POST", "/v1/keys", {"name": "ops", "scopes": ["*"], "surface": "ops"})).data
    assert made["secret"].startswith("os_live_")
    on_the_log = b"".join(value or b"" for value in await control_values(api, "key", made["id"]))
    assert key_digest(made["key"], pepper=api.seals.pepper).encode() in on_the_log
    for text in (made["key"], made["secret"]):
        assert text.encode() not in on_the_log


async def test_a_key_cannot_hand_on_what_it_has_not(api: ApiWorld) -> None:
    weak = (await api.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["manage:keys", "read:runs"]})).data["key"]
    refused = await api.ask("POST", "/v1/keys", {"name": "strong", "scopes": ["manage:jobs"]}, key=weak)
    assert (refused.status, refused.error["code"]) == (403, "FORBIDDEN")
    assert (await api.ask("POST", "/v1/keys", {"name": "same", "scopes": ["read:runs"]}, key=weak)).status == 201


async def test_a_key_without_the_scope_gets_403_that_names_it(api: ApiWorld) -> None:
    weak = (await api.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["read:runs"]})).data["key"]
    refused = await api.ask("GET", "/v1/jobs", key=weak)
    assert refused.status == 403
    assert refused.error["details"] == {"scope": "read:jobs"}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"name": "", "scopes": ["*"]}, "body.name"),
        ({"name": "x", "scopes": []}, "body.scopes"),
        ({"name": "x", "scopes": ["fly"]}, "body.scopes.0"),
        ({"name": "x", "scopes": ["*"], "expires_at": "2001-01-01T00:00:00Z"}, "body.expires_at"),
        ({"name": "x", "scopes": ["*"], "surface": "moon"}, "body.surface"),
        ({"name": "x", "scopes": ["*"], "test": True}, "body.test"),
        ({"name": "a\u0000b", "scopes": ["*"]}, "body.name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_key_request_says_where(api: ApiWorld, body: Any, where: str) -> None:
    refused = await api.ask("POST", "/v1/keys", body)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert [wrong["where"] for wrong in refused.error["details"]["errors"]] == [where]


# ── jobs and chains ─────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_job_lives(api: ApiWorld) -> None:
    job = await make_job(api)
    assert (job["kind"], job["version"], job["steps"][0]["config"]) == ("job", 1, HTTP_STEP["config"])
    changed = (await api.ask("PATCH", f"/v1/jobs/{job['id']}", {"name": "other"})).data
    assert (changed["name"], changed["version"], changed["steps"]) == ("other", 2, job["steps"])
    assert (await api.ask("GET", f"/v1/jobs/{job['id']}")).data == changed
    assert (await api.ask("DELETE", f"/v1/jobs/{job['id']}")).data == {"id": job["id"], "deleted": True}
    assert (await api.ask("GET", f"/v1/jobs/{job['id']}")).status == 404
    values = await control_values(api, "plan", job["id"])
    assert [value is None for value in values] == [False, False, True]


async def test_a_chain_is_a_line_of_steps(api: ApiWorld) -> None:
    steps = [
        {"id": "first", "type": "transform", "config": {"value": {"n": "${input.n}"}}},
        {"id": "second", "type": "transform", "config": {"expression": "previous.n + 1"}},
    ]
    chain = (await api.ask("POST", "/v1/chains", {"name": "count", "steps": steps, "timeout_s": 60})).data
    assert [step["id"] for step in chain["steps"]] == ["first", "second"]
    assert chain["timeout_s"] == 60
    assert (await api.ask("GET", f"/v1/jobs/{chain['id']}")).status == 404
    cleared = (await api.ask("PATCH", f"/v1/chains/{chain['id']}", {"timeout_s": None})).data
    assert cleared["timeout_s"] is None


@pytest.mark.parametrize(
    ("step", "where"),
    [
        ({"type": "http", "config": {}}, "body.steps"),
        ({"type": "http", "config": {"url": "http://10.0.0.1/"}}, "body.steps.0.config.url"),
        ({"type": "transform", "config": {"expression": "input.("}}, "body.steps.0.config"),
        ({"type": "http", "config": {"url": "https://x.test", "body": {"a": "${input.(}"}}}, "body.steps.0.config"),
        ({"type": "rocket", "config": {}}, "body.step.type"),
        ({"type": "http", "config": {"url": "https://x.test"}, "timeout_s": 1e9}, "body.step.timeout_s"),
        ({"type": "http", "config": {"url": "https://x.test"}, "retry": {"attempts": 99}}, "body.step.retry.attempts"),
    ],
    ids=str,
)
async def test_a_wrong_step_says_where(api: ApiWorld, step: Any, where: str) -> None:
    refused = await api.ask("POST", "/v1/jobs", {"name": "x", "step": step})
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR"), refused.body
    assert [wrong["where"] for wrong in refused.error["details"]["errors"]] == [where]


# ── subscriptions ───────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_subscription_lives(api: ApiWorld) -> None:
    job = await make_job(api)
    wanted = {
        "pattern": "e:github/*",
        "filter": {"pull_request": {"merged": [True]}},
        "where": "input.number > 3",
        "target": {"type": "job", "id": job["id"]},
    }
    made = await api.ask("POST", "/v1/subscriptions", wanted)
    assert made.status == 201
    assert made.headers["x-millrace-position"].startswith("control:0:")
    id = made.data["id"]
    assert {name: made.data[name] for name in wanted} == wanted
    changed = (await api.ask("PATCH", f"/v1/subscriptions/{id}", {"filter": None, "enabled": False})).data
    assert (changed["filter"], changed["where"], changed["enabled"], changed["version"]) == (
        None, "input.number > 3", False, 2,
    )  # fmt: skip
    found = (await api.ask("GET", f"/v1/subscriptions?target={job['id']}")).data
    assert [subscription["id"] for subscription in found] == [id]
    assert (await api.ask("DELETE", f"/v1/jobs/{job['id']}")).error["code"] == "CONFLICT"
    assert (await api.ask("DELETE", f"/v1/subscriptions/{id}")).status == 200
    assert (await api.ask("DELETE", f"/v1/subscriptions/{id}")).status == 404
    assert (await api.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 200
    assert [value is None for value in await control_values(api, "subscription", id)] == [False, False, True]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"pattern": "github/push"}, "body.pattern"),
        ({"filter": {"a": "no list"}}, "body.filter"),
        ({"filter": {"a": [{"numerc": [">", 1]}]}}, "body.filter"),
        ({"where": "input.("}, "body.where"),
        ({"where": "1 + 1"}, "body.where"),
        ({"target": {"type": "job", "id": "job_" + "0" * 32}}, "body.target.id"),
        ({"target": {"type": "chain", "id": "nonsense"}}, "body.target.id"),
        ({"priority": -1}, "body.priority"),
        ({"priority": "1"}, "body.priority"),
        ({"colour": "red"}, "body.colour"),
    ],
    ids=str,
)
async def test_a_wrong_subscription_says_where(api: ApiWorld, change: Any, where: str) -> None:
    job = await make_job(api)
    wanted = {"pattern": "e:a/b", "target": {"type": "job", "id": job["id"]}} | change
    refused = await api.ask("POST", "/v1/subscriptions", wanted)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR"), refused.body
    assert [wrong["where"] for wrong in refused.error["details"]["errors"]] == [where]


async def test_a_flow_lives_and_its_end_is_told(api: ApiWorld) -> None:
    job = await make_job(api)
    wanted = {"pattern": "e:shop/*", "target": {"type": "job", "id": job["id"]}}
    plain = (await api.ask("POST", "/v1/subscriptions", wanted)).data
    assert plain["flow"] is None
    flow = {"key": "input.id", "throttle": {"limit": 3, "period_s": 60}, "cancel_on": {"pattern": "e:shop/gone"}}
    made = (await api.ask("POST", "/v1/subscriptions", {**wanted, "flow": flow})).data
    assert made["flow"]["throttle"] == {"limit": 3, "period_s": 60.0}
    assert (await api.ask("GET", f"/v1/subscriptions/{made['id']}")).data["flow"] == made["flow"]
    kept = (await api.ask("PATCH", f"/v1/subscriptions/{made['id']}", {"priority": 5})).data
    assert kept["flow"] == made["flow"], "a change of something else leaves it"
    changed = (await api.ask("PATCH", f"/v1/subscriptions/{made['id']}", {"flow": {"drain": True}})).data
    assert changed["flow"] == {"drain": True}
    ended = (await api.ask("PATCH", f"/v1/subscriptions/{made['id']}", {"flow": None})).data
    assert ended["flow"] is None
    on_the_log = await control_values(api, "subscription", made["id"])
    flows = [decode(value, SubscriptionControl).flow for value in on_the_log]
    assert flows[-2:] == [FlowControl(drain=True), FlowControl()], "those that wait must hear that there is none"
    (of_plain,) = await control_values(api, "subscription", plain["id"])
    assert b'"flow"' not in (of_plain or b"")


async def test_a_target_of_another_account_is_no_target(api: ApiWorld) -> None:
    job = await make_job(api)
    wanted = {"pattern": "e:a/b", "target": {"type": "job", "id": job["id"]}}
    refused = await api.ask_b("POST", "/v1/subscriptions", wanted)
    assert refused.status == 400
    assert refused.error["details"]["errors"][0]["where"] == "body.target.id"


async def test_pages_hold_each_subscription_once(api: ApiWorld) -> None:
    job = await make_job(api)
    made = []
    for n in range(5):
        wanted = {"pattern": f"e:page/n{n}", "target": {"type": "job", "id": job["id"]}}
        made.append((await api.ask("POST", "/v1/subscriptions", wanted)).data["id"])
    seen: list[str] = []
    path = f"/v1/subscriptions?target={job['id']}&limit=2"
    page = (await api.ask("GET", path)).json
    while True:
        seen += [item["id"] for item in page["data"]]
        assert page["meta"]["has_more"] == (page["meta"]["next_cursor"] is not None)
        if not page["meta"]["has_more"]:
            break
        page = (await api.ask("GET", f"{path}&cursor={page['meta']['next_cursor']}")).json
    assert seen == made[::-1]


async def test_a_cursor_serves_one_account_and_one_list_only(api: ApiWorld) -> None:
    for n in range(2):
        await make_job(api, name=f"j{n}")
    cursor = (await api.ask("GET", "/v1/jobs?limit=1")).json["meta"]["next_cursor"]
    assert (await api.ask("GET", f"/v1/jobs?limit=1&cursor={cursor}")).status == 200
    assert (await api.ask_b("GET", f"/v1/jobs?limit=1&cursor={cursor}")).status == 400
    assert (await api.ask("GET", f"/v1/chains?limit=1&cursor={cursor}")).status == 400
    assert (await api.ask("GET", "/v1/jobs?cursor=made-up")).status == 400


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5"])
async def test_a_limit_out_of_range_is_an_error(api: ApiWorld, limit: str) -> None:
    refused = await api.ask("GET", f"/v1/jobs?limit={limit}")
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")


# ── webhooks ────────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_a_webhook_listens_by_subscriptions_of_its_own(api: ApiWorld) -> None:
    made = await api.ask("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9/hook", "events": ["e:a/*", "e:b/c"]})
    assert made.status == 201
    webhook = made.data
    assert webhook["secret"].startswith("whsec_")

    def by_pattern(subscriptions: list[Any]) -> dict[str, str]:
        return {s["pattern"]: s["id"] for s in subscriptions if s["managed_by"] == webhook["id"]}

    path = f"/v1/subscriptions?target={webhook['id']}"
    first = by_pattern((await api.ask("GET", path)).data)
    assert set(first) == {"e:a/*", "e:b/c"}
    refused = await api.ask("DELETE", f"/v1/subscriptions/{first['e:a/*']}")
    assert refused.error["code"] == "CONFLICT"
    changed = (await api.ask("PATCH", f"/v1/webhooks/{webhook['id']}", {"events": ["e:b/c", "e:d/e"]})).data
    assert changed["events"] == ["e:b/c", "e:d/e"]
    second = by_pattern((await api.ask("GET", path)).data)
    assert set(second) == {"e:b/c", "e:d/e"}
    assert second["e:b/c"] == first["e:b/c"], "what stays keeps its subscription"
    assert (await api.ask("DELETE", f"/v1/webhooks/{webhook['id']}")).status == 200
    assert (await api.ask("GET", f"/v1/subscriptions/{second['e:b/c']}")).status == 404
    assert (await control_values(api, "subscription", second["e:b/c"]))[-1] is None
    assert (await control_values(api, "endpoint", webhook["id"]))[-1] is None


async def test_a_secret_is_sealed_for_its_endpoint_and_shown_once(api: ApiWorld) -> None:
    given = "your-webhook-secret"
    webhook = (await api.ask("POST", "/v1/webhooks", {"url": "https://example.test/", "secret": given})).data
    assert webhook["secret"] == given
    assert "secret" not in (await api.ask("GET", f"/v1/webhooks/{webhook['id']}")).data
    value = (await control_values(api, "endpoint", webhook["id"]))[-1] or b""
    assert given.encode() not in value
    assert unsealed(api, webhook["id"], value) == [given]

    rotated = (await api.ask("POST", f"/v1/webhooks/{webhook['id']}/rotate-secret")).data
    assert rotated["secret"] != given
    value = (await control_values(api, "endpoint", webhook["id"]))[-1] or b""
    assert unsealed(api, webhook["id"], value) == [rotated["secret"], given]


def unsealed(api: ApiWorld, id: str, value: bytes) -> list[str]:
    import msgspec

    from millrace_core.messages import EndpointControl

    control = msgspec.json.decode(value, type=EndpointControl)
    return [api.seals.ring.open(sealed, account=api.account, name=endpoint_secret(id)) for sealed in control.secrets]


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/", "http://169.254.169.254/", "http://[::ffff:10.0.0.1]/", "http://127.1/",
        "http://2130706433/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "ftp://example.test/",
        "http://user:pw@example.test/", "https:///x", "http://exa mple.test/",
    ],
)  # fmt: skip
async def test_an_address_that_may_not_be_sent_to_is_refused_when_saved(api: ApiWorld, url: str) -> None:
    refused = await api.ask("POST", "/v1/webhooks", {"url": url})
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["errors"][0]["where"] == "body.url"


async def test_a_name_is_not_resolved_when_saved(api: ApiWorld) -> None:
    made = await api.ask("POST", "/v1/webhooks", {"url": "https://no-such-host.invalid/hook"})
    assert made.status == 201


# ── the account ─────────────────────────────────────────────────────────────────────────────────────────────────────
async def test_an_account_sees_itself_and_may_give_up_order(api: ApiWorld) -> None:
    me = (await api.ask("GET", "/v1/accounts/me")).data
    assert (me["id"], me["name"], me["plan"]) == (api.account, "a", "enterprise")
    changed = (await api.ask("PATCH", "/v1/accounts/me", {"unordered": ["e:hot/one"]})).data
    assert changed["unordered"] == ["e:hot/one"]
    assert (await api.ask("PATCH", "/v1/accounts/me", {"unordered": ["hot"]})).status == 400
