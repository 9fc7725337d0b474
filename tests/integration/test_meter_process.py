"""The meter as a process, on a real broker: totals agree, garbage is parked, a restart goes on."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from millrace_core.messages import Meter, Tally, decode, encode
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from tests.support.waiting import eventually

ACCOUNTS = ("acc_a", "acc_b", "acc_c")


def tallies(batches: int) -> list[Output]:
    made = []
    for n in range(batches):
        for account in ACCOUNTS:
            tally = Tally(account=account, at=0, counts=(("e:a/x", 3, 1, 2), (f"e:a/{n % 2}", 1, 0, 1)))
            made.append(Output("tallies", account.encode(), encode(tally), (("account", account.encode()),)))
    return made


@asynccontextmanager
async def meter(cluster: Cluster) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A meter process that is ready, and its ops port; ended by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "millrace_meter",
        env=os.environ | {"MILLRACE_KAFKA": cluster.bootstrap, "MILLRACE_NAMESPACE": cluster.namespace},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                lines.append(line.decode())
                said = json.loads(line) if line.startswith(b"{") else {}
                if said.get("event") == "service.ready":
                    break
        assert process.returncode is None, lines
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(drain(process.stdout, lines))
            yield process, said["ops_port"]
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 30) in (0, -signal.SIGKILL), "".join(lines[-20:])
            await draining
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def drain(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode())


async def metered(cluster: Cluster) -> Counter[tuple[str, str]]:
    """Events by account and identifier: of each window the latest record stands."""
    windows: dict[tuple[str, str, int], int] = {}
    for record in await read_all(cluster, ["meters"]):
        one = decode(record.value, Meter)
        windows[one.account, one.identifier, one.start] = one.events
    found: Counter[tuple[str, str]] = Counter()
    for (account, identifier, _), events in windows.items():
        found[account, identifier] += events
    return found


async def test_what_is_tallied_is_metered(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=3, replication=1)
    producer = PlainProducer(cluster)
    await producer.start()
    expected = Counter({(account, "e:a/x"): 60 for account in ACCOUNTS})
    for account in ACCOUNTS:
        expected |= Counter({(account, "e:a/0"): 10, (account, "e:a/1"): 10})

    async def counted() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            shown = await answer.text()
        return all(
            line in shown
            for line in (
                'millrace_meter_counted_total{account="acc_a",what="events"} 80.0',
                'millrace_meter_counted_total{account="acc_b",what="deliveries"} 60.0',
                'millrace_dead_letters_total{topic="tallies"} 1.0',
            )
        )

    async def all_there() -> bool:
        found = await metered(cluster)
        assert found == expected, found
        return True

    async def twice_as_many() -> bool:
        # Around a stop and a start Faust may miss or repeat: approximate, the documentation says.
        found = await metered(cluster)
        assert all(found[key] >= 2 * events * 0.9 for key, events in expected.items()), found
        return True

    try:
        async with meter(cluster) as (_, port):
            await producer.write([Output("tallies", b"x", b"\xff garbage", (("account", b"acc_a"),))])
            await producer.write(tallies(20))
            await eventually(counted, timeout_s=30)
            await eventually(all_there, timeout_s=60, every_s=0.5)
        letters = await read_all(cluster, ["dead-letters"])
        assert [letter.value for letter in letters] == [b"\xff garbage"]
        async with meter(cluster):
            await producer.write(tallies(20))
            await eventually(twice_as_many, timeout_s=60, every_s=0.5)
    finally:
        await producer.stop()
