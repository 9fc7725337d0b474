"""Calls of registered actions: let in, confirmed where their contract asks for it, run, and answered with the result.

A call is a run of one node of type `action`: it stands on the log, is counted, survives every crash, and is in
`/v1/runs`. It is let in when its contract is registered and holds, the caller's role may run it and the parameters
are right. A confirmation is bound to a hash of whose call it is, of the contract and of the parameters, is decided
once, and its run's id follows from it: what was decided and never told to the log is told by a worker, or by asking
again, and is one run.
Not here: contracts (`actions`), who tells the log (`cards`), the request to the endpoint (the executor).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from millrace_api.application import actions, audit, runs
from millrace_api.application.actions import Registered
from millrace_api.application.database import Database
from millrace_api.application.keys import KeyMaker
from millrace_api.application.notation import stored
from millrace_api.application.problems import BeingChanged, Conflict, Forbidden, Invalid, NotFound
from millrace_api.application.runs import End, Log, Place
from millrace_api.application.views import Json, raw
from millrace_core import actions as contracts
from millrace_core import ids, limits, plans
from millrace_core.actions import WrongParams
from millrace_core.audit import to_output
from millrace_core.clock import Clock
from millrace_core.errors import Reject
from millrace_core.messages import AuditEntry, AuditKind, Raw
from millrace_core.plans import ActionConfig
from millrace_store import queries
from millrace_store.aggregates import Row, ms
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
) -> ConfirmationView:
    """Say yes, once: the log is to be told of it, and the call follows. Asked again by the same person it is the same
    call. Raises Conflict when it is too late, or is not what was asked for any more."""
    row = await _pending(tx, actor, id, now=now, again="confirmed")
    if params_hash is not None and params_hash != row["arguments_hash"]:
        raise Conflict("This is not what was shown: params_hash is another. Read the confirmation again.")
    await _call_of(tx, row, actor, maker=maker, now=now)
    if row["state"] == "pending":
        row = await _decided(tx, row, "confirmed", actor, now)
    return _view(row, now)


async def refuse(tx: Connection, actor: Actor, id: str, *, now: datetime) -> ConfirmationView:
    """Say no: the call will not be made."""
    row = await _pending(tx, actor, id, now=now, again="refused")
    if row["state"] == "pending":
        row = await _decided(tx, row, "refused", actor, now)
    return _view(row, now)


def run_of(confirmation: str) -> str:
    """The one run that can come of a confirmation."""
    return ids.derived_id(ids.RUN, ids.time_ms_of(confirmation), "confirmation", confirmation)


async def begin(log: Log, call: Call, *, run: str, now_ms: int, prompt: str | None = None) -> Place:
    """Put the call on the log, and who asked for it into the audit. Safe to repeat under the same run."""
    actor = call.actor
    entry = AuditEntry(
        id=_entry_id("action.requested", run),
        account=actor.account,
        at=now_ms,
        kind="action.requested",
        actor=actor.key,
        role=actor.role,
        action=call.registered.contract.id,
        version=call.registered.version,
        run=run,
        prompt=prompt,
        params=Raw(call.params),
    )
    return await _start(log, call, run=run, entries=[entry])


@dataclass(frozen=True, slots=True)
class Owed:
    """What the log is to know of a confirmation: entries of the audit and, after a yes, the call."""

    account: str
    card: ConfirmationView
    entries: list[AuditEntry]
    call: Call | None

    @property
    def is_void(self) -> bool:
        """A yes that no call follows from."""
        return self.card.state == "confirmed" and self.call is None


async def untold(tx: Connection, *, before: datetime, count: int) -> list[tuple[str, str]]:
    """Account and id of the confirmations of which the log may not have been told, the oldest first."""
    rows = await tx.fetch(_SQL["all_untold_confirmations"], before, count)
    return [(row["account"], ids.prefixed(ids.CONFIRMATION, row["id"])) for row in rows]


async def owed(tx: Connection, account: str, id: str, *, maker: KeyMaker, now: datetime) -> Owed:
    """What is to be told of it, the same each time. No call follows from a yes whose contract is another by now, or
    that is so old that the log would not tell a second command from the first. Raises BeingChanged: try again."""
    row = await tx.fetchrow(_SQL["get_confirmation"], account, _stored(id))
    assert row is not None
    entries = [] if row["told"] else [_entry(row, "action.asked")]
    if row["state"] != "pending":
        entries.append(_entry(row, "action.confirmed" if row["state"] == "confirmed" else "action.refused"))
    call = None
    if row["state"] == "confirmed" and now < row["decided_at"] + _COMMAND_KNOWN:
        actor = Actor(account, row["decided_by"], row["decided_role"])
        try:
            call = await _call_of(tx, row, actor, maker=maker, now=now)
        except BeingChanged:
            raise
        except Conflict:
            pass
    return Owed(account, _view(row, now), entries, call)


async def tell(log: Log, owed: Owed) -> Place:
    """Write it. Raises Unavailable when the log is away: then it is owed still."""
    if owed.call is None:
        return await audit.write(log, *owed.entries)
    return await _start(log, owed.call, run=run_of(owed.card.id), entries=owed.entries, confirmed=owed.card)


async def told(tx: Connection, owed: Owed) -> None:
    """It is on the log."""
    stored_id = ids.uuid_of(owed.card.id)
    state = "pending" if owed.card.state == "expired" else owed.card.state
    await tx.execute(_SQL["tell_confirmation"], owed.account, stored_id, state)


async def _start(
    log: Log, call: Call, *, run: str, entries: Sequence[AuditEntry], confirmed: ConfirmationView | None = None
) -> Place:
    contract, actor = call.registered.contract, call.actor
    config = ActionConfig(
        action=call.registered.id,
        name=contract.id,
        version=call.registered.version,
        digest=call.registered.digest,
        arguments_hash=call.arguments_hash,
        actor=actor.key if confirmed is None else confirmed.requested_by,
        role=actor.role if confirmed is None else confirmed.requested_role,
        confirmation=None if confirmed is None else confirmed.id,
        confirmed_by=None if confirmed is None else confirmed.decided_by,
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
        beside=[to_output(entry) for entry in entries],
    )


def _entry(row: Row, kind: AuditKind) -> AuditEntry:
    """What the audit is told of a confirmation."""
    id = ids.prefixed(ids.CONFIRMATION, row["id"])
    is_asked = kind == "action.asked"
    run = run_of(id) if kind == "action.confirmed" else None
    return AuditEntry(
        id=_entry_id(kind, id),
        account=row["account"],
        at=ms(row["created_at"] if is_asked else row["decided_at"]),
        kind=kind,
        actor=row["requested_by"] if is_asked else row["decided_by"],
        role=row["requested_role"] if is_asked else row["decided_role"],
        action=row["name"],
        version=row["version"],
        run=run,
        confirmation=id,
        prompt=row["prompt"],
        params=Raw(bytes(row["params"])),
    )


def _entry_id(kind: AuditKind, about: str) -> str:
    """What is told again, about the same run or confirmation, has the same id."""
    return ids.derived_id(ids.AUDIT, ids.time_ms_of(about), kind, about)


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
