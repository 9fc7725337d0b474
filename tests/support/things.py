"""One of each kind of thing that an account can have, made the way its owner makes it: for tests of who may see it.

A kind is told by the path up to its name. A new route with a name in its path needs an entry in `MAKERS`, or its place
in `NOT_OF_AN_ACCOUNT`: a test says so.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from millrace_core import ids
from tests.support.api_world import ApiWorld
from tests.support.telling import tell

Maker = Callable[[ApiWorld, str], Awaitable[str]]
"""The world, and the path so far, whose names are filled in already; gives the next name."""

STEP = {"type": "transform", "config": {"value": 1}}
FIELD = {"name": "name", "type": "text", "required": True}
BODIES: Final[Mapping[str, Any]] = {
    "PATCH /v1/credentials/{id}": {"value": "another value"},
    "PATCH /v1/keys/{id}": {"name": "another"},
    "POST /api/v1/intake-bots/{id}/submissions": {"data": {"name": "x"}},
    "POST /v1/forms/{id}/submissions": {"data": {"name": "x"}},
}
"""Of routes that take no empty body; else those that change something are sent `{}`."""
NOT_OF_AN_ACCOUNT: Final = {"/v1/receipts/", "/v1/safe-fields/", "/connectors/", "/forms/"}
"""Paths whose names are the same for all, or public: a root that anyone may prove, a kind of things, a connection that
checks by itself who sends to it."""
NOT_SHOWN: Final = {"GET /v1/actions/runs/{id}"}
"""What its owner cannot read right after it was made: it is of another kind, or not over."""


def posted(path: str, body: Mapping[str, Any], *, unique: str | None = None) -> Maker:
    """Made by a POST; the member `unique` gets a name of its own."""

    async def make(api: ApiWorld, so_far: str) -> str:
        own = {} if unique is None else {unique: f"one.of-{secrets.token_hex(4)}"}
        answer = await api.ask("POST", path or so_far.rstrip("/"), {**body, **own})
        assert answer.status in {200, 201, 202}, answer.body
        made = answer.json.get("data") or answer.json
        return str((made.get("confirmation") or made)["id"])

    return make


def projected(kind: str) -> Maker:
    """Written as its service would have written it."""

    async def make(api: ApiWorld, _: str) -> str:
        return await api.projected(kind)

    return make


def told(event: str, **properties: Any) -> Maker:
    """Known from an event."""

    async def make(api: ApiWorld, _: str) -> str:
        id = f"x-{secrets.token_hex(4)}"
        await tell(api.dsn, api.account, event, {"id": id, **properties})
        return id

    return make


async def _subscription(api: ApiWorld, so_far: str) -> str:
    target = {"type": "job", "id": await MAKERS["/v1/jobs/"](api, "/v1/jobs/")}
    return await posted("/v1/subscriptions", {"pattern": "e:a/b", "target": target})(api, so_far)


async def _integration(api: ApiWorld, so_far: str) -> str:
    credential = await MAKERS["/v1/credentials/"](api, "/v1/credentials/")
    return await posted("/v1/integrations", {"provider": "slack", "credential": credential})(api, so_far)


async def _confirmation(api: ApiWorld, so_far: str) -> str:
    action = f"risky.a{secrets.token_hex(4)}"
    contract = {**_CONTRACT, "confirmation": {"policy": "always"}}
    assert (await api.ask("POST", "/v1/actions", {**contract, "id": action})).status == 201
    return await posted("/v1/actions/run", {"action": action, "params": {}})(api, so_far)


async def _audit(api: ApiWorld, _: str) -> str:
    id = ids.new_id(ids.AUDIT)
    await api.execute(
        "INSERT INTO read.audit (account, id, at, kind, actor) VALUES ($1, $2, now(), 'action.requested', 'key')",
        api.account,
        ids.uuid_of(id),
    )
    return id


async def _execution(api: ApiWorld, _: str) -> str:
    id = ids.new_id(ids.RUN)
    await api.execute(
        "INSERT INTO read.runs (id, account, status, plan_kind, created_at, input) "
        "VALUES ($1, $2, 'running', 'workflow', now(), $3)",
        ids.uuid_of(id),
        api.account,
        b"{}",
    )
    return id


async def _person(api: ApiWorld, so_far: str) -> str:
    email = f"{secrets.token_hex(6)}@example.test"
    return await posted("/v1/people", {"email": email, "role": "member"})(api, so_far)


_CONTRACT: Mapping[str, Any] = {
    "surface": "admin",
    "roles": ["member"],
    "description": "x",
    "parameters": {"type": "object", "properties": {}},
    "endpoint": "https://example.test/",
}
_HOOK = {"url": "https://example.test/"}
_FORM = {"name": "x", "fields": [FIELD]}
MAKERS: Final[Mapping[str, Maker]] = {
    "/api/v1/intake-bots/": posted("/api/v1/intake-bots", _FORM),
    "/api/v1/intake-bots/{id}/submissions/": posted("", {"data": {"name": "x"}}),
    "/api/workflows/": posted("/v1/workflows", {"name": "x", "nodes": [{"id": "a", **STEP}], "edges": []}),
    "/api/v1/webhooks/": posted("/api/v1/webhooks", {**_HOOK, "events": ["submission.created"]}),
    "/v1/actions/": posted("/v1/actions", _CONTRACT, unique="id"),
    "/v1/actions/confirmations/": _confirmation,
    "/v1/actions/runs/": projected("runs"),
    "/v1/audit/": _audit,
    "/v1/chains/": posted("/v1/chains", {"name": "x", "steps": [STEP]}),
    "/v1/connectors/": posted("/v1/connectors", {"connector": "stripe", "name": "x"}),
    "/v1/credentials/": posted("/v1/credentials", {"type": "api_key", "value": "some value"}, unique="name"),
    "/v1/customers/": told("customer.created", name="x"),
    "/v1/dead-letters/": projected("dead-letters"),
    "/v1/deliveries/": projected("deliveries"),
    "/v1/events/": projected("events"),
    "/v1/executions/": _execution,
    "/v1/forms/": posted("/v1/forms", _FORM),
    "/v1/integrations/": _integration,
    "/v1/jobs/": posted("/v1/jobs", {"name": "x", "step": STEP}),
    "/v1/keys/": posted("/v1/keys", {"name": "x", "scopes": ["read:runs"]}),
    "/v1/people/": _person,
    "/v1/replays/": projected("replays"),
    "/v1/runs/": projected("runs"),
    "/v1/subscriptions/": _subscription,
    "/v1/tickets/": told("ticket.created", subject="x"),
    "/v1/webhooks/": posted("/v1/webhooks", _HOOK),
    "/v1/workflows/": posted("/v1/workflows", {"name": "x", "nodes": [{"id": "a", **STEP}], "edges": []}),
}


def kinds_of(path: str) -> list[str]:
    """The path up to each of its names."""
    return [path[: found.start()] for found in re.finditer(r"{\w+(?::\w+)?}", path)]


async def made(api: ApiWorld, path: str) -> str:
    """The path with the names of things of account A, made for this."""
    filled = path
    for kind in kinds_of(path):
        so_far = filled[: filled.index("{")]
        id = await MAKERS[kind](api, so_far)
        filled = re.sub(r"{\w+(?::\w+)?}", lambda _, id=id: id, filled, count=1)  # type: ignore[misc]
    return filled
