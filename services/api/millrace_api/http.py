"""The application that the HTTP server serves: surfaces, errors in each surface's envelope, documentation.

Layers from outside: request id, rate, counting, refusals kept under their key, limit of the body, routes. What a use
case refuses becomes an error of the surface that was asked; `surfaces.which` tells surfaces apart.
"""

from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from millrace_api import docs, openapi
from millrace_api.application.api import Api
from millrace_api.application.problems import Problem
from millrace_api.surfaces.automation import surface as automation
from millrace_api.surfaces.calls import OPEN_PLAN
from millrace_api.surfaces.intake import surface as intake
from millrace_api.surfaces.native import surface as native
from millrace_api.surfaces.once import Answered, Refusals, on_answered
from millrace_api.surfaces.ops import surface as ops
from millrace_api.surfaces.pages import surface as pages
from millrace_api.surfaces.problems import to_api_error
from millrace_api.surfaces.which import envelope_of, rate_unit_of, surface_of
from millrace_core.errors import Retry
from millrace_web.authentication import Authenticator
from millrace_web.body_limit import BodyLimit
from millrace_web.caller_rates import RateHeaders
from millrace_web.deprecation import DEPRECATED, Deprecated, Deprecations
from millrace_web.entrance import Entrance
from millrace_web.envelopes import error_response, install_errors
from millrace_web.observed import HttpObserver, Observed
from millrace_web.paging import Cursors
from millrace_web.rate_limits import RateLimits, Verdict
from millrace_web.request_ids import RequestIds, request_id_of


def application(
    api: Api,
    *,
    authenticator: Authenticator,
    cursors: Cursors,
    open_rate: RateLimits,
    version: str,
    entrance: Entrance | None = None,
    deprecated: Sequence[Deprecated] = DEPRECATED,
) -> FastAPI:
    """The routes, without the layers around them. `open_rate` is that of what may be asked without a key; `entrance` is
    passed by everyone with one; `deprecated` are the routes that will end."""
    app = FastAPI(
        title="Millrace",
        description=openapi.DESCRIPTION,
        version=version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.api = api
    app.state.authenticator = authenticator
    app.state.cursors = cursors
    app.state.open_rate = open_rate
    app.state.entrance = entrance
    app.state.deprecated = deprecated
    install_errors(app, envelope_of)
    for kind in (Problem, Retry):
        app.add_exception_handler(kind, _on_problem)
    app.add_exception_handler(Answered, on_answered)
    for surface in (ops, intake, automation, native, pages):
        for router in surface.ROUTERS:
            app.include_router(router)
    app.include_router(docs.router())
    _add_root(app)
    return app


def layered(app: FastAPI, *, observer: HttpObserver) -> ASGIApp:
    """The application as it is served."""
    limited = BodyLimit(Deprecations(app, app.state.deprecated), envelope_of=envelope_of)
    observed = Observed(Refusals(limited, app.state.api), surface_of=surface_of, observer=observer)
    open_rate: RateLimits = app.state.open_rate

    def uncounted() -> Verdict:
        return open_rate.look("", OPEN_PLAN)

    return RequestIds(RateHeaders(observed, uncounted=uncounted, per_s_of=rate_unit_of))


def _add_root(app: FastAPI) -> None:
    documents = openapi.Documents(app)

    _serve_document(app, "/openapi.json", documents, openapi.WHOLE)
    for surface in openapi.SURFACES:
        _serve_document(app, f"/openapi/{surface}.json", documents, surface)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")


def _serve_document(app: FastAPI, path: str, documents: openapi.Documents, name: str) -> None:
    @app.get(path, include_in_schema=False)
    async def openapi_document() -> Response:
        return Response(await documents.named(name), media_type="application/json")


async def _on_problem(request: Request, error: Exception) -> Response:
    return error_response(to_api_error(error), envelope_of(request.scope), request_id_of(request.scope))
