"""Swagger UI, of everything or of one surface (`/docs?surface=ops`), from its own files: nothing is fetched from
elsewhere, and the page may load nothing from elsewhere. Beside it the reference of errors, `/docs/errors`, as text.

The files are those of the `swagger-ui-dist` release that the PyPI package `fastapi-offline` carries, pinned by hash in
`uv.lock`; nothing else of that package is used. Served with a policy that allows this origin alone.
"""

from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.openapi import SURFACES

_PACKAGE = "fastapi_offline"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
# Swagger UI sets styles on elements; everything else comes from this origin's files.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "public, max-age=3600",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millrace API</title>
<link rel="icon" type="image/png" href="/docs/favicon.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<nav>%s</nav>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """const surface = new URLSearchParams(location.search).get("surface") ?? "";
SwaggerUIBundle({
  url: /^[a-z]+$/.test(surface) ? `/openapi/${surface}.json` : "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""


_ERRORS = "errors.md"
"""The same as `docs/guides/errors.md`, which is not part of what is installed."""


def router() -> APIRouter:
    """`/docs`, the files it needs, and `/docs/errors`."""
    routes = APIRouter(include_in_schema=False)
    files = {name: (resources.files(_PACKAGE) / "static" / name).read_bytes() for name in _ASSETS}

    @routes.get("/docs")
    async def page() -> Response:
        return Response(_PAGE % _links(), media_type="text/html", headers=_HEADERS)

    @routes.get("/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript; charset=utf-8", headers=_HEADERS)

    errors = (resources.files("millrace_api") / _ERRORS).read_bytes()

    @routes.get("/docs/errors")
    async def reference() -> Response:
        return Response(errors, media_type="text/plain; charset=utf-8", headers=_HEADERS)

    for name, media_type in _ASSETS.items():
        _serve(routes, name, files[name], media_type)
    return routes


def _links() -> str:
    surfaces = (f'<a href="/docs?surface={it}">{it}</a>' for it in SURFACES)
    return " · ".join(['<a href="/docs">everything</a>', *surfaces, '<a href="/docs/errors">errors</a>'])


def _serve(routes: APIRouter, name: str, content: bytes, media_type: str) -> None:
    @routes.get(f"/docs/{name}")
    async def asset() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)
