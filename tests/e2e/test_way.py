"""The whole way as a user goes it: what is posted, what comes of it outside, and what can be read about it.

Only the public API, the gateway and a receiver; the one exception writes a damaged record, which no user can.
"""

import time
from datetime import datetime
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from millrace_core import ids
from tests.e2e.conftest import Millrace
from tests.support.user import PUBLISH, User, written
from tests.support.waiting import eventually

READS = 100
PATIENCE_S_MAX = 3.0


async def webhook(millrace: Millrace, path: str, *events: str, **more: object) -> str:
    """A webhook at this path of the sink, which checks its signatures from now on."""
    wanted = {"url": millrace.sink.url + path, "events": list(events), **more}
    made = await millrace.user.make("/v1/webhooks", wanted)
    millrace.sink.secrets[path] = made["secret"]
    return str(made["id"])


async def listening(user: User, pattern: str, kind: str, target: str, **more: object) -> str:
    made = await user.make("/v1/subscriptions", {"pattern": pattern, "target": {"type": kind, "id": target}, **more})
    return str(made["id"])


async def run_of(user: User, event: str, *, status: str = "completed") -> Any:
    """The one run that an event started, once it has this status."""
    (match,) = (await user.decided(event))["matches"]
    assert match["type"] == "run"
    return await user.ended(f"/v1/runs/{match['id']}", status)


# ── webhooks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_becomes_a_signed_webhook(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/hook"
    endpoint = await webhook(millrace, path, "e:way/hook")
    properties = b'{"exact": 1.10, "long": 12345678901234567890, "text": "\\u00e9"}'
    body = b'{"eventType":{"provider":"way","name":"hook"},"properties":%b}' % properties
    posted = await user.send("POST", user.gateway + PUBLISH, body)
    assert posted.status == 202
    id = posted.json["eventId"]
    assert posted.json["identifier"] == "e:way/hook"
    await eventually(lambda: millrace.sink.events_at(path) == [id])
    (got,) = millrace.sink.arrived[path]
    assert millrace.sink.forged == 0
    assert got.body["type"] == "e:way/hook"
    assert properties in got.raw, "the properties arrive byte for byte"
    (match,) = (await user.decided(id))["matches"]
    assert match == {**match, "type": "delivery", "target": endpoint}
    assert got.headers["webhook-id"] == match["id"]
    delivery = await user.ended(f"/v1/deliveries/{match['id']}", "succeeded")
    assert [(each["n"], each["outcome"], each["status"]) for each in delivery["attempts"]] == [(1, "succeeded", 200)]
    shown = await user.ask("GET", f"/v1/events/{id}")
    assert properties in shown.body, "and are shown byte for byte"


async def test_a_delivery_shows_every_attempt(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/flaky"
    endpoint = await webhook(millrace, path, "e:way/flaky", retry_schedule_s=[0.1, 0.1, 0.1])
    millrace.sink.refuse[path] = 2
    await user.publish("e:way/flaky", {"n": 1})
    (listed,) = await eventually(lambda: _some(user, f"/v1/deliveries?webhook={endpoint}"))
    delivery = await user.ended(f"/v1/deliveries/{listed['id']}", "succeeded")
    assert [(each["n"], each["outcome"], each["status"]) for each in delivery["attempts"]] == [
        (1, "retrying", 500),
        (2, "retrying", 500),
        (3, "succeeded", 200),
    ]
    assert delivery["attempts_made"] == 3
    assert delivery["attempts"][0]["response"] == "not yet"
    arrived = millrace.sink.arrived[path]
    assert {got.headers["webhook-id"] for got in arrived} == {delivery["id"]}, "one id for all attempts"
    assert len({got.raw for got in arrived}) == 1


async def test_a_trace_tells_the_whole_story_and_why_it_waits(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/traced"
    endpoint = await webhook(millrace, path, "e:way/traced", retry_schedule_s=[3600.0])
    job = await user.make(
        "/v1/jobs", {"name": "note", "step": {"id": "note", "type": "transform", "config": {"value": 1}}}
    )
    await listening(user, "e:way/traced", "job", job["id"])
    millrace.sink.refuse[path] = 1
    event = await user.publish("e:way/traced", {"n": 1})

    async def tried() -> Any:
        told = await user.get(f"/v1/events/{event}/trace")
        kinds = [moment["kind"] for moment in told["moments"]]
        return told if {"delivery.attempted", "run.ended"} <= set(kinds) else None

    told = await eventually(tried, timeout_s=20.0, every_s=0.05)
    (wait,) = told["waits"]
    assert wait["kind"] == "timer"
    assert wait["text"].startswith("waiting for timer until ")
    assert "500" in wait["text"]
    assert wait["until"] is not None
    assert not told["is_over"]
    moments = told["moments"]
    times = [datetime.fromisoformat(moment["at"]) for moment in moments]
    assert times == sorted(times)
    of_run = [moment["kind"] for moment in moments if moment["kind"].startswith(("run.", "step."))]
    assert of_run == ["run.asked", "run.started", "step.started", "step.completed", "run.ended"]
    (attempted,) = [moment for moment in moments if moment["kind"] == "delivery.attempted"]
    assert attempted["text"].startswith("attempt 1: HTTP 500")
    assert any(endpoint in moment["text"] for moment in moments if moment["kind"] == "delivery.asked")
    assert told["left_out"] == {"children": 0, "attempts": 0, "repeats": 0}
    of_delivery = await user.get(f"/v1/deliveries/{wait['of']}/trace")
    assert [each["kind"] for each in of_delivery["moments"]] == ["delivery.asked", "delivery.attempted"]
    assert of_delivery["waits"] == [wait]
    (run,) = {moment["of"] for moment in moments if moment["kind"] == "run.asked"}
    assert (await user.get(f"/v1/runs/{run}/trace"))["is_over"]
    assert (await millrace.stranger.ask("GET", f"/v1/events/{event}/trace")).status == 404


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_calls_an_endpoint_until_it_answers(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/job"
    millrace.sink.refuse[path] = 1
    job = await user.make(
        "/v1/jobs",
        {
            "name": "call",
            "step": {
                "id": "call",
                "type": "http",
                "config": {"url": millrace.sink.url + path, "body": {"who": "${input.name}", "event": "${event.id}"}},
                "retry": {"attempts": 3, "backoff": "fixed", "initial_s": 0.1, "max_s": 0.1},
            },
        },
    )
    subscription = await listening(user, "e:way/job", "job", job["id"])
    event = await user.publish("e:way/job", {"name": "Ada"})
    run = await run_of(user, event)
    assert run["plan_id"] == job["id"]
    assert (run["event"], run["subscription"], run["identifier"]) == (event, subscription, "e:way/job")
    (step,) = run["steps"]
    assert [(each["n"], each["status"]) for each in step["attempts"]] == [(1, "failed"), (2, "completed")]
    assert step["output"]["body"] == {"ok": True}
    first, second = millrace.sink.arrived[path]
    assert first.body == second.body == {"who": "Ada", "event": event}
    assert "idempotency-key" in first.headers


async def test_a_chain_passes_data_from_step_to_step(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/chain"
    millrace.sink.answers[path] = {"words": 3}
    chain = await user.make(
        "/v1/chains",
        {
            "name": "double, ask, conclude",
            "steps": [
                {"id": "double", "type": "transform", "config": {"expression": "input.total * 2.0"}},
                {"id": "ask", "type": "http", "config": {"url": millrace.sink.url + path, "body": "${previous}"}},
                {
                    "id": "conclude",
                    "type": "transform",
                    "config": {"value": {"twice": "${steps.double}", "words": "${steps.ask.body.words}"}},
                },
            ],
        },
    )
    await listening(user, "e:way/chain", "chain", chain["id"], where="input.total > 1.0")
    event, other = await user.publish_batch([written("e:way/chain", {"total": total}) for total in (4.5, 0.5)])
    run = await run_of(user, event)
    assert run["output"] == {"twice": 9, "words": 3}
    assert [step["id"] for step in run["steps"]] == ["double", "ask", "conclude"]
    assert [got.body for got in millrace.sink.arrived[path]] == [9]
    assert (await user.decided(other))["outcome"] == "unmatched"


async def test_a_published_event_meets_subscriptions_of_its_own(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/made"
    step = {
        "type": "publish",
        "config": {"provider": "way", "name": "made", "properties": {"of": "${event.id}", "n": "${input.n}"}},
    }
    job = await user.make("/v1/jobs", {"name": "publish", "step": step})
    await listening(user, "e:way/makes", "job", job["id"])
    await webhook(millrace, path, "e:way/made")
    event = await user.publish("e:way/makes", {"n": 7})
    await eventually(lambda: len(millrace.sink.arrived[path]) == 1, timeout_s=20)
    (got,) = millrace.sink.arrived[path]
    assert got.body["data"] == {"of": event, "n": 7}
    made = await user.decided(got.body["id"])
    assert made["identifier"] == "e:way/made"
    await run_of(user, event)


async def test_a_run_that_waits_for_its_retry_can_be_cancelled(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/never"
    millrace.sink.refuse[path] = 1_000
    step = {
        "type": "http",
        "config": {"url": millrace.sink.url + path},
        "retry": {"attempts": 9, "backoff": "fixed", "initial_s": 600.0, "max_s": 600.0},
    }
    job = await user.make("/v1/jobs", {"name": "never", "step": step})
    run = (await user.make(f"/v1/jobs/{job['id']}/run", {"input": {}}))["id"]

    async def waits() -> bool:
        found = await user.get(f"/v1/runs/{run}")
        return bool(found["steps"] and found["steps"][0]["status"] == "retrying")

    await eventually(waits, timeout_s=20)
    asked = await user.ask("POST", f"/v1/runs/{run}/cancel")
    assert asked.status == 202
    ended = await user.ended(f"/v1/runs/{run}", "cancelled")
    assert ended["ended_at"] is not None
    assert (await user.ask("POST", f"/v1/runs/{run}/cancel")).status == 409
    assert len(millrace.sink.arrived[path]) == 1


# ── posting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_item_of_a_batch_stands_for_itself(millrace: Millrace) -> None:
    user = millrace.user
    items = [written("e:way/batch", {"n": 0}), {"properties": {}}, written("e:way/batch", {"n": 2})]
    array = await user.send("POST", f"{user.gateway}{PUBLISH}/batch", orjson.dumps(items))
    lines = await user.send(
        "POST",
        f"{user.gateway}{PUBLISH}/batch",
        b"\n".join(orjson.dumps(item) for item in items),
        media_type="application/x-ndjson",
    )
    for answer in (array, lines):
        assert answer.status == 200
        assert (answer.json["accepted"], answer.json["refused"]) == (2, 1)
        assert [each["index"] for each in answer.json["results"]] == [0, 1, 2]
        assert answer.json["results"][1]["message"]
        for index in (0, 2):
            event = await user.get(f"/v1/events/{answer.json['results'][index]['eventId']}")
            assert event["properties"] == {"n": index}


async def test_a_cloudevent_is_an_event(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/cloud"
    await webhook(millrace, path, "e:way/cloud")
    structured = {"specversion": "1.0", "id": "1", "source": "/way", "type": "e:way/cloud", "data": {"n": 1}}
    one = await user.send(
        "POST", user.gateway + PUBLISH, orjson.dumps(structured), media_type="application/cloudevents+json"
    )
    attributes = {"ce_specversion": "1.0", "ce_id": "2", "ce_source": "/way", "ce_type": "e:way/cloud"}
    two = await user.send("POST", user.gateway + PUBLISH, b'{"n":2}', **attributes)
    assert (one.status, two.status) == (202, 202), (one.body, two.body)
    posted = {one.json["eventId"], two.json["eventId"]}
    await eventually(lambda: set(millrace.sink.events_at(path)) == posted)
    event = await user.get(f"/v1/events/{one.json['eventId']}")
    assert event["extensions"]["source"] == "/way"
    assert event["properties"] == {"n": 1}


async def test_a_unique_key_counts_once(millrace: Millrace) -> None:
    user, path = millrace.user, "/way/once"
    await webhook(millrace, path, "e:way/once")
    posted = {await user.publish("e:way/once", {"n": n}, uniqueKey="the-one") for n in range(5)}
    behind = await user.publish("e:way/once", {"n": 9}, uniqueKey="another")
    (event,) = posted
    await eventually(lambda: behind in millrace.sink.events_at(path))
    assert millrace.sink.events_at(path).count(event) == 1

    async def all_counted() -> bool:
        found = await user.get(f"/v1/events/{event}")
        assert found["repeats"] == 4, found
        return bool(found["properties"] == {"n": 0})

    await eventually(all_counted)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_posted_can_be_read_at_once(millrace: Millrace) -> None:
    user = millrace.user
    took = []
    for n in range(READS):
        id = await user.publish("e:way/read", {"n": n})
        began = time.monotonic()
        answer = await user.ask("GET", f"/v1/events/{id}")
        took.append(time.monotonic() - began)
        assert answer.status == 200, (n, answer.body)
        assert answer.data["properties"] == {"n": n}
    took.sort()
    print(f"\n{READS} events read at once: p50 {took[len(took) // 2] * 1000:.0f} ms, longest {took[-1] * 1000:.0f} ms")


async def test_what_was_never_posted_is_not_found_in_good_time(millrace: Millrace) -> None:
    user = millrace.user
    longest = 0.0
    for path in (
        f"/v1/events/{ids.new_id(ids.EVENT)}",
        f"/v1/runs/{ids.new_id(ids.RUN)}",
        f"/v1/deliveries/{ids.new_id(ids.DELIVERY)}",
        f"/v1/jobs/{ids.new_id(ids.JOB)}",
        "/v1/events/evt_nonsense",
        "/v1/nothing",
    ):
        began = time.monotonic()
        assert (await user.ask("GET", path)).status == 404, path
        longest = max(longest, time.monotonic() - began)
    print(f"\nmade-up ids: 404 after {longest * 1000:.0f} ms at the longest")
    assert longest < PATIENCE_S_MAX


async def test_a_position_makes_a_read_wait_for_the_write(millrace: Millrace) -> None:
    user = millrace.user
    job = await user.make("/v1/jobs", {"name": "one", "step": {"type": "transform", "config": {"value": 1}}})
    for _ in range(20):
        started = await user.ask("POST", f"/v1/jobs/{job['id']}/run", {"input": {"a": 1}})
        at = started.headers["X-Millrace-Position"]
        listed = await user.ask("GET", f"/v1/runs?plan={job['id']}&limit=1", x_millrace_position=at)
        assert [run["id"] for run in listed.data] == [started.data["id"]]
        posted = await user.post("e:way/positions")
        at = posted.headers["X-Millrace-Position"]
        listed = await user.ask("GET", "/v1/events?identifier=e:way/positions&limit=1", x_millrace_position=at)
        assert [event["id"] for event in listed.data] == [posted.json["eventId"]]
    assert (await user.ask("GET", "/v1/events", x_millrace_position="nonsense")).status == 400


async def test_lists_are_paged_to_their_end(millrace: Millrace) -> None:
    user = millrace.user
    posted = await user.publish_batch([written("e:way/pages", {"n": n}) for n in range(25)])
    await user.decided(posted[-1])
    for limit in (1, 7, 25, 100):
        pages = [item["id"] async for item in user.every("/v1/events?identifier=e:way/pages", limit=limit)]
        assert sorted(pages) == sorted(posted)
    assert len(pages) == len(posted)
    for refused in ("limit=0", "limit=101", "limit=x", "cursor=nonsense"):
        assert (await user.ask("GET", f"/v1/events?{refused}")).status == 400, refused
    first = await user.ask("GET", "/v1/events?identifier=e:way/pages&limit=5")
    stolen = first.json["meta"]["next_cursor"]
    assert (await user.ask("GET", f"/v1/runs?cursor={stolen}")).status == 400, "a cursor belongs to its list"


async def test_no_other_account_sees_or_touches_anything(millrace: Millrace) -> None:
    user, stranger, path = millrace.user, millrace.stranger, "/way/mine"
    job = await user.make("/v1/jobs", {"name": "mine", "step": {"type": "transform", "config": {"value": 1}}})
    subscription = await listening(user, "e:way/mine", "job", job["id"])
    endpoint = await webhook(millrace, path, "e:way/mine")
    theirs = await stranger.publish("e:way/mine", {"whose": "theirs"}, uniqueKey="same")
    mine = await user.publish("e:way/mine", {"whose": "mine"}, uniqueKey="same")
    assert theirs != mine, "a uniqueKey is of its account"
    matches = (await user.decided(mine))["matches"]
    assert (await stranger.decided(theirs))["matches"] == []
    things = [f"/v1/jobs/{job['id']}", f"/v1/subscriptions/{subscription}", f"/v1/webhooks/{endpoint}"]
    seen = [f"/v1/events/{mine}", *(f"/v1/{'runs' if m['type'] == 'run' else 'deliveries'}/{m['id']}" for m in matches)]
    assert len(seen) == 3
    for path in (*things, *seen):
        assert (await user.ask("GET", path)).status == 200, path
        assert (await stranger.ask("GET", path)).status == 404, path
    for path in things:
        assert (await stranger.ask("PATCH", path, {})).status == 404, path
        assert (await stranger.ask("DELETE", path)).status == 404, path
    for kind in ("jobs", "subscriptions", "webhooks", "runs", "deliveries", "dead-letters"):
        assert [item async for item in stranger.every(f"/v1/{kind}")] == [], kind
    assert [event["id"] async for event in stranger.every("/v1/events")] == [theirs]
    assert (await stranger.ask("POST", f"/v1/jobs/{job['id']}/run", {})).status == 404


async def test_a_dead_letter_is_shown_with_its_reason(millrace: Millrace) -> None:
    user = millrace.user
    account = (await user.get("/v1/accounts/me"))["id"]
    producer = AIOKafkaProducer(bootstrap_servers=millrace.cluster.bootstrap)
    await producer.start()
    try:
        headers = [("account", account.encode()), ("id", b"evt_damaged")]
        await producer.send_and_wait(millrace.cluster.topic("events"), b'{"id": nothing}', key=b"k", headers=headers)
    finally:
        await producer.stop()
    (letter, *_) = await eventually(lambda: _some(user, "/v1/dead-letters?topic=events"), timeout_s=20)
    shown = await user.get(f"/v1/dead-letters/{letter['id']}")
    assert shown["reason"]
    assert "nothing" in orjson.dumps(shown).decode()
    assert (await millrace.stranger.ask("GET", f"/v1/dead-letters/{letter['id']}")).status == 404


@pytest.mark.parametrize("path", ["/v1/events", "/v1/keys", "/v1/accounts/me"])
async def test_nobody_reads_without_a_key(millrace: Millrace, path: str) -> None:
    unknown = User(millrace.user.session, millrace.user.api, millrace.user.gateway, "mr_live_" + "x" * 43)
    assert (await unknown.ask("GET", path)).status == 401
    assert (await unknown.post("e:way/unknown")).status == 401


async def _some(user: User, path: str) -> list[dict[str, object]]:
    return [item async for item in user.every(path)]
