"""What stands behind the ingest routes: the description of them, and an answer for every other path.

`/openapi.json` (also at `/ingest/openapi.json`, which reaches the gateway where one port serves all). Swagger UI is
the API's.
"""

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from millrace_core import limits
from millrace_web import ingest_openapi
from millrace_web.body_limit import BodyLimit
from millrace_web.envelopes import INGEST, install_errors
from millrace_web.request_ids import RequestIds


def application(version: str) -> ASGIApp:
    """The FastAPI application with its layers."""
    app = FastAPI(
        title="Millrace ingest",
        version=version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    install_errors(app, lambda _: INGEST)
    document = ingest_openapi.merge_into(app.openapi())

    @app.get("/openapi.json", include_in_schema=False)
    @app.get("/ingest/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return document

    return RequestIds(BodyLimit(app, envelope_of=lambda _: INGEST, bytes_max_of=lambda _: limits.BODY_BYTES_MAX))
