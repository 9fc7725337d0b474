"""Plans and ids for tests, in a line."""

from collections.abc import Sequence
from typing import Any

from millrace_core.ids import EVENT, derived_id, run_id_of
from millrace_core.messages import EventRef, FlowPart, Raw, StartRun
from millrace_core.plans import (
    Edge,
    Node,
    Plan,
    RetryPolicy,
    checked,
    compile_chain,
    compile_job,
    encode_plan,
    raw_config,
)

ACCOUNT = "acc_1"
NOW_MS = 1_700_000_000_000
HTTP = raw_config({"url": "http://127.0.0.1/hook"})


def node(id: str = "call", **more: Any) -> Node:
    """A node that calls out; one attempt unless told."""
    more.setdefault("retry", RetryPolicy(attempts=1))
    return Node(id=id, type="http", config=HTTP, **more)


def job(one: Node | None = None, **more: Any) -> bytes:
    return encode_plan(compile_job(one or node(), id="job_1", version=1, name="a job", **more))


def chain(*nodes: Node, **more: Any) -> bytes:
    return encode_plan(compile_chain(nodes, id="chn_1", version=1, name="a chain", **more))


def condition(id: str = "if", **more: Any) -> Node:
    """A node that picks a branch; one attempt unless told."""
    more.setdefault("retry", RetryPolicy(attempts=1))
    return Node(id=id, type="condition", config=raw_config({"expression": "input.a"}), **more)


def graph(nodes: Sequence[Node], edges: Sequence[tuple[str, str] | tuple[str, str, str | None]], **more: Any) -> bytes:
    """A workflow; an edge is its ends, and its `when` if it has one."""
    lines = tuple(Edge(from_=edge[0], to=edge[1], when=edge[2] if len(edge) > 2 else None) for edge in edges)
    plan = Plan(id="wf_1", kind="workflow", version=1, name="a graph", nodes=tuple(nodes), edges=lines, **more)
    return encode_plan(checked(plan).plan)


def event_id(n: int = 1) -> str:
    return derived_id(EVENT, NOW_MS, "test", str(n))


def run_id(n: int = 1) -> str:
    return run_id_of(event_id(n), "sub_1")


def start(
    plan: bytes,
    *,
    n: int = 1,
    input: bytes = b'{"a": 1e2}',
    account: str = ACCOUNT,
    subscription: str = "sub_1",
    flow: FlowPart | None = None,
    account_flow: FlowPart | None = None,
) -> StartRun:
    event = EventRef(id=event_id(n), identifier="e:github/push", received_at=NOW_MS)
    return StartRun(
        run=run_id(n),
        account=account,
        plan=Raw(plan),
        subscription=subscription,
        event=event,
        flow=flow,
        account_flow=account_flow,
        input=Raw(input),
    )
