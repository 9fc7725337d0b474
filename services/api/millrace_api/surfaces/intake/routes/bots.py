"""`/api/v1/intake-bots` and their submissions. Reading and submitting are the document's; making and changing bots is
native, and stands beside them."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace_api.application import forms
from millrace_api.application.forms import FormView, Status, SubmissionView
from millrace_api.surfaces.calls import ApiHere, Caller, StrictRoute, caller
from millrace_api.surfaces.forms import FIELDS_EXAMPLE, FormPatch, NewForm, NewSubmission, told
from millrace_api.surfaces.intake import answers
from millrace_api.surfaces.intake.answers import Deleted, Many, One
from millrace_api.surfaces.intake.calls import ListingHere
from millrace_api.surfaces.once import OnceHere
from millrace_core import ids
from millrace_core.clock import utc_now
from millrace_web import scopes

router = APIRouter(prefix="/api/v1/intake-bots", tags=["Intake bots"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_INTAKE_BOTS)]
Writer = Annotated[Caller, caller(scopes.WRITE_INTAKE_BOTS)]
SubmissionReader = Annotated[Caller, caller(scopes.READ_SUBMISSIONS)]
WHAT = "intake bot"
LISTING = "intake-bots"


class IntakeBot(BaseModel):
    """`public_id` names its page, `/forms/<public_id>`."""

    id: str
    name: str
    description: str | None
    status: Status
    fields: Annotated[list[dict[str, Any]], Field(examples=[FIELDS_EXAMPLE])]
    public_id: str
    created_at: datetime
    updated_at: datetime


class Submission(BaseModel):
    id: str
    intake_bot_id: str
    data: Annotated[dict[str, Any], Field(examples=[{"name": "Jane Doe"}])]
    created_at: datetime


@router.get("", response_model=Many[IntakeBot], responses=answers.READ)
async def list_intake_bots(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """Newest first."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.asking() as tx:
        rows = await forms.listed(tx, me.account, below=below, count=listing.count)
    page = listing.by_id(rows, me.account, LISTING)
    return answers.many(page, [_bot(row) for row in page.items])


@router.post("", status_code=201, response_model=One[IntakeBot], responses=answers.WRITE)
async def create_intake_bot(body: NewForm, api: ApiHere, me: Writer, once: OnceHere) -> Response:
    """A bot takes submissions while it is `published`, as it is at once unless `status` says `draft`."""
    async with once.changing(api) as doing:
        id, now = once.id_for(ids.FORM), doing.change.now
        made = await forms.create(doing.tx, me.account, body.wanted(), id=id, now=now)
        doing.answer = answers.one(_bot(made), status=201)
    return doing.answered()


@router.get("/{id}", response_model=One[IntakeBot], responses=answers.READ)
async def get_intake_bot(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(_bot(await forms.get(tx, me.account, id, what=WHAT)))


@router.patch("/{id}", response_model=One[IntakeBot], responses=answers.WRITE)
async def update_intake_bot(id: str, body: FormPatch, api: ApiHere, me: Writer) -> Response:
    """Change the members that are named; `status` publishes a bot, or takes it back."""
    async with api.database.writing() as tx:
        made = await forms.update(tx, me.account, id, body.named(), now=utc_now(api.clock), what=WHAT)
        return answers.one(_bot(made))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_intake_bot(id: str, api: ApiHere, me: Writer) -> Response:
    """The bot and its submissions are gone from here; the events about them stay."""
    async with api.database.writing() as tx:
        await forms.delete(tx, me.account, id, now=utc_now(api.clock), what=WHAT)
    return answers.one({"id": id, "deleted": True})


@router.get("/{id}/submissions", response_model=Many[Submission], responses=answers.READ)
async def list_submissions(id: str, api: ApiHere, me: SubmissionReader, listing: ListingHere) -> Response:
    """Newest first."""
    name = f"submissions {id}"
    below = listing.below_id(me.account, name)
    async with api.database.reading() as tx:
        rows = await forms.submissions(tx, me.account, id, below=below, count=listing.count, what=WHAT)
    page = listing.by_id(rows, me.account, name)
    return answers.many(page, [_submission(row) for row in page.items])


@router.get("/{id}/submissions/{submission_id}", response_model=One[Submission], responses=answers.READ)
async def get_submission(id: str, submission_id: str, api: ApiHere, me: SubmissionReader) -> Response:
    async with api.database.reading() as tx:
        return answers.one(_submission(await forms.submission(tx, me.account, id, submission_id, what=WHAT)))


@router.post("/{id}/submissions", status_code=201, response_model=One[Submission], responses=answers.WRITE)
async def create_submission(id: str, body: NewSubmission, api: ApiHere, me: Writer, once: OnceHere) -> Response:
    """Submit for somebody. Every field that does not fit is named in `details`. Whoever listens to
    `e:forms/submission.created` hears of it."""
    async with once.changing(api) as doing:
        submitted = await forms.submit(
            doing.tx,
            me.account,
            id,
            body.data,
            id=once.id_for(ids.SUBMISSION),
            submitted_by=me.id,
            now=doing.change.now,
            what=WHAT,
        )
        doing.answer = answers.one(_submission(submitted.view), status=201)
    return await told(api, submitted, doing.answered())


def _bot(form: FormView) -> dict[str, Any]:
    return {name: getattr(form, name) for name in IntakeBot.model_fields}


def _submission(view: SubmissionView) -> dict[str, Any]:
    return {"id": view.id, "intake_bot_id": view.form_id, "data": view.data, "created_at": view.created_at}
