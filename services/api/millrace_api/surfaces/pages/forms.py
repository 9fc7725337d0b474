"""`/forms/{public id}`: a published form as a page that anyone may fill in.

Who asks is not known: each client's address has a rate for each form, each form has one for all, and what is asked of
forms that are not there shares that of all who ask without a key. What is sent is a submission as any other, by nobody;
sent twice from one showing of the page, as by a double click, it is one.
"""

import hashlib
import re
import secrets

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from millrace_api.application import forms
from millrace_api.application.api import Api
from millrace_api.application.forms import FormView
from millrace_api.application.problems import Invalid, NotFound, at
from millrace_api.surfaces.calls import OPEN_PLAN, ApiHere, open_to_all
from millrace_api.surfaces.pages import html
from millrace_core import form_data, ids, limits
from millrace_core.clock import utc_now
from millrace_core.form_data import Given
from millrace_core.forms import parse_fields
from millrace_web.caller_rates import note
from millrace_web.errors import ApiError
from millrace_web.rate_plans import SMALLEST

router = APIRouter(prefix="/forms", include_in_schema=False)
FORM_TYPE = "application/x-www-form-urlencoded"
_is_public_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
# So that nobody can choose an address that shares somebody's count.
_SALT = secrets.token_bytes(16)
_NONCE_BYTES = 18


@router.get("/{public_id}")
async def show(public_id: str, request: Request, api: ApiHere) -> Response:
    """The form, empty."""
    _, form = await _open(public_id, request, api)
    return _page(form)


@router.post("/{public_id}")
async def send(public_id: str, request: Request, api: ApiHere) -> Response:
    """Submit it. What does not fit is shown again, each problem beside its field; else the way leads to the thanks."""
    account, form = await _open(public_id, request, api)
    given = await _given(request)
    if form_data.is_trapped(given):
        return _to_thanks(form)
    answer = form_data.answer(parse_fields(form.fields), given)
    try:
        async with api.database.writing() as tx:
            submitted = await forms.submit(
                tx,
                account,
                form.id,
                answer,
                id=ids.new_id(ids.SUBMISSION),
                submitted_by=None,
                now=utc_now(api.clock),
                nonce=form_data.nonce_of(given),
            )
    except Invalid as problem:
        return _page(form, given=given, problem=problem)
    await api.telling.now(submitted.event)
    return _to_thanks(form)


@router.get("/{public_id}/thanks")
async def thank(public_id: str, request: Request, api: ApiHere) -> Response:
    """After it was sent."""
    _, form = await _open(public_id, request, api)
    again = f'<p><a href="{_address(form)}">Fill it in once more</a></p>'
    return html.page(form.name, html.said("Thank you. What you sent has arrived.") + again)


async def _open(public_id: str, request: Request, api: Api) -> tuple[str, FormView]:
    """The account and the form, if there is one, and one may ask for it as often."""
    rates = request.app.state.open_rate
    note(request.scope, rates.take(f"page {_count_of(public_id, request)}", SMALLEST.name))
    try:
        if not _is_public_id(public_id):
            raise NotFound("form", public_id[:64])
        async with api.database.asking() as tx:
            account, form = await forms.published(tx, public_id)
    except NotFound:
        open_to_all(request)
        raise
    note(request.scope, rates.take(f"form {form.id}", OPEN_PLAN))
    return account, form


def _count_of(public_id: str, request: Request) -> int:
    """Which count this client shares for this form."""
    named = f"{public_id} {_address_of(request)}".encode("utf-8", "replace")
    digest = hashlib.blake2b(named, key=_SALT, digest_size=8).digest()
    return int.from_bytes(digest) % limits.FORM_PAGE_COUNTS


def _address_of(request: Request) -> str:
    """What the proxy in front says, which is the last of what is said; who is connected, if nobody is in front. Without
    a proxy anyone may say anything: the rate of the form holds all the same."""
    said = request.headers.getlist("x-forwarded-for")
    if said:
        return said[-1].rsplit(",", 1)[-1].strip()
    return "" if request.client is None else request.client.host


async def _given(request: Request) -> Given:
    sent_as = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if sent_as != FORM_TYPE:
        raise ApiError(415, f"Send the form as {FORM_TYPE}.")
    body = await request.body()
    with at("data"):
        return form_data.parse(body)


def _page(form: FormView, *, given: Given | None = None, problem: Invalid | None = None) -> Response:
    wrong = () if problem is None else problem.wrong
    problems = {where.removeprefix("data."): reason for where, reason in wrong}
    fields = parse_fields(form.fields)
    nonce = form_data.nonce_of(given or {}) or secrets.token_urlsafe(_NONCE_BYTES)
    body = html.form(form.description, fields, action=_address(form), nonce=nonce, given=given or {}, problems=problems)
    return html.page(form.name, body, status=200 if problem is None else 400)


def _to_thanks(form: FormView) -> Response:
    return RedirectResponse(f"{_address(form)}/thanks", status_code=303, headers={"cache-control": "no-store"})


def _address(form: FormView) -> str:
    return f"/forms/{form.public_id}"
