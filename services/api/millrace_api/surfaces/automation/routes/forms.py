"""`/v1/forms` and their submissions. Updating and deleting are native, and stand beside what the document has."""

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import forms
from millrace_api.application.forms import FormView, SubmissionView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Numbered, One
from millrace_api.surfaces.calls import ApiHere, Caller, NumberedHere, StrictRoute, caller
from millrace_api.surfaces.forms import FormPatch, NewForm, NewSubmission, told
from millrace_api.surfaces.once import OnceHere
from millrace_core import ids
from millrace_core.clock import utc_now
from millrace_web import scopes

router = APIRouter(prefix="/v1/forms", tags=["Forms"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_FORMS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_FORMS)]
SubmissionReader = Annotated[Caller, caller(scopes.READ_SUBMISSIONS)]
Submitter = Annotated[Caller, caller(scopes.WRITE_SUBMISSIONS)]
LISTING = "forms"


@router.get("", response_model=Numbered[FormView], responses=answers.READ)
async def list_forms(api: ApiHere, me: Reader, listing: NumberedHere) -> Response:
    """Newest first, by page or by cursor."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.reading() as tx:
        rows = await forms.listed(tx, me.account, below=below, count=listing.count, skipped=listing.skipped)
        total = await forms.counted(tx, me.account)
    page = listing.by_id(rows, me.account, LISTING)
    return answers.numbered(page, number=listing.page_number, limit=listing.query.limit, total=total)


@router.post("", status_code=201, response_model=One[FormView], responses=answers.WRITE)
async def create_form(body: NewForm, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """A form takes submissions while it is `published`, as it is at once unless `status` says `draft`."""
    async with once.changing(api) as doing:
        id, now = once.id_for(ids.FORM), doing.change.now
        made = await forms.create(doing.tx, me.account, body.wanted(), id=id, now=now)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("/{id}", response_model=One[FormView], responses=answers.READ)
async def get_form(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await forms.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[FormView], responses=answers.WRITE)
async def update_form(id: str, body: FormPatch, api: ApiHere, me: Manager) -> Response:
    """Change the members that are named; `status` publishes a form, or takes it back."""
    async with api.database.writing() as tx:
        return answers.one(await forms.update(tx, me.account, id, body.named(), now=utc_now(api.clock)))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_form(id: str, api: ApiHere, me: Manager) -> Response:
    """The form and its submissions are gone from here; the events about them stay."""
    async with api.database.writing() as tx:
        await forms.delete(tx, me.account, id, now=utc_now(api.clock))
    return answers.deleted(id, at=None)


@router.post("/{id}/submissions", status_code=201, response_model=One[SubmissionView], responses=answers.WRITE)
async def submit_form(id: str, body: NewSubmission, api: ApiHere, me: Submitter, once: OnceHere) -> Response:
    """Fill in a form for somebody. Every field that does not fit is named in `details`. Whoever listens to
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
        )
        doing.answer = answers.one(submitted.view, status=201)
    return await told(api, submitted, doing.answered())


@router.get("/{id}/submissions", response_model=Numbered[SubmissionView], responses=answers.READ)
async def list_form_submissions(id: str, api: ApiHere, me: SubmissionReader, listing: NumberedHere) -> Response:
    """Newest first, by page or by cursor."""
    name = f"form submissions {id}"
    below = listing.below_id(me.account, name)
    async with api.database.reading() as tx:
        rows = await forms.submissions(tx, me.account, id, below=below, count=listing.count, skipped=listing.skipped)
        total = await forms.submissions_counted(tx, me.account, id)
    page = listing.by_id(rows, me.account, name)
    return answers.numbered(page, number=listing.page_number, limit=listing.query.limit, total=total)
