"""The demo's input: GitHub's payloads as events, one by one and in batches, a few of them twice."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import orjson
import typer

from millrace_cli.client import Client, Target, connect
from millrace_cli.demo_things import CHAIN_IDENTIFIER
from millrace_cli.examples import Example
from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.errors import Retry

REPEATS = 10
SINGLES_AT_ONCE = 8
BATCH = 50


@dataclass(frozen=True, slots=True)
class Sent:
    """One event of this run, as the gateway named it, and what its payload alone says must come of it."""

    id: str
    example: Example
    body: bytes

    @property
    def starts_chain(self) -> bool:
        return f"e:github/{self.example.name}" == CHAIN_IDENTIFIER

    @property
    def starts_job(self) -> bool:
        repository = self.example.data.get("repository")
        return isinstance(repository, dict) and repository.get("private") is True

    @property
    def conclusion(self) -> dict[str, Any]:
        """What the chain must conclude."""
        data = self.example.data
        return {"repository": data["repository"]["full_name"], "words": len(data["issue"]["title"].split())}


async def send_all(dev: Mapping[str, Any], payloads: Sequence[Example], count: int) -> list[Sent]:
    """Half of them one by one, half in batches, and a few a second time with the same uniqueKey."""
    clock = SystemClock()
    began = clock.monotonic()
    token = ids.new_id("demo")
    bodies = [(example, _body(example, f"{token}-{n}")) for n, example in enumerate(islice(cycle(payloads), count))]
    async with connect(Target(dev["base_url"], dev["keys"]["ingest"])) as gateway:
        half = len(bodies) // 2
        sent = await send_singly(gateway, bodies[:half])
        for at in range(half, len(bodies), BATCH):
            sent += await send_batch(gateway, bodies[at : at + BATCH])
        for again in sent[:REPEATS]:
            await gateway.call("POST", "/ingest/event/publish", body=again.body)
    seconds = clock.monotonic() - began
    typer.echo(f"\nsent {len(sent)} events ({half} single, the rest in batches of {BATCH}) in {seconds:.1f} s")
    return sent


def _body(example: Example, unique_key: str) -> bytes:
    event_type = {"provider": "github", "name": example.name}
    return orjson.dumps(
        {"eventType": event_type, "uniqueKey": unique_key, "properties": orjson.Fragment(example.payload)}
    )


async def send_singly(gateway: Client, bodies: Sequence[tuple[Example, bytes]]) -> list[Sent]:
    room = asyncio.Semaphore(SINGLES_AT_ONCE)

    async def send(example: Example, body: bytes) -> Sent:
        async with room:
            answer = await gateway.call("POST", "/ingest/event/publish", body=body)
            return Sent(answer["eventId"], example, body)

    async with asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(send(example, body)) for example, body in bodies]
    return [task.result() for task in sending]


async def send_batch(gateway: Client, bodies: Sequence[tuple[Example, bytes]]) -> list[Sent]:
    whole = b"[" + b",".join(body for _, body in bodies) + b"]"
    answer = await gateway.call("POST", "/ingest/event/publish/batch", body=whole)
    if answer["refused"]:
        raise Retry(f"the gateway refused {answer['refused']} events of a batch: {answer['results']}")
    return [
        Sent(result["eventId"], example, body)
        for result, (example, body) in zip(answer["results"], bodies, strict=True)
    ]
