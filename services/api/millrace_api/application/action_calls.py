"""Calls of registered actions: let in, confirmed where their contract asks for it, run, and answered with the result.

A call is a run of one node of type `action`: it stands on the log, is counted, survives every crash, and is in
`/v1/runs`. It is let in when its contract is registered and holds, the caller's role may run it and the parameters
are right. A confirmation is bound to a hash of whose call it is, of the contract and of the parameters, is decided
once, and its run's id follows from it: a crash between the decision and the log is mended by asking again, never by a
second run.
Not here: contracts (`actions`), the request to the endpoint (the executor).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

import orjson

from millrace_api.application import actions, runs
from millrace_api.application.actions import Registered
from millrace_api.application.database import Database
from millrace_api.application.keys import KeyMaker
from millrace_api.application.notation import stored
from millrace_api.application.problems import Conflict, Forbidden, Invalid, NotFound
from millrace_api.application.runs import End, Log, Place
from millrace_api.application.views import Json, raw
from millrace_core import actions as contracts
from millrace_core import audit, ids, limits, plans
from millrace_core.actions import WrongParams
from millrace_core.clock import Clock
from millrace_core.errors import Reject
from millrace_core.messages import AuditEntry, AuditKind, Raw
from millrace_core.plans import ActionConfig
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/actions")
State = Literal["pending", "confirmed", "refused", "expired"]
STATES: tuple[State, ...] = get_args(State)
SURFACE = b"ops"
_COMMAND_KNOWN = timedelta(milliseconds=limits.COMMAND_ID_MEMORY_MS)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: his key, and the role he has by it."""

    account: str
    key: str
    role: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in."""

    actor: Actor
    registered: Registered
    params: bytes
    arguments_hash: str
    needs_confirmation: bool


@dataclass(frozen=True, slots=True)
class ConfirmationView:
    """The card a person is shown: exactly what will be done, and until when he may say yes."""

    id: str
    action: str
    params: Json
    expires_at: datetime
    state: State
    params_hash: str
    contract_digest: str
    roles: list[str]
    prompt: str | None
    requested_by: str
    requested_role: str
    created_at: datetime
    decided_by: str | None
    decided_role: str | None
    decided_at: datetime | None
    run: str | None


async def let_in(
    tx: Connection, actor: Actor, name: str, params: Mapping[str, Any], *, maker: KeyMaker, now: datetime
) -> Call:
    """The call, if it may be made. Raises NotFound, Forbidden, Invalid, Conflict: nothing that is not in the registry
    can be called, whatever asks."""
    registered = await actions.runnable(tx, actor.account, name, maker=maker, now=now)
    contract = registered.contract
    if not contracts.may_run(contract, actor.role):
        least = contracts.lowest(contract.roles)
        raise Forbidden(f"{name} may be run by the role {least!r} and above; this caller's role is {actor.role!r}.")
    try:
        checked = contracts.params_of(contract, params)
    except WrongParams as error:
        member = error.wrong[0][0]
        raise Invalid(str(error), where=f"params.{member}" if member else "params") from None
    except Reject as error:
        raise Invalid(str(error), where="params") from None
    return Call(
        actor=actor,
        registered=registered,
        params=checked,
        arguments_hash=contracts.arguments_hash(actor.account, name, registered.digest, checked),
        needs_confirmation=contracts.needs_confirmation(contract, params),
    )


async def ask(tx: Connection, call: Call, *, id: str, prompt: str | None, now: datetime) -> ConfirmationView:
    """Put the call before a person. The same id is the same card."""
    contract, actor = call.registered.contract, call.actor
    row = await tx.fetchrow(
        _SQL["insert_confirmation"],
        actor.account,
        ids.uuid_of(id),
        ids.uuid_of(call.registered.id),
        contract.id,
        call.registered.version,
        call.registered.digest,
        call.params,
        call.arguments_hash,
        prompt,
        list(contracts.confirmers(contract)),
        actor.key,
        actor.role,
        now,
        now + timedelta(seconds=contract.confirmation.expires_s),
    )
    if row is None:
        return await confirmation(tx, actor.account, id, now=now)
    return _view(row, now)


async def confirmation(tx: Connection, account: str, id: str, *, now: datetime) -> ConfirmationView:
    row = await tx.fetchrow(_SQL["get_confirmation"], account, _stored(id))
    if row is None:
        raise NotFound("confirmation", id)
    return _view(row, now)


async def confirmations(
    tx: Connection, account: str, *, below: UUID | None, count: int, state: str | None, now: datetime
) -> list[ConfirmationView]:
    """Newest first."""
    if state is not None and state not in STATES:
        raise Invalid(f"one of {', '.join(STATES)}", where="state")
    return [_view(row, now) for row in await tx.fetch(_SQL["list_confirmations"], account, below, count, state, now)]


async def confirm(
    tx: Connection, actor: Actor, id: str, *, params_hash: str | None, maker: KeyMaker, now: datetime
) -> tuple[Call, ConfirmationView]:
    """Say yes, once: the call that follows. Asked again by the same person it is the same call, for whoever crashed
    before its run was on the log. Raises Conflict when it is too late, or is not what was asked for any more."""
    row = await _pending(tx, actor, id, now=now, again="confirmed")
    if params_hash is not None and params_hash != row["arguments_hash"]:
        raise Conflict("This is not what was shown: params_hash is another. Read the confirmation again.")
    call = await _call_of(tx, row, actor, maker=maker, now=now)
    if row["state"] == "pending":
        row = await _decided(tx, row, "confirmed", actor, now)
    return call, _view(row, now)


async def refuse(tx: Connection, actor: Actor, id: str, *, now: datetime) -> ConfirmationView:
    """Say no: the call will not be made."""
    row = await _pending(tx, actor, id, now=now, again="refused")
    if row["state"] == "pending":
        row = await _decided(tx, row, "refused", actor, now)
    return _view(row, now)


def run_of(confirmation: str) -> str:
    """The one run that can come of a confirmation."""
    return ids.derived_id(ids.RUN, ids.time_ms_of(confirmation), "confirmation", confirmation)


async def begin(
    log: Log,
    call: Call,
    *,
    run: str,
    now_ms: int,
    confirmation: ConfirmationView | None = None,
    prompt: str | None = None,
) -> Place:
    """Put the call on the log, and who asked for it or said yes into the audit. Safe to repeat under the same run."""
    contract, actor = call.registered.contract, call.actor
    entry = entry_of(
        call,
        "action.requested" if confirmation is None else "action.confirmed",
        now_ms=now_ms,
        run=run,
        confirmation=None if confirmation is None else confirmation.id,
        prompt=prompt if confirmation is None else confirmation.prompt,
    )
    config = ActionConfig(
        action=call.registered.id,
        name=contract.id,
        version=call.registered.version,
        digest=call.registered.digest,
        arguments_hash=call.arguments_hash,
        actor=actor.key if confirmation is None else confirmation.requested_by,
        role=actor.role if confirmation is None else confirmation.requested_role,
        confirmation=None if confirmation is None else confirmation.id,
        confirmed_by=None if confirmation is None else confirmation.decided_by,
    )
    return await runs.start_compiled(
        log,
        actor.account,
        plans.encode_plan(plans.compile_action(config, timeout_s=contract.timeout_s)),
        run=run,
        input=call.params,
        requested_by=actor.key,
        position=call.registered.position,
        surface=SURFACE,
        beside=(audit.to_output(entry),),
    )


def entry_of(
    call: Call,
    kind: AuditKind,
    *,
    now_ms: int,
    run: str | None = None,
    confirmation: str | None = None,
    prompt: str | None = None,
) -> AuditEntry:
    """What the audit is told of a call. What is told again, about the same run or confirmation, has the same id."""
    owner = confirmation or run
    id = ids.new_id(ids.AUDIT) if owner is None else ids.derived_id(ids.AUDIT, ids.time_ms_of(owner), kind, owner)
    return AuditEntry(
        id=id,
        account=call.actor.account,
        at=now_ms,
        kind=kind,
        actor=call.actor.key,
        role=call.actor.role,
        action=call.registered.contract.id,
        version=call.registered.version,
        run=run,
        confirmation=confirmation,
        prompt=prompt,
        params=Raw(call.params),
    )


def refusal_of(actor: Actor, card: ConfirmationView, *, now_ms: int) -> AuditEntry:
    """What the audit is told of a no."""
    return AuditEntry(
        id=ids.derived_id(ids.AUDIT, ids.time_ms_of(card.id), "action.refused", card.id),
        account=actor.account,
        at=now_ms,
        kind="action.refused",
        actor=actor.key,
        role=actor.role,
        action=card.action,
        confirmation=card.id,
        prompt=card.prompt,
        params=Raw(bytes(orjson.dumps(card.params))),
    )


async def ended(
    database: Database, account: str, run: str, *, clock: Clock, wait_s: float = limits.ACTION_WAIT_S_MAX
) -> End | None:
    """How the run stands when it is over, or when the time is; None = nothing is known of it yet. Holds no connection
    while it waits."""
    deadline, pause_s = clock.monotonic() + wait_s, limits.ACTION_POLL_S
    while True:
        async with database.asking() as tx:
            found = await runs.end(tx, account, run)
        if (found is not None and found.is_over) or clock.monotonic() >= deadline:
            return found
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, limits.ACTION_POLL_S_MAX)


async def _pending(tx: Connection, actor: Actor, id: str, *, now: datetime, again: str) -> Row:
    row = await tx.fetchrow(_SQL["lock_confirmation"], actor.account, _stored(id))
    if row is None:
        raise NotFound("confirmation", id)
    if not contracts.may_confirm(row["roles"], actor.role):
        allowed = " or ".join(row["roles"])
        raise Forbidden(f"This may be decided by {allowed}; this caller's role is {actor.role!r}.")
    if row["state"] != "pending" and (row["state"], row["decided_by"]) != (again, actor.key):
        raise Conflict(f"This confirmation was decided before: it is {row['state']}.")
    # A yes stands when its time is over: whoever crashed before its run was on the log may still ask again, for as long
    # as the log tells the second command from the first.
    until = row["expires_at"] if row["state"] == "pending" else row["decided_at"] + _COMMAND_KNOWN
    if until <= now:
        raise Conflict("This confirmation has expired: ask for the action again.")
    return row


async def _call_of(tx: Connection, row: Row, actor: Actor, *, maker: KeyMaker, now: datetime) -> Call:
    """The call that was asked about, which must be the same to the letter now."""
    try:
        registered = await actions.runnable(tx, actor.account, row["name"], maker=maker, now=now)
    except NotFound:
        raise Conflict(f"The action {row['name']} is not registered any more.") from None
    params = bytes(row["params"])
    right = contracts.arguments_hash(actor.account, registered.contract.id, registered.digest, params)
    if right != row["arguments_hash"]:
        raise Conflict("The action's contract has changed since this was asked: ask for the action again.")
    return Call(actor, registered, params, right, needs_confirmation=True)


async def _decided(tx: Connection, row: Row, state: str, actor: Actor, now: datetime) -> Row:
    decided = await tx.fetchrow(
        _SQL["decide_confirmation"], actor.account, row["id"], state, actor.key, actor.role, now
    )
    assert decided is not None
    return decided


def _stored(id: str) -> UUID:
    return stored(id, "confirmation", ids.CONFIRMATION)


def _view(row: Row, now: datetime) -> ConfirmationView:
    id = ids.prefixed(ids.CONFIRMATION, row["id"])
    state: State = "expired" if row["state"] == "pending" and row["expires_at"] <= now else row["state"]
    return ConfirmationView(
        id=id,
        action=row["name"],
        params=raw(row["params"]),
        expires_at=row["expires_at"],
        state=state,
        params_hash=row["arguments_hash"],
        contract_digest=row["digest"],
        roles=row["roles"],
        prompt=row["prompt"],
        requested_by=row["requested_by"],
        requested_role=row["requested_role"],
        created_at=row["created_at"],
        decided_by=row["decided_by"],
        decided_role=row["decided_role"],
        decided_at=row["decided_at"],
        run=run_of(id) if state == "confirmed" else None,
    )
