"""`/v1/integrations`."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.responses import Response

from millrace_api.application import integrations
from millrace_api.application.integrations import IntegrationView, TestView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Numbered, One
from millrace_api.surfaces.bodies import Body, Name, Text
from millrace_api.surfaces.calls import ApiHere, Caller, NumberedHere, StrictRoute, caller
from millrace_api.surfaces.once import OnceHere
from millrace_core import limits
from millrace_core.clock import utc_now
from millrace_core.providers import ProviderName
from millrace_web import scopes

router = APIRouter(prefix="/v1/integrations", tags=["Integrations"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_INTEGRATIONS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_INTEGRATIONS)]
LISTING = "integrations"


class NewIntegration(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"provider": "slack", "credential": "Slack Bot Token"}]},
    )

    provider: ProviderName
    credential: Annotated[str, Field(min_length=1, max_length=200, description="Its id or name.")]
    name: Annotated[Name | None, Field(description="Left out = the provider's.")] = None
    base_url: Annotated[
        Text | None,
        Field(
            min_length=1,
            max_length=limits.URL_CHARS_MAX,
            description="Where the provider is, if elsewhere; `http` needs it.",
        ),
    ] = None

    def wanted(self) -> integrations.Wanted:
        return integrations.Wanted(self.provider, self.credential, self.name, self.base_url)


@router.post("", status_code=201, response_model=One[IntegrationView], responses=answers.WRITE)
async def create_integration(body: NewIntegration, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Connect a provider by a credential. Nothing is asked of it before a test."""
    async with once.changing(api) as doing:
        made = await integrations.create(doing.tx, me.account, body.wanted(), now=doing.change.now, egress=api.egress)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Numbered[IntegrationView], responses=answers.READ)
async def list_integrations(api: ApiHere, me: Reader, listing: NumberedHere) -> Response:
    """Newest first, by page or by cursor, each with its last test."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.reading() as tx:
        rows = await integrations.listed(tx, me.account, below=below, count=listing.count, skipped=listing.skipped)
        total = await integrations.total(tx, me.account)
    page = listing.by_id(rows, me.account, LISTING)
    return answers.numbered(page, number=listing.page_number, limit=listing.query.limit, total=total)


@router.get("/{id}", response_model=One[IntegrationView], responses=answers.READ)
async def get_integration(id: str, api: ApiHere, me: Reader) -> Response:
    """With its last test."""
    async with api.database.asking() as tx:
        return answers.one(await integrations.get(tx, me.account, id))


@router.post("/{id}/test", response_model=One[TestView], responses=answers.WRITE)
async def test_integration(id: str, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Ask the provider, for real, with the credential as it is now, and wait for its answer (10 s at most). The test
    may fail, and the call still be answered 200."""
    async with api.database.asking() as tx:
        to = await integrations.connection(tx, me.account, id, ring=api.keys.ring, egress=api.egress)
    async with once.holding(api) as holding:
        tested = await integrations.test(api.outside, me.account, to)
        holding.answer = answers.one(tested)
    async with api.database.writing() as tx:
        await integrations.keep(tx, me.account, id, tested)
    return holding.answered()


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_integration(id: str, api: ApiHere, me: Manager) -> Response:
    """Its credential stays."""
    async with api.database.writing() as tx:
        await integrations.delete(tx, me.account, id, now=utc_now(api.clock))
    return answers.deleted(id, at=None)
