"""Runs on a real broker: started, tried again through real timers, ended, each exactly once whatever dies between."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from random import Random

import pytest

from millrace_core.messages import RunEnded, RunFact, StartRun, Step, decode, encode
from millrace_core.plans import RetryPolicy
from millrace_core.record import ACCOUNT, ID, SOURCE, Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader, read_all
from tests.support.plans import chain, job, node, start
from tests.support.run_worlds import answer, straight, timeless
from tests.support.task_services import Life, living, orchestrating, scheduling
from tests.support.waiting import eventually

SEED, FAILURES = 7, 4
RETRIED = chain(*(node(id, retry=RetryPolicy(attempts=3, initial_s=0.05, max_s=0.2)) for id in "abc"))


@pytest.fixture
async def log(cluster: Cluster) -> AsyncIterator[PlainProducer]:
    await create_topics(cluster, partitions=2)
    producer = PlainProducer(cluster)
    await producer.start()
    yield producer
    await producer.stop()


def started(one: StartRun, n: int) -> Output:
    headers = ((ACCOUNT, one.account.encode()), (ID, one.run.encode()), (SOURCE, b"events:0:%d" % n))
    return Output("run-commands", one.run.encode(), encode(one), headers)


async def facts(cluster: Cluster) -> dict[str, list[RunFact]]:
    found: dict[str, list[RunFact]] = defaultdict(list)
    for record in await read_all(cluster, ["run-facts"]):
        fact: RunFact = decode(record.value, RunFact)  # type: ignore[arg-type]
        found[fact.run].append(fact)
    return found


async def ended(cluster: Cluster, runs: int) -> dict[str, list[RunFact]]:
    async def all_ended() -> dict[str, list[RunFact]]:
        found = await facts(cluster)
        ends = {run for run, of in found.items() if any(isinstance(fact, RunEnded) for fact in of)}
        assert len(ends) == runs, f"{len(ends)} of {runs} ended"
        return found

    return await eventually(all_ended, timeout_s=40, every_s=0.1)


async def execute(cluster: Cluster, log: PlainProducer, stop: asyncio.Event, *, repeats: int = 1) -> None:
    """An executor: answers every step on the log, each `repeats` times, as one that crashed before its commit would."""
    async with Reader(cluster) as reader:
        reader.assign(await reader.starts(await reader.partitions(["steps"])))
        while not stop.is_set():
            for record in await reader.poll(timeout_s=0.1):
                result = answer(decode(record.value, Step), seed=SEED, failures=FAILURES)
                headers = ((ACCOUNT, result.account.encode()), (ID, result.run.encode()))
                await log.write([Output("step-results", result.run.encode(), encode(result), headers)] * repeats)


async def test_a_started_run_asks_for_its_step(cluster: Cluster, log: PlainProducer) -> None:
    async with living(orchestrating(cluster)) as life:
        await log.write([started(start(job()), 1)])

        async def asked() -> list[Step]:
            return [decode(record.value, Step) for record in await read_all(cluster, ["steps"])]

        (step,) = await eventually(asked, timeout_s=20, every_s=0.1)
        assert step.run == start(job()).run

        async def is_ready() -> bool:  # the other partition too
            return life.made.ready() is None

        await eventually(is_ready, timeout_s=20)


async def test_runs_end_once_though_everything_comes_twice_and_the_services_die(
    cluster: Cluster, log: PlainProducer
) -> None:
    count, chance, stop = 30, Random(SEED), asyncio.Event()
    starts = [start(RETRIED, n=n) for n in range(count)]
    async with asyncio.TaskGroup() as group:
        group.create_task(execute(cluster, log, stop, repeats=2))
        lives = [Life(orchestrating(cluster)), Life(scheduling(cluster))]
        for n, one in enumerate(starts):
            await log.write([started(one, n)] * 2)
        for _ in range(4):
            n = chance.randrange(2)
            already = len(await facts(cluster))
            await lives[n].ready()
            await lives[n].kill()
            lives[n] = Life((orchestrating, scheduling)[n](cluster))
            await log.write([started(one, at) for at, one in enumerate(starts[: already + 1])])
        found = await ended(cluster, count)
        stop.set()
        for life in lives:
            await life.stop()
    for n, one in enumerate(starts):
        assert timeless(found[one.run]) == timeless(straight(RETRIED, seed=SEED, failures=FAILURES, n=n))
    steps = [decode(record.value, Step).key for record in await read_all(cluster, ["steps"])]
    assert len(set(steps)) == len(steps)
    assert await facts(cluster) == found


async def test_garbage_on_every_input_is_parked_and_the_runs_go_on(cluster: Cluster, log: PlainProducer) -> None:
    async with living(orchestrating(cluster)), living(scheduling(cluster)):
        junk = [None, b"", b"\xff", b"{}", b"[" * 5_000]
        topics = ("run-commands", "step-results", "timers")
        await log.write([Output(topic, b"k%d" % n, value) for topic in topics for n, value in enumerate(junk)])
        await log.write([started(start(job()), 1)])

        async def parked() -> bool:
            return len(await read_all(cluster, ["dead-letters-tx"])) == len(junk) * len(topics)

        await eventually(parked, timeout_s=20, every_s=0.1)
        await eventually(lambda: read_all(cluster, ["steps"]), timeout_s=20, every_s=0.1)
