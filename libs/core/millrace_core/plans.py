"""Plans: what a run executes. Jobs, chains and workflows all compile to one graph of nodes and edges.

A job is one node, a chain a line, a workflow any graph without circles; the decider (`runs`) knows only the graph. A
plan is checked where it is saved (`compile_job`, `compile_chain`, `compile_workflow`) and again where a run begins
(`parse_plan`), since a run carries its plan along.

An edge is taken when the node it comes from has ended and its `when` fits: none fits always, `succeeded` and `failed`
go by how the node ended, and behind a condition any other word is a branch, the one that its expression came to
(`true`, `false`, or a text); `else` is the branch of whatever no other edge of that condition names. A node none of
whose edges is taken is skipped, and so is what lies behind skipped nodes alone.
Every refusal is a Reject whose message names the member and the bound. Not here: expressions inside a config (the
executor compiles them), addresses (`egress` refuses them when connecting).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec

from millrace_core import limits
from millrace_core.errors import Reject

Raw = msgspec.Raw
PlanKind = Literal["job", "chain", "workflow", "action"]
NodeType = Literal["http", "transform", "condition", "publish", "action"]

WHEN_SUCCEEDED: Final = "succeeded"
WHEN_FAILED: Final = "failed"
WHEN_ELSE: Final = "else"


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class RetryPolicy(_Part, frozen=True, gc=False):
    """`attempts` counts the first one too. Waits double from `initial_s` up to `max_s`, or stay at `initial_s`."""

    attempts: int = 3
    backoff: Literal["exponential", "fixed"] = "exponential"
    initial_s: float = 1.0
    max_s: float = 60.0


DEFAULT_RETRY = RetryPolicy()


class Node(_Part, frozen=True):
    """One step. `timeout_s` bounds each attempt; `on_error` says what its last failure does to the run; `join` whether
    it begins when all that comes before it has ended, or as soon as an edge to it is taken."""

    id: str
    type: NodeType
    config: Raw
    retry: RetryPolicy = DEFAULT_RETRY
    timeout_s: float = 30.0
    on_error: Literal["fail", "continue"] = "fail"
    join: Literal["all", "any"] = "all"


class Edge(_Part, frozen=True, gc=False):
    from_: str = msgspec.field(name="from")
    to: str
    when: str | None = None


NO_VARIABLES: Final = Raw(b"{}")


class Plan(_Part, frozen=True):
    """`timeout_s` bounds the whole run, retries and waits included; None = no bound of its own. `variables` is an
    object that every step sees. Version 0 is a workflow's draft: no version yet, and its runs are tests."""

    id: str
    kind: PlanKind
    version: int
    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()
    timeout_s: float | None = None
    variables: Raw = NO_VARIABLES


# ── what a node's config may hold, checked when a plan is saved ─────────────────────────────────────────────────────
class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class HttpConfig(_Config, frozen=True):
    url: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    headers: dict[str, str] = {}
    body: Any = None
    expect: Any = None
    credential: str | None = None  # by id or name; looked up for each attempt, never in the plan


class TransformConfig(_Config, frozen=True):
    """Exactly one of the two: a CEL expression, or a template whose `${…}` are filled in."""

    expression: str | None = None
    value: Any = msgspec.UNSET


class ConditionConfig(_Config, frozen=True):
    """A CEL expression that comes to true, false or a text: the branch that is taken."""

    expression: str


class PublishConfig(_Config, frozen=True):
    provider: str
    name: str
    properties: Any = None
    ordering_key: str | None = None


class ActionConfig(_Config, frozen=True):
    """Which contract, to the letter, and who asked. The parameters are the run's input. Nobody writes such a node:
    `compile_action` makes it when a call has passed the registry, the roles and the confirmation."""

    action: str
    name: str
    version: int
    digest: str
    arguments_hash: str
    actor: str
    role: str
    confirmation: str | None = None
    confirmed_by: str | None = None


_CONFIGS: Mapping[str, type[_Config]] = {
    "http": HttpConfig,
    "transform": TransformConfig,
    "condition": ConditionConfig,
    "publish": PublishConfig,
}
WRITTEN_TYPES: tuple[str, ...] = tuple(_CONFIGS)
"""The types that an author may write."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked plan with its edges as lookups. `entries` have nothing before them, `leaves` nothing after;
    `ancestors` are all nodes on some way to a node, in the plan's order. `whens` are the edges that have one, by
    (from, to); `branches` what the edges of a condition name. `is_plain` = nothing is ever skipped, no one goes ahead
    of a join."""

    plan: Plan
    nodes: Mapping[str, Node]
    predecessors: Mapping[str, tuple[str, ...]]
    successors: Mapping[str, tuple[str, ...]]
    ancestors: Mapping[str, tuple[str, ...]]
    entries: tuple[str, ...]
    leaves: tuple[str, ...]
    whens: Mapping[tuple[str, str], str]
    branches: Mapping[str, frozenset[str]]
    is_plain: bool


def compile_job(node: Node, *, id: str, version: int, name: str, timeout_s: float | None = None) -> Plan:
    """The plan of a job: its one node. Raises Reject with what to change."""
    return _compiled(Plan(id=id, kind="job", version=version, name=name, nodes=(node,), timeout_s=timeout_s))


def compile_chain(nodes: Sequence[Node], *, id: str, version: int, name: str, timeout_s: float | None = None) -> Plan:
    """The plan of a chain: its nodes in a line, in the order given. Raises Reject with what to change."""
    edges = tuple(Edge(from_=one.id, to=following.id) for one, following in pairwise(nodes))
    return _compiled(
        Plan(id=id, kind="chain", version=version, name=name, nodes=tuple(nodes), edges=edges, timeout_s=timeout_s)
    )


def compile_action(config: ActionConfig, *, timeout_s: float) -> Plan:
    """The plan of one call of an action. Not for what users save: jobs and chains may not hold such a node."""
    node = Node(
        id="action",
        type="action",
        config=Raw(_encoder.encode(config)),
        retry=RetryPolicy(
            attempts=limits.ACTION_ATTEMPTS, initial_s=limits.ACTION_RETRY_S, max_s=limits.ACTION_RETRY_S_MAX
        ),
        timeout_s=timeout_s,
    )
    plan = Plan(id=config.action, kind="action", version=config.version, name=config.name, nodes=(node,))
    return checked(plan).plan


def compile_workflow(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    id: str,
    version: int,
    name: str,
    variables: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
) -> Plan:
    """The plan of a workflow. Raises Reject with what to change."""
    return _compiled(
        Plan(
            id=id,
            kind="workflow",
            version=version,
            name=name,
            nodes=tuple(nodes),
            edges=tuple(edges),
            timeout_s=timeout_s,
            variables=raw_config(variables) if variables else NO_VARIABLES,
        )
    )


def encode_plan(plan: Plan) -> bytes:
    """The JSON that a control record and a StartRun carry."""
    return _encoder.encode(plan)


def parse_plan(raw: bytes | Raw) -> Plan:
    """The checked plan behind its JSON. Raises Reject with what was wrong."""
    return graph_of(bytes(raw)).plan


def graph_of(raw: bytes) -> Graph:
    """The checked plan behind its JSON, with its edges as lookups. Raises Reject with what was wrong."""
    if len(raw) > limits.PLAN_BYTES_MAX:
        raise Reject(f"the plan has {len(raw)} bytes; at most {limits.PLAN_BYTES_MAX} are allowed")
    try:
        plan = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Reject(f"not a valid plan: {error}") from None
    return checked(plan)


@lru_cache(maxsize=limits.PLANS_CACHED_MAX)
def remembered_graph_of(account: str, raw: bytes) -> Graph:
    """`graph_of`, parsed once for each account and plan: runs of one plan come in thousands."""
    return graph_of(raw)


def checked(plan: Plan) -> Graph:
    """The plan's graph, when the plan keeps every rule. Raises Reject with the first rule it breaks."""
    _check_bounds(plan)
    nodes = {node.id: node for node in plan.nodes}
    if len(nodes) != len(plan.nodes):
        raise Reject(f"node ids must differ: {_first_repeated([node.id for node in plan.nodes])!r} is there twice")
    for node in plan.nodes:
        _check_node(node)
    graph = _graph(plan, nodes)
    _check_shape(graph)
    return graph


def _compiled(plan: Plan) -> Plan:
    for node in plan.nodes:
        _check_config(node)
    raw = encode_plan(plan)
    return graph_of(raw).plan


def _check_bounds(plan: Plan) -> None:
    if not 1 <= len(plan.nodes) <= limits.PLAN_NODES_MAX:
        raise Reject(f"a plan has 1 to {limits.PLAN_NODES_MAX} nodes, not {len(plan.nodes)}")
    if len(plan.edges) > limits.PLAN_EDGES_MAX:
        raise Reject(f"a plan has at most {limits.PLAN_EDGES_MAX} edges, not {len(plan.edges)}")
    if not (plan.kind != "workflow") <= plan.version < 2**31:
        raise Reject(f"a plan's version is a positive 31-bit number, not {plan.version}")
    if not plan.id or len(plan.id) > limits.PLAN_NAME_CHARS_MAX or len(plan.name) > limits.PLAN_NAME_CHARS_MAX:
        raise Reject(f"a plan's id and name have at most {limits.PLAN_NAME_CHARS_MAX} characters, its id at least one")
    if bytes(plan.variables).lstrip()[:1] != b"{":
        raise Reject("variables is a JSON object")
    if plan.timeout_s is not None and not 0 < plan.timeout_s <= limits.RUN_TIMEOUT_S_MAX:
        raise Reject(f"timeout_s of a plan is above 0 and at most {limits.RUN_TIMEOUT_S_MAX:g}, not {plan.timeout_s:g}")


def _check_node(node: Node) -> None:
    where = f"node {node.id!r}"
    if not 1 <= len(node.id) <= limits.NODE_ID_CHARS_MAX or not set(node.id) <= _ID_CHARS:
        raise Reject(f"a node id is 1 to {limits.NODE_ID_CHARS_MAX} of letters, digits, '_' and '-', not {node.id!r}")
    if not 0 < node.timeout_s <= limits.STEP_TIMEOUT_S_MAX:
        raise Reject(f"{where}: timeout_s is above 0 and at most {limits.STEP_TIMEOUT_S_MAX:g}, not {node.timeout_s:g}")
    retry = node.retry
    if not 1 <= retry.attempts <= limits.STEP_ATTEMPTS_MAX:
        raise Reject(f"{where}: retry.attempts is 1 to {limits.STEP_ATTEMPTS_MAX}, not {retry.attempts}")
    if not 0 <= retry.initial_s <= retry.max_s <= limits.RETRY_DELAY_S_MAX:
        raise Reject(
            f"{where}: 0 <= retry.initial_s <= retry.max_s <= {limits.RETRY_DELAY_S_MAX:g} must hold, "
            f"not {retry.initial_s:g} and {retry.max_s:g}"
        )
    if bytes(node.config).lstrip()[:1] != b"{":
        raise Reject(f"{where}: config is a JSON object")


def _check_config(node: Node) -> None:
    try:
        config = msgspec.json.decode(node.config, type=_CONFIGS[node.type])
    except KeyError:
        raise Reject(f"node {node.id!r}: type is one of {', '.join(_CONFIGS)}, not {node.type!r}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Reject(f"node {node.id!r}: config: {error}") from None
    if isinstance(config, HttpConfig) and not 1 <= len(config.url) <= limits.URL_CHARS_MAX:
        raise Reject(f"node {node.id!r}: config.url has 1 to {limits.URL_CHARS_MAX} characters")
    if isinstance(config, TransformConfig):
        if (config.expression is None) == (config.value is msgspec.UNSET):
            raise Reject(f"node {node.id!r}: config has exactly one of expression and value")
        if len(config.expression or "") > limits.EXPRESSION_CHARS_MAX:
            raise Reject(f"node {node.id!r}: config.expression has at most {limits.EXPRESSION_CHARS_MAX} characters")
    if isinstance(config, ConditionConfig) and not 1 <= len(config.expression) <= limits.EXPRESSION_CHARS_MAX:
        raise Reject(f"node {node.id!r}: config.expression has 1 to {limits.EXPRESSION_CHARS_MAX} characters")


def _graph(plan: Plan, nodes: Mapping[str, Node]) -> Graph:
    before: dict[str, list[str]] = {id: [] for id in nodes}
    after: dict[str, list[str]] = {id: [] for id in nodes}
    for edge in plan.edges:
        for end in (edge.from_, edge.to):
            if end not in nodes:
                raise Reject(f"an edge names node {end!r}, which the plan does not have")
        if edge.to in after[edge.from_]:
            raise Reject(f"the edge from {edge.from_!r} to {edge.to!r} is there twice")
        _check_when(edge, nodes[edge.from_])
        before[edge.to].append(edge.from_)
        after[edge.from_].append(edge.to)
    whens = {(edge.from_, edge.to): edge.when for edge in plan.edges if edge.when is not None}
    return Graph(
        plan=plan,
        nodes=nodes,
        predecessors={id: tuple(ids) for id, ids in before.items()},
        successors={id: tuple(ids) for id, ids in after.items()},
        ancestors=_ancestors(before, after),
        entries=tuple(id for id, ids in before.items() if not ids),
        leaves=tuple(id for id, ids in after.items() if not ids),
        whens=whens,
        branches={id: frozenset(whens[id, to] for to in ids if (id, to) in whens) for id, ids in after.items()},
        is_plain=not whens and all(node.join == "all" for node in plan.nodes),
    )


def _check_when(edge: Edge, source: Node) -> None:
    when = edge.when
    if when is None or when in (WHEN_SUCCEEDED, WHEN_FAILED):
        return
    where = f"the edge from {edge.from_!r} to {edge.to!r}"
    if not 1 <= len(when) <= limits.BRANCH_CHARS_MAX:
        raise Reject(f"{where}: when has 1 to {limits.BRANCH_CHARS_MAX} characters")
    if source.type != "condition":
        raise Reject(
            f"{where}: when is {WHEN_SUCCEEDED!r} or {WHEN_FAILED!r}, not {when!r}: "
            "only a condition has branches of its own"
        )


def _ancestors(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """All nodes on some way to each node. Walks the edges from the entries on, so a circle shows as what is left."""
    open_edges = {id: len(ids) for id, ids in before.items()}
    free = [id for id, count in open_edges.items() if not count]
    found: dict[str, set[str]] = {}
    while free:
        id = free.pop()
        found[id] = set(before[id]).union(*(found[one] for one in before[id]))
        for follower in after[id]:
            open_edges[follower] -= 1
            if not open_edges[follower]:
                free.append(follower)
    if len(found) < len(before):
        raise Reject(f"the edges go in a circle through {', '.join(sorted(before.keys() - found.keys())[:5])}")
    return {id: tuple(one for one in before if one in found[id]) for id in before}


def _check_shape(graph: Graph) -> None:
    kind, count = graph.plan.kind, len(graph.nodes)
    if kind in ("job", "action") and count != 1:
        raise Reject(f"{'an' if kind == 'action' else 'a'} {kind} has one node, not {count}")
    line = len(graph.entries) == 1 and all(len(after) <= 1 for after in graph.successors.values())
    if kind == "chain" and not (line and len(graph.plan.edges) == count - 1):
        raise Reject("a chain's nodes stand in one line: each edge leads from a node to the next")


def _first_repeated(ids: Sequence[str]) -> str:
    return next(id for at, id in enumerate(ids) if id in ids[:at])


_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Plan] = msgspec.json.Decoder(Plan)


def raw_config(config: Mapping[str, Any]) -> Raw:
    """A node's config from a dictionary."""
    return Raw(_encoder.encode(config))
