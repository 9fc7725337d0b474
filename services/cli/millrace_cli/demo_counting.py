"""What became of the demo's events, as the read models and the meter have it."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from millrace_cli.client import Client
from millrace_cli.demo_sending import REPEATS, Sent
from millrace_cli.demo_things import Things
from millrace_core.errors import Retry

SETTLE_S_MAX = 120.0
POLL_S = 0.5


@dataclass
class Counts:
    """What the read models hold of this run."""

    events: int = 0
    repeats: int = 0
    chain_runs: dict[str, str] = field(default_factory=dict)
    """Completed runs of the chain: run id → event id."""
    job_runs: int = 0
    deliveries: int = 0
    unfinished: int = 0
    right_conclusions: int = 0
    a_delivery: str = ""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.events, len(self.chain_runs), self.job_runs, self.deliveries


async def settled(client: Client, things: Things, sent: Sequence[Sent]) -> Counts:
    """What the read models hold once everything is over, or when two minutes are."""
    ours = {event.id: event for event in sent}
    starts_chain, starts_job = sum(s.starts_chain for s in sent), sum(s.starts_job for s in sent)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_S_MAX
    while True:
        counts = await count(client, things, ours)
        if counts.shape == (len(sent), starts_chain, starts_job, len(sent)) and not counts.unfinished:
            break
        if loop.time() > deadline:
            break
        await asyncio.sleep(POLL_S)
    for repeated in sent[:REPEATS]:
        counts.repeats += (await client.call("GET", f"/v1/events/{repeated.id}"))["data"]["repeats"]
    for run, event in counts.chain_runs.items():
        output = (await client.call("GET", f"/v1/runs/{run}"))["data"]["output"]
        counts.right_conclusions += output == ours[event].conclusion
    return counts


async def count(client: Client, things: Things, ours: Mapping[str, Sent]) -> Counts:
    """Everything of this run that is in the read models now, by paging through the lists."""
    counts = Counts()
    async for _ in _of_this_run(client, "/v1/events", ours, "id"):
        counts.events += 1
    async for run in _of_this_run(client, "/v1/runs", ours, "event", plan=things.chain):
        if run["status"] == "completed":
            counts.chain_runs[run["id"]] = run["event"]
        else:
            counts.unfinished += 1
    async for run in _of_this_run(client, "/v1/runs", ours, "event", plan=things.job):
        counts.job_runs += 1
        counts.unfinished += run["status"] != "completed"
    async for delivery in _of_this_run(client, "/v1/deliveries", ours, "event", webhook=things.webhook):
        counts.deliveries += 1
        counts.unfinished += delivery["status"] != "succeeded"
        counts.a_delivery = delivery["id"]
    return counts


async def _of_this_run(
    client: Client, path: str, ours: Mapping[str, Sent], member: str, **query: str
) -> AsyncIterator[dict[str, Any]]:
    """Items that are about our events. Lists are newest first, so a page of strangers is the end of ours."""
    strangers = 0
    async for item in client.every(path, **query):
        if item[member] in ours:
            strangers = 0
            yield item
        elif (strangers := strangers + 1) >= 100:
            return


class Meter:
    """The meter's running totals of one account, from its metrics."""

    def __init__(self, url: str, account: str) -> None:
        self._url = url
        self._account = account

    async def totals(self) -> dict[str, float]:
        """events, runs, deliveries."""
        pattern = re.compile(
            rf'^millrace_meter_counted_total\{{account="{re.escape(self._account)}",what="(\w+)"\}} (\S+)$',
            re.MULTILINE,
        )
        try:
            async with aiohttp.ClientSession() as session, session.get(self._url) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise Retry(f"the meter does not answer at {self._url}: {error}") from None
        return {what: float(value) for what, value in pattern.findall(text)}
