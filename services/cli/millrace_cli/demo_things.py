"""What the demo subscribes to what: a chain, a job and a webhook, found by name where they were made before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import typer

from millrace_cli.client import Client
from millrace_cli.sink import Sink

CHAIN_IDENTIFIER = "e:github/issues"
WILDCARD = "e:github/*"
FILTER = {"repository": {"private": [True]}}
JOB, CHAIN, WEBHOOK = "demo: call an endpoint", "demo: title, words, conclusion", "demo: everything from GitHub"


@dataclass(frozen=True, slots=True)
class Things:
    """What the demo made, or found from the last time."""

    job: str
    chain: str
    webhook: str
    subscriptions: Sequence[str]


async def prepare(client: Client, sink: Sink) -> Things:
    """The job, the chain, the webhook and the subscriptions, pointed at this run's sink."""
    job = await upsert(client, "/v1/jobs", "name", {"name": JOB, "step": job_step(sink)})
    chain = await upsert(client, "/v1/chains", "name", {"name": CHAIN, "steps": chain_steps(sink)})
    webhook = await upsert(
        client, "/v1/webhooks", "description",
        {"description": WEBHOOK, "url": f"{sink.url}/hook", "events": [WILDCARD], "enabled": True},
    )  # fmt: skip
    rotated = await client.post(f"/v1/webhooks/{webhook}/rotate-secret", {"grace_s": 0})
    sink.secret = rotated["secret"]
    exact = await subscribe(client, {"pattern": CHAIN_IDENTIFIER, "target": {"type": "chain", "id": chain}})
    nested = await subscribe(client, {"pattern": WILDCARD, "filter": FILTER, "target": {"type": "job", "id": job}})
    typer.echo(f"  {CHAIN_IDENTIFIER:<18} → chain of three jobs   {chain}")
    typer.echo(f"  {WILDCARD:<18} → webhook               {webhook}")
    typer.echo(f"  {WILDCARD:<18} → job                   {job}   when {orjson.dumps(FILTER).decode()}")
    return Things(job, chain, webhook, (exact, nested))


def job_step(sink: Sink) -> dict[str, Any]:
    body = {"event": "${event.id}", "repository": "${input.repository.full_name}"}
    return {"id": "call", "type": "http", "config": {"url": f"{sink.url}/job", "body": body}}


def chain_steps(sink: Sink) -> list[dict[str, Any]]:
    """Each job takes what the one before it made."""
    title = {"repository": "${input.repository.full_name}", "title": "${input.issue.title}"}
    asked = {"event": "${event.id}", "title": "${previous.title}"}
    conclusion = {"repository": "${steps.title.repository}", "words": "${steps.words.body.words}"}
    return [
        {"id": "title", "type": "transform", "config": {"value": title}},
        {"id": "words", "type": "http", "config": {"url": f"{sink.url}/words", "body": asked}},
        {"id": "conclusion", "type": "transform", "config": {"value": conclusion}},
    ]


async def upsert(client: Client, path: str, named_by: str, wanted: Mapping[str, Any]) -> str:
    """The thing of that name, changed to what is wanted, or made."""
    async for found in client.every(path):
        if found[named_by] == wanted[named_by]:
            await client.call("PATCH", f"{path}/{found['id']}", body=orjson.dumps(wanted))
            return str(found["id"])
    return str((await client.post(path, wanted))["id"])


async def subscribe(client: Client, wanted: Mapping[str, Any]) -> str:
    """The target's subscription, switched on, or a new one."""
    async for found in client.every("/v1/subscriptions", target=wanted["target"]["id"]):
        body = orjson.dumps({"pattern": wanted["pattern"], "filter": wanted.get("filter"), "enabled": True})
        await client.call("PATCH", f"/v1/subscriptions/{found['id']}", body=body)
        return str(found["id"])
    return str((await client.post("/v1/subscriptions", wanted))["id"])


async def switch_off(client: Client, things: Things) -> None:
    """The sink goes away with this run: nothing may be left that posts to it."""
    off = orjson.dumps({"enabled": False})
    for subscription in things.subscriptions:
        await client.call("PATCH", f"/v1/subscriptions/{subscription}", body=off)
    await client.call("PATCH", f"/v1/webhooks/{things.webhook}", body=orjson.dumps({"events": [], "enabled": False}))
