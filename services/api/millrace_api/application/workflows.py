"""Workflows: graphs of nodes that are saved as drafts, published as versions, and run by hand or by events.

What is saved is checked at once, but that a draft may have no nodes yet. Publishing makes the next version out of what
was saved last; events start the newest published version, through subscriptions, and a draft is started by none. An
execution by hand runs what was saved last: when that was never published it is a test, and its plan has version 0.
A run pins the plan it began with. Not here: what becomes of a run (`executions`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
import orjson

from millrace_api.application import credentials, merging, plans, subscriptions
from millrace_api.application.changes import Change
from millrace_api.application.notation import stored
from millrace_api.application.problems import Conflict, Invalid, NotFound, at
from millrace_core import ids, limits
from millrace_core.egress import Network
from millrace_core.plans import WRITTEN_TYPES, Edge, Node, compile_workflow, encode_plan, parse_plan
from millrace_store import queries
from millrace_store.aggregates import Row, workflow_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/workflows")
Status = Literal["draft", "published"]
DRAFT_VERSION = 0


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """`version` is the newest that was published; with `has_draft` something else was saved since."""

    id: str
    name: str
    description: str | None
    status: Status
    version: int | None
    has_draft: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class WorkflowView(WorkflowSummary):
    """A workflow as it was saved last."""

    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]]
    variables: dict[str, Any]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class VersionView:
    """A workflow as it was published."""

    version: int
    name: str
    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]]
    variables: dict[str, Any]
    timeout_s: float | None
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A workflow as its owner wants it. Nodes are JSON as `plans.Node` reads it."""

    name: str
    description: str | None = None
    nodes: Sequence[dict[str, Any]] = ()
    edges: Sequence[dict[str, Any]] = ()
    variables: dict[str, Any] | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Runnable:
    """What an execution by hand pins."""

    plan: bytes
    is_test: bool


async def create(
    change: Change, account: str, wanted: Wanted, *, status: Status, egress: Sequence[Network]
) -> WorkflowView:
    total_now = await total(change.tx, account)
    if total_now >= limits.WORKFLOWS_MAX:
        raise Conflict(f"This account has {total_now} workflows, the most it may have: delete some first.")
    id = ids.new_id(ids.WORKFLOW)
    await _hold_credentials(change.tx, account, wanted)
    row: Row | None = await change.tx.fetchrow(
        _SQL["insert_workflow"],
        account,
        ids.uuid_of(id),
        wanted.name,
        wanted.description,
        _definition(wanted),
        _compiled(wanted, id=id, version=DRAFT_VERSION, egress=egress),
        change.now,
    )
    assert row is not None
    if status == "published":
        row = await _save(change, row, wanted, status=status, egress=egress)
    return _view(row)


async def get(tx: Connection, account: str, id: str) -> WorkflowView:
    return _view(await _row(tx, account, id, "get_workflow"))


async def listed(
    tx: Connection,
    account: str,
    *,
    below: UUID | None,
    count: int,
    skipped: int,
    status: Status | None,
    search: str | None,
) -> list[WorkflowSummary]:
    """Newest first."""
    rows = await tx.fetch(_SQL["list_workflows"], account, below, status, search, count, skipped)
    return [WorkflowSummary(**_summary(row)) for row in rows]


async def total(tx: Connection, account: str, *, status: Status | None = None, search: str | None = None) -> int:
    """How many there are of them."""
    row = await tx.fetchrow(_SQL["count_workflows"], account, status, search)
    assert row is not None
    return int(row["total"])


async def update(
    change: Change,
    account: str,
    id: str,
    wanted: dict[str, Any],
    *,
    status: Status | None,
    egress: Sequence[Network],
) -> WorkflowView:
    """Change the members named in `wanted` (those of Wanted) of what was saved last. `published` then makes it the next
    version, `draft` takes the workflow out of the hands of events."""
    current = await _row(change.tx, account, id, "lock_workflow")
    merged = merging.merged(Wanted, _view(current), wanted)
    return _view(await _save(change, current, merged, status=status or current["status"], egress=egress, named=status))


async def delete(change: Change, account: str, id: str) -> None:
    """Raises Conflict while subscriptions point at it. Runs under way go on."""
    current = await _row(change.tx, account, id, "lock_workflow")
    await subscriptions.refuse_if_used(change.tx, account, "workflow", current["id"], what="workflow")
    row = await change.tx.fetchrow(_SQL["delete_workflow"], account, current["id"], change.now)
    assert row is not None
    await change.publish(workflow_entry(row))


async def versions(tx: Connection, account: str, id: str, *, below: int | None, count: int) -> list[VersionView]:
    """Newest first."""
    workflow = await _row(tx, account, id, "get_workflow")
    rows = await tx.fetch(_SQL["list_versions"], account, workflow["id"], below, count)
    return [
        VersionView(
            version=row["n"],
            name=row["name"],
            published_at=row["published_at"],
            **orjson.loads(row["definition"]),
        )
        for row in rows
    ]


async def runnable(tx: Connection, account: str, id: str) -> Runnable:
    """What was saved last. Raises Conflict when there is nothing to run yet."""
    row = await _row(tx, account, id, "get_workflow")
    if row["status"] == "published" and not row["is_changed"]:
        return Runnable(bytes(row["compiled"]), is_test=False)
    if row["draft"] is None:
        raise Conflict("This workflow has no nodes yet: there is nothing to execute.")
    return Runnable(bytes(row["draft"]), is_test=True)


async def nodes_in_force(tx: Connection, account: str, id: str) -> int:
    """How many the version has that events start; 0 = they start none."""
    row = await _row(tx, account, id, "get_workflow")
    return len(parse_plan(bytes(row["compiled"])).nodes) if row["status"] == "published" else 0


async def _save(
    change: Change,
    current: Row,
    wanted: Wanted,
    *,
    status: Status,
    egress: Sequence[Network],
    named: Status | None = "published",
) -> Row:
    account, id = current["account"], ids.prefixed(ids.WORKFLOW, current["id"])
    draft = _compiled(wanted, id=id, version=DRAFT_VERSION, egress=egress)
    await _hold_credentials(change.tx, account, wanted)
    published, compiled = current["published"], current["compiled"]
    is_changed = compiled is None or _compiled(wanted, id=id, version=published, egress=egress) != bytes(compiled)
    if named == "published" and is_changed:
        if draft is None:
            raise Invalid("a workflow without nodes cannot be published", where="nodes")
        published, is_changed = published + 1, False
        compiled = _compiled(wanted, id=id, version=published, egress=egress)
        await change.tx.execute(
            _SQL["insert_version"], account, current["id"], published, wanted.name, _definition(wanted), change.now
        )
    row = await change.tx.fetchrow(
        _SQL["save_workflow"],
        account,
        current["id"],
        wanted.name,
        wanted.description,
        status,
        _definition(wanted),
        draft,
        is_changed,
        published,
        compiled,
        change.now,
    )
    assert row is not None
    if (row["compiled"], row["status"]) != (current["compiled"], current["status"]):
        await change.publish(workflow_entry(row))
    return row


async def _row(tx: Connection, account: str, id: str, statement: str) -> Row:
    row = await tx.fetchrow(_SQL[statement], account, stored(id, "workflow", ids.WORKFLOW))
    if row is None:
        raise NotFound("workflow", id)
    return row


async def _hold_credentials(tx: Connection, account: str, wanted: Wanted) -> None:
    configs = [(f"nodes.{index}.config", node.get("config")) for index, node in enumerate(wanted.nodes)]
    await credentials.hold_all(tx, account, configs)


# ── what is saved, checked ──────────────────────────────────────────────────────────────────────────────────────────
def _compiled(wanted: Wanted, *, id: str, version: int, egress: Sequence[Network]) -> bytes | None:
    """The plan; None while there are no nodes. Raises Invalid with what to change."""
    if not wanted.nodes and not wanted.edges:
        return None
    nodes = [_node(node, index, egress) for index, node in enumerate(wanted.nodes)]
    edges = [_edge(edge, index) for index, edge in enumerate(wanted.edges)]
    with at("nodes"):
        plan = compile_workflow(
            nodes,
            edges,
            id=id,
            version=version,
            name=wanted.name,
            variables=wanted.variables,
            timeout_s=wanted.timeout_s,
        )
    return encode_plan(plan)


def _node(node: dict[str, Any], index: int, egress: Sequence[Network]) -> Node:
    where = f"nodes.{index}"
    if node["type"] not in WRITTEN_TYPES:
        raise Invalid(f"one of {', '.join(WRITTEN_TYPES)}, not {node['type'][:64]!r}", where=f"{where}.type")
    try:
        read = msgspec.json.decode(orjson.dumps({"id": f"node_{index + 1}"} | node), type=Node)
    except (msgspec.DecodeError, TypeError) as error:
        raise Invalid(str(error), where=where) from None
    plans.check_config(read, node["config"], where=f"{where}.config", egress=egress)
    return read


def _edge(edge: dict[str, Any], index: int) -> Edge:
    when = edge.get("when")
    if isinstance(when, bool):  # the branches of a comparison, as one would write them
        edge = {**edge, "when": "true" if when else "false"}
    try:
        return msgspec.json.decode(orjson.dumps(edge), type=Edge)
    except (msgspec.DecodeError, TypeError) as error:
        raise Invalid(str(error), where=f"edges.{index}") from None


def _definition(wanted: Wanted) -> str:
    return orjson.dumps(
        {
            "nodes": list(wanted.nodes),
            "edges": list(wanted.edges),
            "variables": wanted.variables or {},
            "timeout_s": wanted.timeout_s,
        }
    ).decode()


def _summary(row: Row) -> dict[str, Any]:
    return {
        "id": ids.prefixed(ids.WORKFLOW, row["id"]),
        "name": row["name"],
        "description": row["description"],
        "status": row["status"],
        "version": row["published"] or None,
        "has_draft": row["is_changed"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _view(row: Row) -> WorkflowView:
    return WorkflowView(**_summary(row), **orjson.loads(row["definition"]))
