"""Matcher and orchestrator are killed while flows hold runs back, gather them and change; each match has one run.

Five subscriptions hear every event: with a ceiling for each key, a throttle, a debounce, a batch, and one whose flow
comes and goes all the time; and their account has a flow over all of them. Both services get SIGKILL at seeded random
moments. Afterwards every event has exactly one run of each, which completed or was absorbed by one that did; neither a
key nor the account was ever over its ceiling; `millrace verify` says `unaccounted 0`; and read models made anew from
the log are equal. `MILLRACE_SEED` replays a run.
"""

import asyncio
import random
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from itertools import accumulate, pairwise
from pathlib import Path

import asyncpg

from millrace_core import keyring, plans
from millrace_core.ids import JOB, SUBSCRIPTION, new_id, uuid_of
from millrace_core.messages import (
    AccountControl,
    Batch,
    Concurrency,
    Debounce,
    FlowControl,
    PlanControl,
    Raw,
    SubscriptionControl,
    Throttle,
    encode,
)
from millrace_devstack.kafka import Kafka
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from tests.fault import scenario
from tests.fault.test_kill import FULL, SEED, kill_all, post_all, prove
from tests.support.platform import Platform
from tests.support.waiting import eventually

EVENTS = 2_000 if FULL else 300
DEATHS = 6 if FULL else 2
MORTAL = ("matcher", "orchestrator")
SERVICES = ("gateway", "executor", "scheduler", "projector", *MORTAL)
SETTLE_S = 240.0
CEILING = FlowControl(key="input.n % 5", concurrency=Concurrency(ceiling=1))
FLOWS: dict[str, FlowControl] = {
    "ceiling": CEILING,
    "throttle": FlowControl(throttle=Throttle(limit=60, period_s=1.0)),
    "debounce": FlowControl(key="input.n % 7", debounce=Debounce(quiet_s=0.2, longest_s=1.0)),
    "batch": FlowControl(batch=Batch(size=5, wait_s=1.0)),
    "changing": CEILING,
}
ACCOUNT_TOTAL = 20
ACCOUNT_FLOW = FlowControl(concurrency=Concurrency(total=ACCOUNT_TOTAL))
CHANGES: tuple[FlowControl, ...] = (FlowControl(), CEILING, FlowControl(drain=True), FLOWS["batch"], FLOWS["throttle"])


class Listeners:
    """The subscriptions, and their flows as they are published."""

    def __init__(self, writer: ControlWriter) -> None:
        self.writer = writer
        self.ids = {name: new_id(SUBSCRIPTION) for name in FLOWS}
        self.job = new_id(JOB)
        self.version = 0

    async def begin(self) -> None:
        node = plans.Node(id="note", type="transform", config=Raw(b'{"expression":"event.id"}'))
        plan = plans.encode_plan(plans.compile_job(node, id=self.job, version=1, name="note"))
        control = encode(PlanControl(account=scenario.ACCOUNT, plan=Raw(plan)))
        account = encode(AccountControl(flow=ACCOUNT_FLOW))
        await self.writer.write(
            [
                ("plan", scenario.ACCOUNT, self.job, 1, control),
                ("account", scenario.ACCOUNT, scenario.ACCOUNT, 1, account),
            ]
        )
        for name, flow in FLOWS.items():
            await self.change(name, None if name == "changing" else flow)

    async def change(self, name: str, flow: FlowControl | None) -> None:
        self.version += 1
        control = SubscriptionControl(
            account=scenario.ACCOUNT,
            pattern=f"e:{scenario.PROVIDER}/*",
            target_kind="plan",
            target_id=self.job,
            created_at=0,
            flow=flow,
        )
        await self.writer.write([("subscription", scenario.ACCOUNT, self.ids[name], self.version, encode(control))])

    async def keep_changing(self, chance: random.Random, over: asyncio.Event) -> None:
        """The flow of one changes until it is over; then it has none that holds anything back."""
        while not over.is_set():
            await self.change("changing", chance.choice(CHANGES))
            await asyncio.sleep(chance.uniform(0.05, 0.4))
        await self.change("changing", FlowControl())


async def test_each_match_has_one_run_whoever_dies_and_whatever_its_flow_becomes(tmp_path: Path, database: str) -> None:
    print(f"\nMILLRACE_SEED={SEED}")
    chance = random.Random(SEED)
    async with Kafka(tmp_path / "kafka") as kafka, AsyncExitStack() as stack:
        platform = Platform(kafka.bootstrap, database, "flow", tmp_path / "millrace")
        stack.enter_context(platform.stopping())
        writer = ControlWriter(Cluster(kafka.bootstrap, "flow"))
        stack.push_async_callback(writer.stop)
        ring = keyring.KeyRing.parse(platform.key_ring)
        world = scenario.world("http://127.0.0.1:9", pepper=platform.pepper, ring=ring)
        world.entries = [entry for entry in world.entries if entry[0] == "key"]
        await asyncio.to_thread(platform.prepare, partitions=4)
        await scenario.publish(Cluster(kafka.bootstrap, "flow"), world)
        await writer.start()
        listeners = Listeners(writer)
        await listeners.begin()
        for name in SERVICES:
            platform.start(name)
        await platform.ready()
        over = asyncio.Event()
        heard = [event for event in scenario.events(SEED, EVENTS) if event.name != scenario.TOLD]
        async with asyncio.TaskGroup() as group:
            group.create_task(listeners.keep_changing(chance, over))
            posting = group.create_task(post_all(platform.url("gateway") + "/ingest/event/publish", world.key, heard))
            await kill_all(platform, MORTAL * DEATHS, chance, apart_s=(0.3, 1.5))
            accepted = await posting
            over.set()
        await platform.ready(timeout_s=SETTLE_S)
        await check(platform, database, listeners, set(accepted.values()))
    assert all(platform.deaths.get(name, 0) == DEATHS for name in MORTAL)


async def check(platform: Platform, database: str, listeners: Listeners, accepted: set[str]) -> None:
    db = await asyncpg.connect(database)
    try:
        expected = len(accepted) * len(FLOWS)

        async def is_settled() -> bool:
            ended = await db.fetchval("select count(*) from read.runs where ended_at is not null")
            waits = await db.fetch(
                "select status, waiting_reason, count(*) from read.runs where ended_at is null group by 1, 2"
            )
            assert (ended, [tuple(row) for row in waits]) == (expected, [])
            return True

        await eventually(is_settled, timeout_s=SETTLE_S, every_s=0.5, what="every run's end")
        rows = await db.fetch(
            "select id, event, subscription, status, flow_key, absorbed_into, started_at, ended_at from read.runs"
        )
        found = Counter((row["event"], row["subscription"]) for row in rows)
        wanted = {(uuid_of(event), uuid_of(id)) for event in accepted for id in listeners.ids.values()}
        assert set(found) == wanted
        assert max(found.values()) == 1, "a run twice"
        assert {row["status"] for row in rows} == {"completed", "absorbed"}
        by_id = {row["id"]: row for row in rows}
        for row in rows:
            into = row
            while into["status"] == "absorbed":
                into = by_id[into["absorbed_into"]]
            assert into["subscription"] == row["subscription"]
        await _bounds_held(db, listeners, rows)
        await prove(platform, db)
    finally:
        await db.close()


async def _bounds_held(db: asyncpg.Connection, listeners: Listeners, rows: list[asyncpg.Record]) -> None:
    ceiling, batch = uuid_of(listeners.ids["ceiling"]), uuid_of(listeners.ids["batch"])
    spans = defaultdict(list)
    for row in rows:
        if row["subscription"] == ceiling:
            assert row["status"] == "completed"
            spans[row["flow_key"]].append((row["started_at"], row["ended_at"]))
    for times in spans.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(times)))
    begun = [row for row in rows if row["started_at"] is not None]
    at_work = sorted([(row["started_at"], 1) for row in begun] + [(row["ended_at"], -1) for row in begun])
    assert 1 < max(accumulate(change for _, change in at_work)) <= ACCOUNT_TOTAL
    sizes = await db.fetch(
        "select json_array_length(convert_from(bundle, 'utf8')::json) from read.runs"
        " where subscription = $1 and status = 'completed'",
        batch,
    )
    assert all(1 <= size[0] <= 5 for size in sizes)
    assert sum(size[0] for size in sizes) == sum(row["subscription"] == batch for row in rows)
