"""Workflows over the whole platform: written, published, started by an event and by hand, heard of when they end."""

from typing import Any

from tests.e2e.conftest import Millrace
from tests.support.user import User
from tests.support.waiting import eventually

CHECK: dict[str, Any] = {"id": "check", "type": "condition", "config": {"expression": "input.amount > 100"}}
SMALL: dict[str, Any] = {"id": "small", "type": "transform", "config": {"value": "${variables.small}"}}


def graph(url: str) -> dict[str, Any]:
    """Large ones are told of outside, small ones are not; then both are summed up."""
    large = {"id": "large", "type": "http", "config": {"url": url, "body": {"amount": "${input.amount}"}}}
    last = {
        "id": "last",
        "type": "transform",
        "config": {"value": {"branch": "${steps.check.branch}", "said": "${has(steps.small) ? steps.small : 'told'}"}},
    }
    return {
        "nodes": [CHECK, large, SMALL, last],
        "edges": [
            {"from": "check", "to": "large", "when": True},
            {"from": "check", "to": "small", "when": False},
            {"from": "large", "to": "last"},
            {"from": "small", "to": "last"},
        ],
        "variables": {"small": "not worth it"},
    }


async def execute(user: User, workflow: str, input: Any) -> Any:
    """The execution, when it is over."""
    started = await user.make(f"/v1/workflows/{workflow}/execute", {"input": input})
    return await user.ended(f"/v1/executions/{started['execution_id']}", "completed")


async def test_a_condition_takes_one_branch_and_the_other_is_skipped(millrace: Millrace) -> None:
    user, path = millrace.user, "/flows/branches"
    made = await user.make(
        "/v1/workflows", {"name": "branches", "status": "published", **graph(millrace.sink.url + path)}
    )
    small = await execute(user, made["id"], {"amount": 5})
    assert (small["output"], small["version"], small["test"]) == (
        {"branch": "false", "said": "not worth it"},
        1,
        False,
    )
    assert not millrace.sink.arrived[path]
    large = await execute(user, made["id"], {"amount": 500})
    assert large["output"] == {"branch": "true", "said": "told"}
    assert len(millrace.sink.arrived[path]) == 1
    assert "skipped: no edge to it was taken" in {line["message"] for line in large["logs"] if line["node"] == "small"}
    listed = await user.get(f"/v1/workflows/{made['id']}/executions?status=completed")
    assert [one["id"] for one in listed] == [large["id"], small["id"]]


async def test_an_event_starts_what_is_published_and_its_end_is_an_event(millrace: Millrace) -> None:
    user, path = millrace.user, "/flows/ends"
    endpoint = await user.make("/v1/webhooks", {"url": millrace.sink.url + path, "events": ["workflow.executed"]})
    millrace.sink.secrets[path] = endpoint["secret"]
    made = await user.make("/v1/workflows", {"name": "ends", "nodes": [SMALL], "variables": {"small": 1}})
    await user.change(f"/v1/workflows/{made['id']}", {"status": "published"})
    await user.make("/v1/subscriptions", {"pattern": "e:flows/go", "target": {"type": "workflow", "id": made["id"]}})
    await user.change(f"/v1/workflows/{made['id']}", {"variables": {"small": 2}})
    event = await user.publish("e:flows/go", {"n": 1})
    (match,) = (await user.decided(event))["matches"]
    done = await user.ended(f"/v1/executions/{match['id']}", "completed")
    assert (done["output"], done["workflow_id"]) == (1, made["id"])
    (got,) = await eventually(lambda: [one for one in millrace.sink.arrived[path] if named(one, done["id"])])
    assert got.body["type"] == "workflow.executed"
    assert got.body["data"] == {
        **got.body["data"],
        "workflow_id": made["id"],
        "workflow_name": "ends",
        "version": 1,
        "test": False,
        "status": "completed",
        "error": None,
        "output": 1,
    }
    draft = await execute(user, made["id"], {})
    assert (draft["output"], draft["test"], draft["version"]) == (2, True, None)


def named(got: Any, execution: str) -> bool:
    return bool(got.body["data"]["execution_id"] == execution)


async def test_workflows_that_start_one_another_come_to_an_end(millrace: Millrace) -> None:
    user = millrace.user
    made = await user.make(
        "/v1/workflows",
        {"name": "again", "status": "published", "nodes": [{"type": "transform", "config": {"value": 1}}]},
    )
    target = {"type": "workflow", "id": made["id"]}
    ends = "e:workflows/workflow.executed"
    await user.make(
        "/v1/subscriptions",
        {"pattern": ends, "filter": {"workflow_id": [made["id"]]}, "target": target},
    )
    await execute(user, made["id"], {})

    async def all_ran() -> bool:
        found = [one async for one in user.every(f"/v1/workflows/{made['id']}/executions?status=completed")]
        assert len(found) <= 33
        return len(found) == 33

    await eventually(all_ran, timeout_s=60, what="the last of them ended")


async def test_a_failed_execution_says_why(millrace: Millrace) -> None:
    user = millrace.user
    node = {"type": "transform", "config": {"expression": "input.missing"}, "retry": {"attempts": 1}}
    made = await user.make("/v1/workflows", {"name": "ill", "status": "published", "nodes": [node]})
    started = await user.make(f"/v1/workflows/{made['id']}/execute", {"input": {}})
    failed = await user.ended(f"/v1/executions/{started['execution_id']}", "failed")
    assert failed["error"]["code"] == "invalid_config"
    assert failed["logs"][-1]["level"] == "error"


async def test_nobody_else_sees_an_execution(millrace: Millrace) -> None:
    made = await millrace.user.make("/v1/workflows", {"name": "mine", "status": "published", "nodes": [SMALL]})
    started = await millrace.user.make(f"/v1/workflows/{made['id']}/execute", {"input": {}})
    asked = await millrace.stranger.ask("GET", f"/v1/executions/{started['execution_id']}")
    assert asked.status == 404
