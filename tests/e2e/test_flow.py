"""Flow control as a user has it: who waits, for what, and how a change lets them go, on a whole Millrace."""

import asyncio
from typing import Any

import pytest

from tests.e2e.conftest import Millrace
from tests.support.user import User
from tests.support.waiting import eventually

NOTE = {"id": "note", "type": "transform", "config": {"expression": "input"}}


async def job(user: User, **step: Any) -> str:
    made = await user.make("/v1/jobs", {"name": "flow", "step": {**NOTE, **step}})
    return str(made["id"])


async def slow_job(millrace: Millrace, path: str) -> str:
    """A job whose first call fails, and whose second is an hour away: its run stays at work."""
    millrace.sink.refuse[path] = 1
    retry = {"attempts": 2, "backoff": "fixed", "initial_s": 3600.0, "max_s": 3600.0}
    config = {"url": millrace.sink.url + path, "body": "${input}"}
    return await job(millrace.user, id="call", type="http", config=config, retry=retry)


async def listening(user: User, name: str, target: str, flow: dict[str, Any]) -> str:
    wanted = {"pattern": f"e:flow/{name}", "target": {"type": "job", "id": target}, "flow": flow}
    made = await user.make("/v1/subscriptions", wanted)
    assert made["flow"]
    return str(made["id"])


async def run_of(user: User, event: str) -> str:
    (match,) = (await user.decided(event))["matches"]
    return str(match["id"])


async def waiting(user: User, run: str, reason: str) -> Any:
    """A run, once it waits for this."""

    async def does() -> Any:
        found = await user.get(f"/v1/runs/{run}")
        assert found["status"] == "queued", found
        assert found["waiting"], found
        assert found["waiting"]["reason"] == reason, found
        return found

    return await eventually(does, timeout_s=20, every_s=0.05, what=f"{run} waits for {reason}")


async def test_a_ceiling_holds_explains_itself_and_can_be_raised(millrace: Millrace) -> None:
    user, path = millrace.user, "/flow/ceiling"
    flow = {"key": "input.user", "concurrency": {"ceiling": 1}}
    sub = await listening(user, "ceiling", await slow_job(millrace, path), flow)
    first = await run_of(user, await user.publish("e:flow/ceiling", {"user": "a", "n": 1}))
    await user.ended(f"/v1/runs/{first}", "running")
    await eventually(lambda: len(millrace.sink.arrived[path]) == 1)
    others = [await run_of(user, await user.publish("e:flow/ceiling", {"user": "a", "n": n})) for n in (2, 3)]
    free = await run_of(user, await user.publish("e:flow/ceiling", {"user": "b", "n": 4}))
    await user.ended(f"/v1/runs/{free}", "completed")
    for run in others:
        found = await waiting(user, run, "concurrency")
        assert found["flow_key"] == "a"
    told = await user.get(f"/v1/runs/{others[0]}/trace")
    (wait,) = told["waits"]
    assert wait["kind"] == "flow"
    assert wait["text"].startswith(f'waiting for concurrency of key "a" of {sub}')
    verified = await asyncio.to_thread(millrace.platform.tool, "verify", timeout_s=120)
    assert "held back by a flow" in verified.stdout
    assert "unaccounted 0" in verified.stdout
    await user.change(f"/v1/subscriptions/{sub}", {"flow": {**flow, "concurrency": {"ceiling": 2}}})
    for run in others:
        found = await user.ended(f"/v1/runs/{run}", "completed")
        assert found["waiting"] is None
    await user.ask("POST", f"/v1/runs/{first}/cancel")
    await user.ended(f"/v1/runs/{first}", "cancelled")


async def test_a_run_that_waits_can_be_cancelled_and_the_next_goes_on(millrace: Millrace) -> None:
    user, path = millrace.user, "/flow/cancelled"
    await listening(user, "cancelled", await slow_job(millrace, path), {"concurrency": {"total": 1}})
    runs = []
    for n in range(3):
        runs.append(await run_of(user, await user.publish("e:flow/cancelled", {"n": n})))
        await user.ended(f"/v1/runs/{runs[0]}", "running")
    await waiting(user, runs[1], "concurrency")
    await waiting(user, runs[2], "concurrency")
    await user.ask("POST", f"/v1/runs/{runs[1]}/cancel")
    await user.ended(f"/v1/runs/{runs[1]}", "cancelled")
    await user.ask("POST", f"/v1/runs/{runs[0]}/cancel")
    await user.ended(f"/v1/runs/{runs[2]}", "completed")


async def test_an_account_has_a_ceiling_over_all_its_subscriptions(millrace: Millrace) -> None:
    user, path = millrace.user, "/flow/account"
    slow, quick = await slow_job(millrace, path), await job(user)
    for name, target in (("slow", slow), ("plain", quick)):
        await user.make(
            "/v1/subscriptions", {"pattern": f"e:flow-account/{name}", "target": {"type": "job", "id": target}}
        )
    paced = {"pattern": "e:flow-account/paced", "target": {"type": "job", "id": quick}}
    await user.make("/v1/subscriptions", {**paced, "flow": {"throttle": {"limit": 100, "period_s": 1.0}}})
    flow = {"concurrency": {"total": 1, "floor": 0}, "drain": False}
    changed = await user.change("/v1/accounts/me", {"flow": flow})
    try:
        assert changed["flow"]["concurrency"]["total"] == 1
        assert (await user.get("/v1/accounts/me"))["flow"] == changed["flow"]
        first = await run_of(user, await user.publish("e:flow-account/slow", {"n": 1}))
        await user.ended(f"/v1/runs/{first}", "running")
        others = [await run_of(user, await user.publish(f"e:flow-account/{name}", {})) for name in ("plain", "paced")]
        for run in others:
            await waiting(user, run, "account_concurrency")
            (wait,) = (await user.get(f"/v1/runs/{run}/trace"))["waits"]
            assert wait["text"].startswith("waiting for concurrency of the account")
        verified = await asyncio.to_thread(millrace.platform.tool, "verify", timeout_s=120)
        assert "unaccounted 0" in verified.stdout
    finally:
        changed = await user.change("/v1/accounts/me", {"flow": None})
    assert changed["flow"] is None
    for run in others:
        await user.ended(f"/v1/runs/{run}", "completed")
    after = await run_of(user, await user.publish("e:flow-account/plain", {}))
    assert (await user.ended(f"/v1/runs/{after}", "completed"))["waiting"] is None
    await user.ask("POST", f"/v1/runs/{first}/cancel")
    await user.ended(f"/v1/runs/{first}", "cancelled")


async def test_a_debounce_makes_one_run_and_the_others_say_into_which(millrace: Millrace) -> None:
    user = millrace.user
    flow = {"debounce": {"mode": "latest", "quiet_s": 1.5, "longest_s": 60.0}}
    await listening(user, "burst", await job(user), flow)
    events = [await user.publish("e:flow/burst", {"n": n}) for n in range(5)]
    runs = [await run_of(user, event) for event in events]
    last = await user.ended(f"/v1/runs/{runs[-1]}", "completed")
    assert last["input"] == {"n": 4}
    for run in runs[:-1]:
        into = (await user.ended(f"/v1/runs/{run}", "absorbed"))["absorbed_into"]
        story = await user.get(f"/v1/runs/{run}/trace")
        assert story["is_over"]
        assert f"absorbed into {into}" in story["moments"][-1]["text"]
        while into != runs[-1]:
            into = (await user.ended(f"/v1/runs/{into}", "absorbed"))["absorbed_into"]


async def test_a_batch_is_one_run_over_a_list(millrace: Millrace) -> None:
    user = millrace.user
    await listening(user, "batch", await job(user), {"batch": {"size": 3, "wait_s": 3600.0}})
    events = [await user.publish("e:flow/batch", {"n": n}) for n in range(3)]
    runs = {await run_of(user, event) for event in events}

    async def all_over() -> Any:
        found = [await user.get(f"/v1/runs/{run}") for run in runs]
        assert sorted(run["status"] for run in found) == ["absorbed", "absorbed", "completed"]
        return found

    found = await eventually(all_over, timeout_s=20, every_s=0.1)
    (whole,) = [run for run in found if run["status"] == "completed"]
    assert sorted(item["n"] for item in whole["input"]) == [0, 1, 2]
    assert whole["output"] == whole["input"]


async def test_drain_holds_everything_back_until_the_flow_is_taken_away(millrace: Millrace) -> None:
    user = millrace.user
    sub = await listening(user, "drain", await job(user), {"drain": True})
    runs = [await run_of(user, await user.publish("e:flow/drain", {"n": n})) for n in range(3)]
    for run in runs:
        await waiting(user, run, "drain")
    changed = await user.change(f"/v1/subscriptions/{sub}", {"flow": None})
    assert changed["flow"] is None
    for run in runs:
        await user.ended(f"/v1/runs/{run}", "completed")
    after = await run_of(user, await user.publish("e:flow/drain", {"n": 9}))
    await user.ended(f"/v1/runs/{after}", "completed")


async def test_an_event_cancels_what_waits_and_what_is_at_work(millrace: Millrace) -> None:
    user, path = millrace.user, "/flow/cancelling"
    flow = {
        "key": "input.order",
        "concurrency": {"ceiling": 1},
        "cancel_on": {"pattern": "e:flow/withdrawn", "filter": {"order": [{"exists": True}]}},
    }
    await listening(user, "ordered", await slow_job(millrace, path), flow)
    working = await run_of(user, await user.publish("e:flow/ordered", {"order": 7}))
    await user.ended(f"/v1/runs/{working}", "running")
    held = await run_of(user, await user.publish("e:flow/ordered", {"order": 7}))
    await waiting(user, held, "concurrency")
    other = await run_of(user, await user.publish("e:flow/ordered", {"order": 8}))
    await user.ended(f"/v1/runs/{other}", "completed")
    withdrawn = await user.publish("e:flow/withdrawn", {"order": 7})
    for run in (working, held):
        found = await user.ended(f"/v1/runs/{run}", "cancelled")
        assert withdrawn in found["error"]["message"]
    assert (await user.decided(withdrawn))["outcome"] == "unmatched"


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ({"concurrency": {}}, "ceiling"),
        ({"concurrency": {"floor": 2, "ceiling": 3}}, "name a total"),
        ({"debounce": {"quiet_s": 9.0, "longest_s": 1.0}}, "longest_s"),
        ({"debounce": {"quiet_s": 1.0, "longest_s": 1.0}, "batch": {"size": 2, "wait_s": 1.0}}, "together"),
        ({"key": "input."}, "key"),
        ({"cancel_on": {"pattern": "withdrawn"}}, "cancel_on"),
    ],
)
async def test_what_cannot_be_had_is_refused_in_words(millrace: Millrace, flow: dict[str, Any], words: str) -> None:
    target = {"type": "job", "id": await job(millrace.user)}
    wanted = {"pattern": "e:flow/never", "target": target, "flow": flow}
    answer = await millrace.user.ask("POST", "/v1/subscriptions", wanted)
    assert answer.status == 400, answer.body
    assert words in answer.body.decode()


async def test_an_account_makes_no_run_of_several(millrace: Millrace) -> None:
    flow = {"batch": {"size": 2, "wait_s": 1.0}}
    answer = await millrace.user.ask("PATCH", "/v1/accounts/me", {"flow": flow})
    assert answer.status == 400
    assert "only those of one subscription" in answer.body.decode()
    assert (await millrace.user.get("/v1/accounts/me"))["flow"] is None


async def test_a_webhook_has_no_flow(millrace: Millrace) -> None:
    made = await millrace.user.make("/v1/webhooks", {"url": millrace.sink.url + "/flow/none"})
    wanted = {"pattern": "e:flow/never", "target": {"type": "webhook", "id": made["id"]}, "flow": {"drain": True}}
    answer = await millrace.user.ask("POST", "/v1/subscriptions", wanted)
    assert answer.status == 400
    assert "only jobs, chains and workflows" in answer.body.decode()
