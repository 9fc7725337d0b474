"""Plans: what compiles, what is refused and in which words."""

from typing import Any

import msgspec
import pytest

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.plans import (
    Edge,
    Node,
    RetryPolicy,
    compile_chain,
    compile_job,
    compile_workflow,
    encode_plan,
    graph_of,
    parse_plan,
    raw_config,
)
from tests.support.plans import HTTP, chain, graph, node


def test_a_job_is_one_node_and_survives_its_json() -> None:
    plan = compile_job(node("call", timeout_s=5), id="job_1", version=3, name="Call", timeout_s=60)
    assert parse_plan(encode_plan(plan)) == plan
    assert (plan.kind, plan.edges, plan.timeout_s) == ("job", (), 60)


def test_a_chain_is_a_line() -> None:
    read = graph_of(chain(node("a"), node("b"), node("c")))
    assert read.entries == ("a",)
    assert read.leaves == ("c",)
    assert read.predecessors["c"] == ("b",)
    assert read.ancestors["c"] == ("a", "b")


def test_a_graph_may_branch_and_join() -> None:
    read = graph_of(graph([node(id) for id in "abcd"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]))
    assert read.successors["a"] == ("b", "c")
    assert read.ancestors["d"] == ("a", "b", "c")


def test_config_keeps_its_bytes() -> None:
    plan = compile_job(
        Node(id="a", type="http", config=msgspec.Raw(b'{"url":"http://x","body":{"n":1e2}}')),
        id="job_1",
        version=1,
        name="",
    )
    assert bytes(parse_plan(encode_plan(plan)).nodes[0].config) == b'{"url":"http://x","body":{"n":1e2}}'


def _plan(**more: Any) -> bytes:
    one = {"id": "a", "type": "http", "config": {"url": "http://x"}}
    return msgspec.json.encode({"id": "p", "kind": "workflow", "version": 1, "name": "", "nodes": [one], **more})


def _node(**more: Any) -> bytes:
    return _plan(nodes=[{"id": "a", "type": "http", "config": {}, **more}])


TWO = [{"id": id, "type": "http", "config": {}} for id in "ab"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "not a valid plan", id="empty"),
        pytest.param(b"\xff", "not a valid plan", id="no text"),
        pytest.param(b"[" * 100_000, "not a valid plan", id="deep"),
        pytest.param(b" " * (limits.PLAN_BYTES_MAX + 1), "bytes", id="too many bytes"),
        pytest.param(_plan(nodes=[]), "1 to 100 nodes", id="no node"),
        pytest.param(_plan(nodes=[{**TWO[0], "id": f"n{n}"} for n in range(101)]), "1 to 100 nodes", id="many nodes"),
        pytest.param(_plan(nodes=[TWO[0], TWO[0]]), "'a' is there twice", id="an id twice"),
        pytest.param(_plan(kind="job", version=0), "version", id="version 0"),
        pytest.param(_plan(version=2**31), "version", id="huge version"),
        pytest.param(_plan(id=""), "id", id="no id"),
        pytest.param(_plan(name="x" * 257), "name", id="long name"),
        pytest.param(_plan(timeout_s=0), "timeout_s of a plan", id="no time"),
        pytest.param(_plan(timeout_s=1e9), "timeout_s of a plan", id="too much time"),
        pytest.param(_plan(kind="job", nodes=TWO), "a job has one node", id="a job of two"),
        pytest.param(_plan(kind="chain", nodes=TWO), "one line", id="a chain without edges"),
        pytest.param(_plan(nodes=TWO, edges=[{"from": "a", "to": "c"}]), "'c'", id="edge to nowhere"),
        pytest.param(_plan(nodes=TWO, edges=[{"from": "a", "to": "b"}] * 2), "there twice", id="edge twice"),
        pytest.param(
            _plan(nodes=TWO, edges=[{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]), "circle", id="circle"
        ),
        pytest.param(_plan(edges=[{"from": "a", "to": "a"}]), "circle", id="edge to itself"),
        pytest.param(_node(id="a b"), "node id", id="a blank in an id"),
        pytest.param(_node(id="é"), "node id", id="a letter that would need escaping"),
        pytest.param(_node(type="code"), "type", id="unknown type"),
        pytest.param(_node(timeout_s=301), "timeout_s", id="step timeout"),
        pytest.param(_node(retry={"attempts": 0}), "attempts", id="no attempt"),
        pytest.param(_node(retry={"attempts": 21}), "attempts", id="too many attempts"),
        pytest.param(_node(retry={"initial_s": 5, "max_s": 1}), "initial_s", id="initial over max"),
        pytest.param(_node(retry={"initial_s": -1}), "initial_s", id="negative wait"),
        pytest.param(_node(retry={"max_s": 1e6}), "max_s", id="longest wait"),
        pytest.param(_node(retry={"backoff": "linear"}), "backoff", id="unknown backoff"),
        pytest.param(_node(on_error="ignore"), "on_error", id="unknown on_error"),
        pytest.param(_node(join="most"), "join", id="unknown join"),
        pytest.param(_plan(variables=[]), "variables", id="variables are a list"),
        pytest.param(
            _plan(nodes=TWO, edges=[{"from": "a", "to": "b", "when": "true"}]),
            "only a condition",
            id="a branch of none",
        ),
        pytest.param(_plan(nodes=TWO, edges=[{"from": "a", "to": "b", "when": ""}]), "characters", id="empty when"),
        pytest.param(_node(config=[]), "config is a JSON object", id="config is a list"),
    ],
)
def test_refuses(raw: bytes, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        parse_plan(raw)


@pytest.mark.parametrize(
    ("type", "config", "reason"),
    [
        ("http", {}, "url"),
        ("http", {"url": ""}, "url"),
        ("http", {"url": "http://x", "methd": "GET"}, "methd"),
        ("http", {"url": "http://x", "method": "FETCH"}, "method"),
        ("transform", {}, "exactly one"),
        ("transform", {"expression": "1", "value": None}, "exactly one"),
        ("transform", {"expression": "1" * 5_000}, "characters"),
        ("publish", {"provider": "x"}, "name"),
        ("condition", {}, "expression"),
        ("condition", {"expression": ""}, "characters"),
    ],
)
def test_saving_checks_what_a_config_holds(type: Any, config: dict[str, Any], reason: str) -> None:
    one = Node(id="a", type=type, config=raw_config(config))
    with pytest.raises(Reject, match=reason):
        compile_job(one, id="job_1", version=1, name="")


def test_a_template_that_is_null_is_a_template() -> None:
    compile_job(
        Node(id="a", type="transform", config=raw_config({"value": None})), id="job_1", version=1, name="nothing"
    )


def test_a_running_plan_tolerates_what_a_newer_release_added() -> None:
    raw = _plan(later=1, nodes=[{"id": "a", "type": "http", "config": {"url": "http://x", "later": 1}, "later": 1}])
    assert parse_plan(raw).nodes[0].id == "a"


def test_the_longest_chain_compiles() -> None:
    nodes = [Node(id=f"n{n}", type="http", config=HTTP, retry=RetryPolicy()) for n in range(limits.PLAN_NODES_MAX)]
    assert len(compile_chain(nodes, id="chn_1", version=1, name="").edges) == limits.PLAN_NODES_MAX - 1


def test_nobody_writes_the_node_of_an_action() -> None:
    """It would pass by the registry, the roles and the confirmation."""
    config = raw_config({"action": "act_1", "name": "a.b", "version": 1})
    with pytest.raises(Reject, match="type is one of http, transform, condition, publish, not 'action'"):
        compile_job(Node(id="a", type="action", config=config), id="job_1", version=1, name="x")


def test_a_draft_has_no_version_and_only_a_workflow_has_drafts() -> None:
    assert parse_plan(_plan(version=0)).version == 0


def test_a_workflow_has_branches_joins_and_variables() -> None:
    condition = Node(id="if", type="condition", config=raw_config({"expression": "input.n > 1"}))
    nodes = [condition, *(Node(id=id, type="http", config=raw_config({"url": "http://x"})) for id in "ab")]
    last = Node(id="last", type="transform", config=raw_config({"value": 1}), join="any")
    edges = [
        Edge(from_="if", to="a", when="true"),
        Edge(from_="if", to="b", when="else"),
        Edge(from_="a", to="last"),
        Edge(from_="b", to="last", when="failed"),
    ]
    plan = compile_workflow([*nodes, last], edges, id="wf_1", version=3, name="w", variables={"x": 1})
    graph = graph_of(encode_plan(plan))
    assert not graph.is_plain
    assert graph.branches["if"] == {"true", "else"}
    assert graph.leaves == ("last",)
    assert bytes(plan.variables) == b'{"x":1}'
    with pytest.raises(Reject, match="type is one of"):
        compile_workflow([Node(id="a", type="action", config=raw_config({}))], [], id="wf_1", version=1, name="w")
