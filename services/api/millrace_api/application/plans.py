"""Jobs and chains: what runs execute. Both are written as steps and compiled to a plan when they are saved.

A run pins the plan it began with, so saving a new version changes no run that is under way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
import orjson

from millrace_api.application import credentials, merging, subscriptions
from millrace_api.application.changes import Change
from millrace_api.application.notation import stored
from millrace_api.application.problems import Invalid, NotFound, at
from millrace_core import expressions, ids, plans
from millrace_core.egress import Network, check_url
from millrace_core.errors import Reject
from millrace_store import queries
from millrace_store.aggregates import PLAN_PREFIX, Row, plan_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/plans")

Kind = Literal["job", "chain"]


@dataclass(frozen=True, slots=True)
class PlanView:
    """A job (one step) or a chain (steps in a line), as its author wrote it."""

    id: str
    kind: Kind
    name: str
    description: str | None
    steps: list[dict[str, Any]]
    timeout_s: float | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job or chain as its owner wants it. Steps are JSON as `plans.Node` reads it."""

    name: str
    steps: Sequence[dict[str, Any]]
    description: str | None = None
    timeout_s: float | None = None


async def create(change: Change, account: str, kind: Kind, wanted: Wanted, *, egress: Sequence[Network]) -> PlanView:
    id = ids.new_id(PLAN_PREFIX[kind])
    compiled = _compiled(kind, wanted, id=id, version=1, egress=egress)
    await _hold_credentials(change, account, wanted)
    row = await change.tx.fetchrow(
        _SQL["insert_plan"],
        account,
        ids.uuid_of(id),
        kind,
        wanted.name,
        wanted.description,
        _definition(wanted),
        compiled,
        change.now,
    )
    assert row is not None
    await change.publish(plan_entry(row))
    return _view(row)


async def get(tx: Connection, account: str, kind: Kind, id: str) -> PlanView:
    return _view(await _row(tx, account, kind, id, "get_plan"))


async def compiled(tx: Connection, account: str, kind: Kind, id: str) -> bytes:
    """The plan that a run of it pins now."""
    row = await _row(tx, account, kind, id, "get_plan")
    return bytes(row["compiled"])


async def listed(tx: Connection, account: str, kind: Kind, *, below: UUID | None, count: int) -> list[PlanView]:
    return [_view(row) for row in await tx.fetch(_SQL["list_plans"], account, kind, below, count)]


async def update(
    change: Change, account: str, kind: Kind, id: str, wanted: dict[str, Any], *, egress: Sequence[Network]
) -> PlanView:
    """Change the members named in `wanted` (those of Wanted); the rest stays. Makes the next version."""
    current = await _row(change.tx, account, kind, id, "lock_plan")
    merged = merging.merged(Wanted, _view(current), wanted)
    version = current["version"] + 1
    compiled = _compiled(kind, merged, id=id, version=version, egress=egress)
    await _hold_credentials(change, account, merged)
    row = await change.tx.fetchrow(
        _SQL["update_plan"],
        account,
        current["id"],
        version,
        merged.name,
        merged.description,
        _definition(merged),
        compiled,
        change.now,
    )
    assert row is not None
    await change.publish(plan_entry(row))
    return _view(row)


async def delete(change: Change, account: str, kind: Kind, id: str) -> None:
    """Raises Conflict while subscriptions point at it. Runs under way go on."""
    current = await _row(change.tx, account, kind, id, "lock_plan")
    await subscriptions.refuse_if_used(change.tx, account, kind, current["id"], what=kind)
    row = await change.tx.fetchrow(_SQL["delete_plan"], account, current["id"], change.now)
    assert row is not None
    await change.publish(plan_entry(row))


async def _row(tx: Connection, account: str, kind: Kind, id: str, statement: str) -> Row:
    row = await tx.fetchrow(_SQL[statement], account, stored(id, kind, PLAN_PREFIX[kind]), kind)
    if row is None:
        raise NotFound(kind, id)
    return row


def _compiled(kind: Kind, wanted: Wanted, *, id: str, version: int, egress: Sequence[Network]) -> bytes:
    nodes = [_node(step, index) for index, step in enumerate(wanted.steps)]
    for index, (node, step) in enumerate(zip(nodes, wanted.steps, strict=True)):
        check_config(node, step["config"], where=f"steps.{index}.config", egress=egress)
    with at("steps"):
        if kind == "chain":
            plan = plans.compile_chain(nodes, id=id, version=version, name=wanted.name, timeout_s=wanted.timeout_s)
        elif len(nodes) == 1:
            plan = plans.compile_job(nodes[0], id=id, version=version, name=wanted.name, timeout_s=wanted.timeout_s)
        else:
            raise Invalid("a job has exactly one step; make a chain of several", where="steps")
        return plans.encode_plan(plan)


async def _hold_credentials(change: Change, account: str, wanted: Wanted) -> None:
    configs = [(f"steps.{index}.config", step["config"]) for index, step in enumerate(wanted.steps)]
    await credentials.hold_all(change.tx, account, configs)


def _node(step: dict[str, Any], index: int) -> plans.Node:
    named = {"id": f"step_{index + 1}"} | {name: value for name, value in step.items() if value is not None}
    try:
        return msgspec.json.decode(orjson.dumps(named), type=plans.Node)
    except (msgspec.DecodeError, TypeError) as error:
        raise Invalid(str(error), where=f"steps.{index}") from None


def check_config(node: plans.Node, config: Any, *, where: str, egress: Sequence[Network]) -> None:
    """What can be known of a config before it runs: its expressions compile, its URL may be sent to."""
    with at(where):
        if node.type in ("transform", "condition") and isinstance(config.get("expression"), str):
            expressions.compiled(config["expression"])
            return
        expressions.check_template(config)
    url = config.get("url")
    if node.type == "http" and isinstance(url, str) and "${" not in url:
        try:
            check_url(url, egress)
        except Reject as error:
            raise Invalid(str(error), where=f"{where}.url") from None


def _definition(wanted: Wanted) -> str:
    return orjson.dumps({"steps": list(wanted.steps), "timeout_s": wanted.timeout_s}).decode()


def _view(row: Row) -> PlanView:
    definition = orjson.loads(row["definition"])
    return PlanView(
        id=ids.prefixed(PLAN_PREFIX[row["kind"]], row["id"]),
        kind=row["kind"],
        name=row["name"],
        description=row["description"],
        steps=definition["steps"],
        timeout_s=definition["timeout_s"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
