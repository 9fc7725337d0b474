"""Orchestrator, executor and projector are killed while workflows with branches and joins run; each step happens once.

Every event starts a workflow: one http node, a condition with an http node on each branch, another beside them, and one
where all of them meet. The receiver refuses some the first time. Afterwards each execution has ended once, the nodes
that an independent oracle names were done, each under one idempotency key; `millrace verify` says `unaccounted 0`; and
read models made anew from the log are equal. `MILLRACE_SEED` replays a run.
"""

import asyncio
import hashlib
import random
from collections import defaultdict
from pathlib import Path

import asyncpg
from aiohttp import web

from millrace_core import keyring, plans
from millrace_core.ids import SUBSCRIPTION, WORKFLOW, new_id, uuid_of
from millrace_core.messages import PlanControl, Raw, SubscriptionControl
from millrace_devstack.kafka import Kafka
from millrace_kafka.client import Cluster
from tests.fault import scenario
from tests.fault.test_kill import FULL, SEED, kill_all, listening, post_all, prove
from tests.support.platform import Platform
from tests.support.waiting import eventually

EVENTS = 3_000 if FULL else 150
DEATHS = 6 if FULL else 2
MORTAL = ("orchestrator", "executor", "projector")
SERVICES = ("gateway", "matcher", "scheduler", *MORTAL)
SETTLE_S = 240.0
RETRY = plans.RetryPolicy(attempts=12, backoff="fixed", initial_s=0.2, max_s=0.2)


class Receiver:
    """Where the http nodes arrive, and under which keys each was done. Of one in thirty the first attempt is refused:
    nothing is done then, and the next attempt has a key of its own. What is sent again under one key is answered as
    before, as a receiver that minds the key does: an executor may die when the refusal is on the log and its position
    is not, and the next one then makes the refused attempt again."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.refused: dict[tuple[str, int], str] = {}

    async def take(self, request: web.Request) -> web.Response:
        at = request.match_info["node"], (await request.json())["n"]
        key = request.headers["idempotency-key"]
        is_unlucky = hashlib.sha256(f"{SEED}{at}".encode()).digest()[0] < 8
        if is_unlucky and self.refused.setdefault(at, key) == key:
            return web.Response(status=500)
        self.keys[at].add(key)
        return web.Response()


def workflow(sink: str) -> plans.Plan:
    def http(id: str) -> plans.Node:
        config = {"url": f"{sink}/{id}", "body": {"n": "${input.n}"}}
        return plans.Node(id=id, type="http", config=plans.raw_config(config), retry=RETRY)

    choice = plans.Node(
        id="choice", type="condition", config=plans.raw_config({"expression": "input.n % 3 == 0"}), retry=RETRY
    )
    ends = [
        ("first", "choice", None),
        ("first", "beside", None),
        ("choice", "third", "true"),
        ("choice", "other", "false"),
        ("third", "join", None),
        ("other", "join", None),
        ("beside", "join", None),
    ]
    return plans.compile_workflow(
        [http("first"), choice, http("beside"), http("third"), http("other"), http("join")],
        [plans.Edge(from_=one, to=next, when=when) for one, next, when in ends],
        id=new_id(WORKFLOW),
        version=1,
        name="branches and a join",
    )


def done_for(n: int) -> set[str]:
    """The oracle: the http nodes that are done for an event."""
    return {"first", "beside", "join", "third" if n % 3 == 0 else "other"}


async def test_each_step_of_a_workflow_happens_once_whoever_dies(tmp_path: Path, database: str) -> None:
    print(f"\nMILLRACE_SEED={SEED}")
    chance, receiver = random.Random(SEED), Receiver()
    async with Kafka(tmp_path / "kafka") as kafka, listening({"/{node}": receiver.take}) as sink:
        platform = Platform(kafka.bootstrap, database, "wf", tmp_path / "millrace")
        with platform.stopping():
            ring = keyring.KeyRing.parse(platform.key_ring)
            world = scenario.world(sink, pepper=platform.pepper, ring=ring)
            plan = workflow(sink)
            listener = SubscriptionControl(
                account=scenario.ACCOUNT,
                pattern=f"e:{scenario.PROVIDER}/*",
                target_kind="plan",
                target_id=plan.id,
                created_at=0,
            )
            world.entries = [
                *(entry for entry in world.entries if entry[0] == "key"),
                ("plan", plan.id, PlanControl(account=scenario.ACCOUNT, plan=Raw(plans.encode_plan(plan)))),
                ("subscription", new_id(SUBSCRIPTION), listener),
            ]
            await asyncio.to_thread(platform.prepare, partitions=4)
            await scenario.publish(Cluster(kafka.bootstrap, "wf"), world)
            for name in SERVICES:
                platform.start(name)
            await platform.ready()
            heard = [event for event in scenario.events(SEED, EVENTS) if event.name != scenario.TOLD]
            async with asyncio.TaskGroup() as group:
                posting = group.create_task(
                    post_all(platform.url("gateway") + "/ingest/event/publish", world.key, heard)
                )
                group.create_task(kill_all(platform, MORTAL * DEATHS, chance, apart_s=(0.2, 1.0)))
            await platform.ready(timeout_s=SETTLE_S)
            await check(platform, database, heard, posting.result(), receiver)
    assert all(platform.deaths.get(name, 0) == DEATHS for name in MORTAL)


async def check(
    platform: Platform, database: str, heard: list[scenario.Posted], accepted: dict[str, str], receiver: Receiver
) -> None:
    db = await asyncpg.connect(database)
    try:

        async def is_settled() -> bool:
            statuses = await db.fetch("select status, count(*) from read.runs group by 1")
            assert [tuple(row) for row in statuses] == [("completed", len(heard))]
            return True

        await eventually(is_settled, timeout_s=SETTLE_S, every_s=0.3, what="every execution's end")
        runs = await db.fetch("select event from read.runs where ended_at is not null")
        assert sorted(row["event"] for row in runs) == sorted(uuid_of(id) for id in accepted.values())
        wanted = {(node, event.properties["n"]) for event in heard for node in done_for(event.properties["n"])}
        assert set(receiver.keys) == wanted
        assert {at: keys for at, keys in receiver.keys.items() if len(keys) > 1} == {}, "done under two keys"
        assert len(set[str]().union(*receiver.keys.values())) == len(wanted), "a key for two steps"
        steps = await db.fetch("select node, status, count(*) from read.steps group by 1, 2")
        thirds = sum(event.properties["n"] % 3 == 0 for event in heard)
        counted = {(row["node"], row["status"]): row["count"] for row in steps}
        assert {at: counted.get(at, 0) for at in (("third", "skipped"), ("other", "skipped"))} == {
            ("third", "skipped"): len(heard) - thirds,
            ("other", "skipped"): thirds,
        }
        assert counted["join", "completed"] == len(heard)
        await prove(platform, db)
    finally:
        await db.close()
