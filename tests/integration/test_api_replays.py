"""Replays through HTTP: what is counted and written, who may, and a worker that dies in the middle of a step."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
import structlog

from millrace_api.application.runs import Log, Place
from millrace_api.replaying import SURFACE as REPLAYED
from millrace_api.replaying import Replaying
from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.errors import Retry
from millrace_core.messages import Event, decode
from millrace_core.record import SURFACE, Output, header
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld
from tests.support.user import Answer
from tests.support.waiting import eventually

LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
_EVENT = """INSERT INTO read.events (id, account, identifier, received_at, "timestamp", unique_key, ordering_key, hops,
        extensions, partition, "offset", properties)
    VALUES ($1, $2, $3, $4, '2026-01-01T00:00:00.000Z', 'u', 'o', 2, '{"source": "x"}', 0, 0, $5)"""


async def stored(api: ApiWorld, identifier: str, *properties: bytes) -> list[str]:
    """Events a second apart in the read models, as the projector would have written them."""
    made = []
    for n, each in enumerate(properties):
        id, at = ids.new_id(ids.EVENT), LONG_AGO + timedelta(seconds=n)
        await api.execute(_EVENT, ids.uuid_of(id), api.account, identifier, at, each)
        made.append(id)
    return made


async def replayed(api: ApiWorld, replay: str) -> list[Event]:
    """What the replay wrote to `events`, a partition after the other."""
    found = await read_all(api.cluster, ["events"])
    read = [decode(one.value, Event) for one in found if header(one, SURFACE) == REPLAYED.encode()]
    return [event for event in read if event.replay == replay]


def asked(pattern: str, **more: Any) -> dict[str, Any]:
    return {"since": LONG_AGO.isoformat(), "pattern": pattern, **more}


async def ended(api: ApiWorld, id: str, state: str = "completed") -> Any:
    async def has_state() -> Any:
        found = (await api.ask("GET", f"/v1/replays/{id}")).data
        assert found["state"] == state, found
        return found

    return await eventually(has_state, timeout_s=30, what=f"{id} {state}")


async def test_a_replay_writes_the_events_again_as_they_were(api: ApiWorld) -> None:
    posted = await stored(api, "e:replay/whole", b'{"n": 1.10}', b'{"n":  2}')
    await stored(api, "e:replay/other", b"{}")
    answer = await api.ask("POST", "/v1/events/replay", asked("e:replay/wh*"))
    assert answer.status == 202
    done = await ended(api, answer.data["id"])
    assert (done["written"], done["subscription"]) == (2, None)
    assert done["reached"] == done["until"]
    events = await replayed(api, done["id"])
    assert [event.id for event in events] == posted, "in their order, under their own ids"
    first = events[0]
    assert (bytes(first.properties), first.only) == (b'{"n": 1.10}', None)
    assert (first.identifier, first.received_at) == ("e:replay/whole", round(LONG_AGO.timestamp() * 1000))
    assert (first.unique_key, first.ordering_key, first.hops) == ("u", "o", 2)
    assert (first.timestamp, first.extensions) == ("2026-01-01T00:00:00.000Z", {"source": "x"})


async def test_a_dry_run_counts_what_a_replay_writes(api: ApiWorld) -> None:
    posted = await stored(api, "e:replay/count", b'{"n":1}', b'{"n":2}', b'{"n":3}', b'{"n":1}', b"not JSON")
    choice = asked(
        "e:replay/count",
        until=(LONG_AGO + timedelta(seconds=3)).isoformat(),
        filter={"n": [1, 3]},
        where="input.n < 3",
    )
    counted = await api.ask("POST", "/v1/events/replay", {**choice, "dry_run": True})
    assert (counted.status, counted.data) == (200, {"events": 1, "looked_at": 3, "complete": True})
    done = await ended(api, (await api.ask("POST", "/v1/events/replay", choice)).data["id"])
    assert (done["written"], done["looked_at"]) == (1, 3)
    assert [event.id for event in await replayed(api, done["id"])] == posted[:1]


async def test_a_replay_keeps_to_its_rate_and_can_be_cancelled(api: ApiWorld) -> None:
    posted = await stored(api, "e:replay/slow", *[b"{}"] * 40)
    made = (await api.ask("POST", "/v1/events/replay", asked("e:replay/slow", per_s=5))).data

    async def has_begun() -> bool:
        return bool((await api.ask("GET", f"/v1/replays/{made['id']}")).data["written"])

    await eventually(has_begun, timeout_s=30)
    over = await api.ask("POST", f"/v1/replays/{made['id']}/cancel")
    assert (over.status, over.data["state"]) == (200, "cancelled")
    assert (await api.ask("POST", f"/v1/replays/{made['id']}/cancel")).status == 409
    assert 0 < len(await replayed(api, made["id"])) < len(posted)
    assert (await api.ask_b("GET", f"/v1/replays/{made['id']}")).status == 404
    assert made["id"] in [each["id"] for each in (await api.ask("GET", "/v1/replays?limit=100")).data]
    assert (await api.ask_b("GET", "/v1/replays")).data == []


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"since": "2999-01-01T00:00:00Z"}, "since"),
        ({"until": "2999-01-01T00:00:00Z"}, "until"),
        ({"pattern": "all"}, "pattern"),
        ({"filter": {"n": 1}}, "filter"),
        ({"where": "input.n +"}, "where"),
        ({"subscription": ids.new_id(ids.SUBSCRIPTION)}, "subscription"),
        ({"subscription": "sub_x"}, "subscription"),
        ({"per_s": 0}, "per_s"),
    ],
)
async def test_what_is_wrong_is_named(api: ApiWorld, more: dict[str, Any], where: str) -> None:
    for dry_run in (False, True):
        answer = await api.ask("POST", "/v1/events/replay", {**asked("e:replay/wrong"), **more, "dry_run": dry_run})
        assert answer.status == 400
        assert where in answer.body.decode()


async def test_a_replay_to_a_subscription_that_is_gone_fails_and_says_so(api: ApiWorld) -> None:
    await stored(api, "e:replay/gone", *[b"{}"] * 20)
    job = (await api.ask("POST", "/v1/jobs", {"name": "x", "step": {"type": "transform", "config": {"value": 1}}})).data
    target = {"type": "job", "id": job["id"]}
    heard = (await api.ask("POST", "/v1/subscriptions", {"pattern": "e:replay/gone", "target": target})).data["id"]
    made = (await api.ask("POST", "/v1/events/replay", asked("e:replay/gone", subscription=heard, per_s=5))).data
    await api.ask("DELETE", f"/v1/subscriptions/{heard}")
    failed = await ended(api, made["id"], "failed")
    assert "deleted" in failed["reason"]
    assert {event.only for event in await replayed(api, made["id"])} <= {heard}


class DiesAfterWriting:
    """A log whose writer dies once, when its first records are acked; another may hold the lock from then on."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.writes = 0

    async def write(self, outputs: Sequence[Output]) -> Sequence[Place]:
        places = await self._log.write(outputs)
        self.writes += 1
        if self.writes == 1:
            raise Retry("killed between the acks and the cursor")
        return places


async def takes_over(api: ApiWorld, name: str) -> None:
    """Returns when the worker of this name is the one that works, in the place of the API's own."""

    async def has_lock() -> bool:
        await api.execute(_END_OTHERS)
        connection = await asyncpg.connect(api.dsn)
        try:
            return name in [row["application_name"] for row in await connection.fetch(_LOCK_HOLDERS)]
        finally:
            await connection.close()

    await eventually(has_lock, timeout_s=30, every_s=0.1)


_END_OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'millrace replays' AND datname = current_database()"""
_LOCK_HOLDERS = """SELECT a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()"""


async def test_a_worker_that_died_before_the_cursor_moved_writes_the_step_again(api: ApiWorld) -> None:
    """That the second records do nothing is the matcher's to see: `test_matcher_replays`."""
    posted = await stored(api, "e:replay/died", *[b"{}"] * 7)
    producer = PlainProducer(api.cluster)
    await producer.start()
    log, stop = DiesAfterWriting(producer), asyncio.Event()
    told: list[int] = []

    async def caught_up() -> bool:
        return True

    worker = Replaying(
        api.dsn,
        events=log,
        caught_up=caught_up,
        written=told.append,
        clock=SystemClock(),
        log=structlog.get_logger(),
        name="mortal",
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        await takes_over(api, "mortal")
        made = (await api.ask("POST", "/v1/events/replay", asked("e:replay/died"))).data
        done = await ended(api, made["id"])
        stop.set()
    await producer.stop()
    assert log.writes, "the mortal worker was the one that began"
    assert sum(told) in (0, len(posted)), "what was written and never known to be is not told"
    assert done["written"] == len(posted), "a step counts once"
    assert Counter(event.id for event in await replayed(api, made["id"])) == dict.fromkeys(posted, 2)


async def test_asked_again_under_its_key_it_is_the_same_replay(api: ApiWorld) -> None:
    await stored(api, "e:replay/once", b"{}")
    body = orjson.dumps(asked("e:replay/once"))

    async def ask(raw: bytes = body, key: str | None = None, once: str = "once") -> Answer:
        return await api.ask("POST", "/v1/events/replay", raw=raw, key=key, headers={"idempotency-key": once})

    counted = await ask(orjson.dumps(asked("e:replay/once", dry_run=True)))
    assert counted.status == 200, "only counted: the key still stands for nothing"
    wrong = orjson.dumps(asked("e:replay/once", until="2999-01-01T00:00:00Z"))
    refused, again = await ask(wrong, once="refused"), await ask(wrong, once="refused")
    assert (refused.status, again.status) == (400, 400)
    assert again.body == refused.body, "what cannot be accepted is refused alike, request id included"
    assert again.headers["idempotency-replayed"] == "true"
    assert (await ask(once="refused")).status == 409, "the key stands for the refused request"
    answers = await asyncio.gather(*(ask() for _ in range(5)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotency-replayed", "") for answer in answers) == ["", *["true"] * 4]
    first = answers[0].data["id"]
    await ended(api, first)
    assert (await ask()).data["state"] == "waiting", "the first answer as it was"
    other = await ask(orjson.dumps(asked("e:replay/*")))
    assert (other.status, other.error["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    second_key = (await api.ask("POST", "/v1/keys", {"name": "second", "scopes": ["*"]})).data["key"]
    assert (await ask(key=second_key)).data["id"] != first, "a key is its sender's"
    assert (await ask(key=api.key_b)).data["id"] != first
    await api.execute("UPDATE control.idempotency_keys SET asked_at = asked_at - interval '24 hours'")
    assert (await ask()).data["id"] != first, "a day later it is another request"
