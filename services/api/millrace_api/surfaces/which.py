"""Which surface a request is for, by its path; where several share one, by how the caller proves who he is.

A path of one document answers in that document's envelope, whatever the key.
"""

from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

from millrace_api.surfaces.pages.errors import PAGES
from millrace_web.envelopes import AUTOMATION, INTAKE, OPS, Envelope

NATIVE: Final = "native"
SIGNED_HEADER: Final = b"x-opsiq-key"

_OPS = ("/v1/actions", "/v1/customers", "/v1/tickets", "/v1/connectors", "/v1/webhooks/test", "/connectors")
_AUTOMATION = (
    "/v1/workflows",
    "/api/workflows",
    "/v1/executions",
    "/v1/forms",
    "/v1/credentials",
    "/v1/integrations",
    "/v1/webhooks",
)
_INTAKE = ("/api/v1",)
_PAGES = ("/forms",)
_ENVELOPES: Mapping[str, Envelope] = {
    "ops": OPS,
    "intake": INTAKE,
    "automation": AUTOMATION,
    "pages": PAGES,
    NATIVE: AUTOMATION,
}


def surface_of(scope: Scope) -> str:
    """The surface's name: ops, intake, automation, pages or native."""
    return _surface_of(scope["path"], signed=is_signed(scope))


def surfaces_describing(path: str) -> frozenset[str]:
    """The surfaces in whose document a path stands: those that answer on it, however the caller proves who he is. What
    only the gateway answers counts too: `ingest`, and the ops document's events."""
    if _is_under(path, ("/ingest",)):
        return frozenset({"ingest"})
    if _is_under(path, ("/v1/events/fire",)):
        return frozenset({"ops"})
    return frozenset({_surface_of(path, signed=False), _surface_of(path, signed=_is_under(path, ("/v1/webhooks",)))})


def _surface_of(path: str, *, signed: bool) -> str:
    if _is_under(path, _OPS) or (_is_under(path, ("/v1/webhooks",)) and signed):
        return "ops"
    if _is_under(path, _INTAKE):
        return "intake"
    if _is_under(path, _PAGES):
        return "pages"
    return "automation" if _is_under(path, _AUTOMATION) else NATIVE


def envelope_of(scope: Scope) -> Envelope:
    """How this request is answered, errors too."""
    return _ENVELOPES[surface_of(scope)]


def rate_unit_of(scope: Scope) -> int:
    """How `X-RateLimit-Reset` is written: so many to a second, as the surface's document has it."""
    return 1_000 if surface_of(scope) == "intake" else 1


def is_signed(scope: Scope) -> bool:
    """Whether the caller proves who he is by a signature."""
    return any(name == SIGNED_HEADER for name, _ in scope["headers"])


def _is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
