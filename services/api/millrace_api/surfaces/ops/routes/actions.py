"""`/v1/actions`: the registry of contracts, calls, and their confirmations."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace_api.application import action_calls, actions, intents, runs
from millrace_api.application.action_calls import Actor, Call, ConfirmationView
from millrace_api.application.actions import ActionView, NewActionView, VersionView
from millrace_api.application.api import Api
from millrace_api.application.problems import Conflict, NotFound
from millrace_api.application.runs import End, Place
from millrace_api.surfaces.answers import position_of
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller
from millrace_api.surfaces.once import Once, OnceHere
from millrace_api.surfaces.ops import answers
from millrace_api.surfaces.ops.actors import actor_of
from millrace_api.surfaces.ops.answers import Deleted, Many
from millrace_api.surfaces.ops.bodies import Confirm, ContractDocument, ResolvePrompt, RunAction
from millrace_core import ids
from millrace_core.clock import utc_now
from millrace_core.intents import Resolved
from millrace_web import scopes
from millrace_web.positions import Position

router = APIRouter(prefix="/v1/actions", tags=["Actions"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Reader = Annotated[Caller, caller(scopes.READ_ACTIONS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_ACTIONS)]
Runner = Annotated[Caller, caller(scopes.RUN_ACTIONS)]
Confirmer = Annotated[Caller, caller(scopes.CONFIRM_ACTIONS)]
State = Annotated[str | None, Query(max_length=16, description=f"One of {', '.join(action_calls.STATES)}.")]


class RunError(BaseModel):
    code: str
    message: str


class ActionRun(BaseModel):
    """A call that was made. `running` = it was not over when the answer went out: read it again."""

    id: str
    status: Literal["completed", "failed", "running"]
    result: Any = Field(default=None, description="What the endpoint answered.")
    error: RunError | None = None


class Card(BaseModel):
    """What a person is shown: exactly what will be done, and until when he may say yes."""

    id: str
    action: str
    params: dict[str, Any]
    expires_at: datetime
    params_hash: str
    roles: list[str]


class Asked(BaseModel):
    """A call that waits for a person's yes."""

    id: str
    status: Literal["confirmation_required"]
    confirmation: Card


class Understood(BaseModel):
    """What a prompt comes to."""

    status: Literal["resolved"]
    action: str
    params: dict[str, Any]
    surface: str
    roles: list[str]
    confirmation_required: bool
    params_hash: str


class AskedBack(BaseModel):
    """A prompt that could mean several things, or lacks something. Nothing was done."""

    status: Literal["clarification_required"]
    question: str
    options: list[str]


class NotDone(BaseModel):
    """A prompt that cannot be done. Nothing was."""

    status: Literal["refused"]
    reason: str


ANSWERED: dict[int | str, dict[str, Any]] = {
    202: {"model": ActionRun, "description": "It is not over yet: read it again."},
    **answers.WRITE,
}


# ── the registry ────────────────────────────────────────────────────────────────────────────────────────────────────
@router.post("", status_code=201, response_model=NewActionView, responses=answers.WRITE)
async def register_action(contract: ContractDocument, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Register a contract, or the next version of the one with this id. `secret` signs the requests to the endpoint; it
    is in the answer to the first registration and never shown again."""
    async with once.changing(api) as doing:
        made = await actions.register(
            doing.change, me.account, contract, registered_by=me.id, maker=api.keys, egress=api.egress
        )
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Many[ActionView], responses=answers.READ)
async def list_actions(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """All registered contracts, by id."""
    at = listing.cursors.after(listing.query, account=me.account, listing="actions")
    async with api.database.asking() as tx:
        rows = await actions.listed(tx, me.account, behind=None if at is None else str(at[0]), count=listing.count)
    return answers.many(listing.by_id(rows, me.account, "actions"))


# ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@router.post(
    "/run",
    response_model=ActionRun | AskedBack | NotDone,
    responses=ANSWERED | {202: {"model": Asked | ActionRun, "description": "A person is asked first; or it runs."}},
)
async def run_action(body: RunAction, api: ApiHere, me: Runner, once: OnceHere) -> Response:
    """Run a registered action and answer with its result; or, where its contract asks for it, with the card that a
    person confirms. With an `Idempotency-Key` the action is run once, however often it is asked for."""
    actor, now = actor_of(me), utc_now(api.clock)
    await _claimed(api, once)
    before = await _begun(api, actor, once)
    if before is not None:
        return before
    action, params, shown_first = body.action, body.params, False
    if body.prompt is not None:
        understood = await intents.resolve(api, actor, body.prompt)
        outcome, shown_first = understood.outcome, understood.by_rewording
        if not isinstance(outcome, Resolved):
            return await _kept_as(api, once, answers.one(intents.shown(outcome)))
        action, params = outcome.action, dict(outcome.params)
    async with api.database.reading() as tx:
        call = await action_calls.let_in(tx, actor, action or "", params, maker=api.keys, now=now)
    if call.needs_confirmation or shown_first:
        return await ask_first(api, call, once, prompt=body.prompt)
    return await _kept(api, once, *await run_now(api, call, run=once.id_for(ids.RUN), prompt=body.prompt))


@router.post("/resolve", response_model=Understood | AskedBack | NotDone, responses=answers.WRITE)
async def resolve_prompt(body: ResolvePrompt, api: ApiHere, me: Runner, once: OnceHere) -> Response:
    """Find out what a prompt comes to, and do nothing: a registered action with parameters out of the prompt and the
    live data; or a question, where it could mean several things; or a refusal. Never a guess."""
    actor, now = actor_of(me), utc_now(api.clock)
    await _claimed(api, once)
    understood = await intents.resolve(api, actor, body.prompt)
    outcome = understood.outcome
    view = intents.shown(outcome)
    if isinstance(outcome, Resolved):
        async with api.database.reading() as tx:
            call = await action_calls.let_in(tx, actor, outcome.action, outcome.params, maker=api.keys, now=now)
        contract = call.registered.contract
        view |= {"surface": contract.surface, "roles": list(contract.roles)}
        asked = call.needs_confirmation or understood.by_rewording
        view |= {"confirmation_required": asked, "params_hash": call.arguments_hash}
    return await _kept_as(api, once, answers.one(view))


@router.get("/runs/{id}", response_model=ActionRun, responses=answers.READ)
async def get_action_run(id: str, api: ApiHere, me: Reader) -> Response:
    """How a call stands. Its attempts are at `/v1/runs/{id}`."""
    found = await api.found(lambda tx: runs.get(tx, me.account, id))
    if found.plan_kind not in (None, "action"):
        raise NotFound("action run", id)
    return answers.one(_run_view(found.id, End(found.status, found.output, found.error)))


# ── confirmations ───────────────────────────────────────────────────────────────────────────────────────────────────
@router.get("/confirmations", response_model=Many[ConfirmationView], responses=answers.READ)
async def list_confirmations(api: ApiHere, me: Reader, listing: ListingHere, state: State = None) -> Response:
    """Newest first."""
    name = f"confirmations {state}"
    below = listing.below_id(me.account, name)
    async with api.database.asking() as tx:
        rows = await action_calls.confirmations(
            tx, me.account, below=below, count=listing.count, state=state, now=utc_now(api.clock)
        )
    return answers.many(listing.by_id(rows, me.account, name))


@router.get("/confirmations/{id}", response_model=ConfirmationView, responses=answers.READ)
async def get_confirmation(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await action_calls.confirmation(tx, me.account, id, now=utc_now(api.clock)))


@router.post("/confirmations/{id}/confirm", response_model=ActionRun, responses=ANSWERED)
async def confirm_action(id: str, api: ApiHere, me: Confirmer, once: OnceHere, body: Confirm | None = None) -> Response:
    """Say yes, once, before it expires: the action is run with exactly what was shown. 409 when it was decided before,
    has expired, or its contract has changed since."""
    actor, now = actor_of(me), utc_now(api.clock)
    await _claimed(api, once)
    run = action_calls.run_of(await _known(api, actor, id))
    async with api.database.writing() as tx:
        before = await action_calls.confirmation(tx, me.account, id, now=now)
        found = await runs.end(tx, me.account, run) if before.state == "confirmed" else None
        if found is not None and once.key is not None and before.decided_by == actor.key:
            return _as_it_stands(run, found)  # its answer said `running`, or never came
        if found is not None:
            raise Conflict(f"This confirmation was used: its run is {run}.")
        given = None if body is None else body.params_hash
        card = await action_calls.confirm(tx, actor, id, params_hash=given, maker=api.keys, now=now)
    place = await api.cards.now(me.account, card.id)
    if place is None:  # it is run as soon as the log is back
        return answers.one(_run_view(run, None), status=202)
    found = await action_calls.ended(api.database, me.account, run, clock=api.clock)
    return await _kept(api, once, _run_view(run, found), place)


@router.post("/confirmations/{id}/refuse", response_model=ConfirmationView, responses=answers.WRITE)
async def refuse_action(id: str, api: ApiHere, me: Confirmer, once: OnceHere) -> Response:
    """Say no: the action is not run."""
    async with once.changing(api) as doing:
        card = await action_calls.refuse(doing.tx, actor_of(me), id, now=doing.change.now)
        doing.answer = answers.one(card)
    await api.cards.now(me.account, card.id)
    return doing.answered()


# ── one contract ────────────────────────────────────────────────────────────────────────────────────────────────────
@router.get("/{id}", response_model=ActionView, responses=answers.READ)
async def get_action(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await actions.get(tx, me.account, id))


@router.get("/{id}/versions", response_model=Many[VersionView], responses=answers.READ)
async def list_action_versions(id: str, api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """Every contract that was registered under this id, newest first."""
    name = f"versions {id}"
    at = listing.cursors.after(listing.query, account=me.account, listing=name)
    async with api.database.asking() as tx:
        below = None if at is None else int(at[0])
        rows = await actions.versions(tx, me.account, id, below=below, count=listing.count)
    return answers.many(listing.page(rows, me.account, name, lambda row: [row.version]))


@router.post("/{id}/rotate-secret", response_model=NewActionView, responses=answers.WRITE)
async def rotate_action_secret(id: str, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Sign with a new secret from now on, and with it alone. It is in this answer and never shown again."""
    async with once.changing(api) as doing:
        doing.answer = answers.one(await actions.rotate_secret(doing.change, me.account, id, maker=api.keys))
    return doing.answered()


@router.delete("/{id}", response_model=Deleted, responses=answers.WRITE)
async def delete_action(id: str, api: ApiHere, me: Manager) -> Response:
    """Take it out of the registry: nothing can run it any more, not even what was confirmed."""
    async with api.changes.begin() as change:
        await actions.delete(change, me.account, id)
    return answers.one({"id": id, "deleted": True}, at=position_of(change))


# ── what they share ─────────────────────────────────────────────────────────────────────────────────────────────────
async def ask_first(api: Api, call: Call, once: Once, *, prompt: str | None) -> Response:
    """The card for this call."""
    now = utc_now(api.clock)
    async with api.database.writing() as tx:
        await once.claim(tx, now=now)
        card = await action_calls.ask(tx, call, id=once.id_for(ids.CONFIRMATION), prompt=prompt, now=now)
        answer = answers.one(asked_view(card), status=202)
        await once.keep(tx, answer)
    await api.cards.now(call.actor.account, card.id)
    return answer


def asked_view(card: ConfirmationView) -> dict[str, Any]:
    """A call that waits for a person's yes."""
    shown = ("id", "action", "params", "expires_at", "params_hash", "roles")
    return {
        "id": card.id,
        "status": "confirmation_required",
        "confirmation": {name: getattr(card, name) for name in shown},
    }


async def run_now(api: Api, call: Call, *, run: str, prompt: str | None = None) -> tuple[dict[str, Any], Place]:
    """Put the call on the log, and wait a bounded time for its end."""
    place = await action_calls.begin(api.log, call, run=run, now_ms=api.clock.now_ms(), prompt=prompt)
    found = await action_calls.ended(api.database, call.actor.account, run, clock=api.clock)
    return _run_view(run, found), place


async def _claimed(api: Api, once: Once) -> None:
    """Begin what is done once: from here on its ids are the same on every repeat, and no connection is held."""
    if once.key is not None:
        async with api.database.writing() as tx:
            await once.claim(tx, now=utc_now(api.clock))


async def _begun(api: Api, actor: Actor, once: Once) -> Response | None:
    """What an earlier request under this key began, as it stands now: what was asked is not looked at again, since a
    prompt may come to something else by now."""
    if once.key is None:
        return None
    run, card = once.id_for(ids.RUN), once.id_for(ids.CONFIRMATION)
    async with api.database.reading() as tx:
        found = await runs.end(tx, actor.account, run)
        if found is not None:
            return _as_it_stands(run, found)
        with suppress(NotFound):
            asked = await action_calls.confirmation(tx, actor.account, card, now=utc_now(api.clock))
            return answers.one(asked_view(asked), status=202)
    return None


def _as_it_stands(run: str, found: End) -> Response:
    view = _run_view(run, found)
    return answers.one(view, status=202 if view["status"] == "running" else 200)


async def _kept(api: Api, once: Once, view: dict[str, Any], place: Place) -> Response:
    at = Position(place.topic, place.partition, place.offset)
    answer = answers.one(view, status=202 if view["status"] == "running" else 200, at=at)
    return answer if view["status"] == "running" else await _kept_as(api, once, answer)


async def _kept_as(api: Api, once: Once, answer: Response) -> Response:
    if once.key is not None:
        async with api.database.writing() as tx:
            await once.claim(tx, now=utc_now(api.clock))
            await once.keep(tx, answer)
    return answer


async def _known(api: Api, actor: Actor, id: str) -> str:
    """The confirmation's id, if there is one of this id. Raises NotFound."""
    async with api.database.asking() as tx:
        return (await action_calls.confirmation(tx, actor.account, id, now=utc_now(api.clock))).id


def _run_view(run: str, found: End | None) -> dict[str, Any]:
    if found is None or not found.is_over:
        return {"id": run, "status": "running", "result": None, "error": None}
    if found.status == "completed":
        return {"id": run, "status": "completed", "result": found.output}
    error = found.error
    said = {"code": found.status, "message": "The action did not complete."} if error is None else error
    return {"id": run, "status": "failed", "result": None, "error": said}
