"""A prompt, resolved against the account's contracts and its live data; what was asked and understood is in the audit.

Not here: how a prompt is understood (`millrace_core.intents`), what follows (`action_calls`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from millrace_api.application import actions, audit, customers, entities
from millrace_api.application.action_calls import Actor
from millrace_api.application.api import Api
from millrace_api.application.entities import Entity
from millrace_api.application.problems import NotFound
from millrace_core import ids, intents, limits
from millrace_core.actions import Contract
from millrace_core.intents import Found, Outcome, Refused, Resolved, Thing, Unclear
from millrace_core.messages import AuditEntry, Raw
from millrace_store.pool import Connection


@dataclass(frozen=True, slots=True)
class LiveFacts:
    """What events told, as prompts ask for it (`intents.Facts`)."""

    tx: Connection
    account: str

    async def customers(self, name: str, *, most: int) -> Sequence[Found]:
        return [_found(one) for one in await customers.named(self.tx, self.account, name, most=most)]

    async def of_customer(self, kind: Thing, customer: str, *, status: str | None, most: int) -> Sequence[Found]:
        found = await entities.of_customer(self.tx, self.account, kind, customer, most=most, status=status)
        return [_found(one) for one in found]

    async def get(self, kind: Thing, id: str) -> Found | None:
        try:
            return _found(await entities.get(self.tx, self.account, kind, id))
        except NotFound:
            return None


@dataclass(frozen=True, slots=True)
class Understood:
    """What a prompt comes to. `by_rewording`: only in words that were not the caller's, so a person sees it first."""

    outcome: Outcome
    by_rewording: bool = False


async def resolve(api: Api, actor: Actor, prompt: str) -> Understood:
    """What this prompt comes to. It is in the audit before anything follows from it."""
    began = api.clock.monotonic()
    async with api.database.reading() as tx:
        contracts = await actions.every(tx, actor.account)
    outcome = await _by_rules(api, actor, prompt, contracts)
    rendered = orjson.dumps(
        {"prompt": prompt, "role": actor.role, "actions": [contract.id for contract in contracts]}
    ).decode()
    response = orjson.dumps(shown(outcome)).decode()
    by_rewording = False
    if api.rewording is not None and not isinstance(outcome, Resolved) and intents.may_be_reworded(prompt):
        rendered = asked_to_reword(prompt, contracts)
        said = await api.rewording.reword(rendered)
        response = said or response
        if said is not None and intents.is_faithful(prompt, said, contracts):
            again = await _by_rules(api, actor, said, contracts)
            outcome, by_rewording = (again, True) if isinstance(again, Resolved) else (outcome, False)
    entry = AuditEntry(
        id=ids.new_id(ids.AUDIT),
        account=actor.account,
        at=api.clock.now_ms(),
        kind="action.prompted",
        actor=actor.key,
        role=actor.role,
        action=outcome.action if isinstance(outcome, Resolved) else None,
        prompt=prompt,
        rendered=rendered,
        response=response[: limits.REWORDING_CHARS_MAX],
        outcome=str(shown(outcome)["status"]),
        duration_ms=round((api.clock.monotonic() - began) * 1000, 3),
        params=Raw(orjson.dumps(outcome.params) if isinstance(outcome, Resolved) else b"null"),
    )
    await audit.write(api.log, entry)
    return Understood(outcome, by_rewording)


def asked_to_reword(prompt: str, contracts: Sequence[Contract]) -> str:
    """What a language model is asked. What it says is held against the prompt: it may not bring in anything."""
    known = "\n".join(f"- {one.id}: {one.description}" for one in contracts)
    return (
        "Put the request below in one short English sentence that begins with the verb of one of these actions, like "
        '"refund Adam\'s last invoice". Keep every name, number, id and quotation exactly. Add nothing: no name, no '
        "number, no 'last', that the request does not have. If no action fits, or you are not sure, answer NONE.\n\n"
        f"Actions:\n{known}\n\nRequest:\n{prompt}"
    )


async def _by_rules(api: Api, actor: Actor, prompt: str, contracts: Sequence[Contract]) -> Outcome:
    async with api.database.reading() as tx:
        return await intents.resolve(prompt, contracts, role=actor.role, facts=LiveFacts(tx, actor.account))


def shown(outcome: Outcome) -> dict[str, Any]:
    """The outcome as it is answered and written down."""
    match outcome:
        case Resolved(action, params):
            return {"status": "resolved", "action": action, "params": dict(params)}
        case Unclear(question, options):
            return {"status": "clarification_required", "question": question, "options": list(options)}
        case Refused(reason):
            return {"status": "refused", "reason": reason}


def _found(entity: Entity) -> Found:
    label = entity.text("name") or entity.text("number") or entity.id
    return Found(entity.id, label, entity.text("customer_id"))
