"""`millrace demo`: real input through all of a running Millrace, and proof that what came out agrees with it.

GitHub's example payloads become events; a chain listens to one identifier, a webhook to all of them, a job to those
whose nested field says so. What is expected is worked out here, from the payloads alone; what happened is read from the
read models and from what the sink received. Safe to run again: it finds its own things by their names, points them at
this run's sink, and switches them off at the end.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from millrace_cli import examples
from millrace_cli.client import Target, connect, dev_json
from millrace_cli.demo_counting import Counts, Meter, settled
from millrace_cli.demo_sending import REPEATS, Sent, send_all
from millrace_cli.demo_things import prepare, switch_off
from millrace_cli.sink import Sink, serve

METER_TOLERANCE = 0.01
METER_WAIT_S_MAX = 30.0
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison. `tolerance` is a share of what is expected."""

    what: str
    expected: int
    found: float
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        return abs(self.found - self.expected) <= self.expected * self.tolerance

    def __str__(self) -> str:
        return f"  {self.what:<44} {self.expected:>8} {self.found:>8g}   {'agrees' if self.holds else 'DIFFERS'}"


async def run(count: int) -> int:
    """Tell the story; exit code 0 when everything agrees."""
    dev = dev_json()
    payloads = await asyncio.to_thread(examples.load)
    typer.echo(f"{len(payloads)} example payloads of {len({p.name for p in payloads})} GitHub events")
    async with serve() as sink, connect(Target(dev["base_url"], dev["keys"]["automation"])) as client:
        account = (await client.call("GET", "/v1/accounts/me"))["data"]["id"]
        meter = Meter(dev["metrics"]["meter"], account)
        before = await meter.totals()
        things = await prepare(client, sink)
        try:
            sent = await send_all(dev, payloads, count)
            counts = await settled(client, things, sent)
            lines = compare(sink, sent, counts) + await metered(meter, before, counts)
        finally:
            await switch_off(client, things)
    return tell(dev, lines, sink, counts)


def compare(sink: Sink, sent: Sequence[Sent], counts: Counts) -> list[Line]:
    """What the payloads ask for, beside what the read models and the sink have."""
    chains, jobs = sum(event.starts_chain for event in sent), sum(event.starts_job for event in sent)
    return [
        Line("events in the read models", len(sent), counts.events),
        Line("repeats of a uniqueKey, counted once", min(REPEATS, len(sent)), counts.repeats),
        Line("runs of the chain, completed", chains, len(counts.chain_runs)),
        Line("  conclusions that follow from the payload", chains, counts.right_conclusions),
        Line("runs of the job, completed", jobs, counts.job_runs),
        Line("  events whose run called the endpoint", jobs, len(sink.job_calls)),
        Line("deliveries", len(sent), counts.deliveries),
        Line("  verified by standardwebhooks in the sink", len(sent), len(sink.verified)),
        Line("not completed or not succeeded", 0, counts.unfinished),
        Line("webhooks whose signature was wrong", 0, sum(sink.refused.values())),
    ]


async def metered(meter: Meter, before: Mapping[str, float], counts: Counts) -> list[Line]:
    """The meter's totals of the same time: live rates, so a little may be missing."""
    wanted = {
        "events": counts.events,
        "runs": len(counts.chain_runs) + counts.job_runs,
        "deliveries": counts.deliveries,
    }
    loop = asyncio.get_running_loop()
    deadline = loop.time() + METER_WAIT_S_MAX
    while True:
        now = await meter.totals()
        lines = [
            Line(f"meter: {what}", count, now.get(what, 0.0) - before.get(what, 0.0), METER_TOLERANCE)
            for what, count in wanted.items()
        ]
        if all(line.holds for line in lines) or loop.time() > deadline:
            return lines
        await asyncio.sleep(POLL_S)


def tell(dev: Mapping[str, Any], lines: Sequence[Line], sink: Sink, counts: Counts) -> int:
    """Print the table and where to look further; the exit code."""
    typer.echo(f"\n  {'':<44} {'expected':>8} {'found':>8}")
    for line in lines:
        typer.echo(str(line))
    for reason, count in sink.refused.items():
        typer.echo(f"  the sink refused {count} webhooks: {reason}")
    run = next(iter(counts.chain_runs), "")
    typer.echo("\nLook further:")
    typer.echo(f"  every route, to try in the browser     {dev['base_url']}/docs")
    typer.echo(f"  a run with its steps and attempts      {millrace()} runs {run}")
    typer.echo(f"  a delivery with its attempts           {millrace()} deliveries {counts.a_delivery}")
    typer.echo(f"  what comes in, as it comes in          {millrace()} tail")
    typer.echo(
        f"  the same over HTTP                     curl -H 'Authorization: Bearer {dev['keys']['automation']}' "
        f"{dev['base_url']}/v1/runs/{run}"
    )
    typer.echo(f"  the meter, as Prometheus sees it       {dev['metrics']['meter']}")
    if all(line.holds for line in lines):
        typer.echo("\nEverything that was sent is accounted for.")
        return 0
    typer.echo("\nNot everything agrees: the lines that differ say what.", err=True)
    return 1


def millrace() -> str:
    """The command as it can be typed here."""
    script = Path(sys.executable).with_name("millrace")
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)
