"""What the API's routes ask of a caller, read off the routes themselves, so that none can be forgotten."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from millrace_api import http
from millrace_api.application.api import Api
from millrace_web.authentication import Required

MANY = 40


@dataclass(frozen=True, slots=True)
class Guarded:
    """One route: `scopes` are all that it asks for, `needs_key` whether it asks for a key at all."""

    method: str
    path: str
    scopes: frozenset[str]
    needs_key: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def names(self) -> list[str]:
        """The names in its path."""
        return re.findall(r"{(\w+)(?::\w+)?}", self.path)

    def filled(self, value: str) -> str:
        """Its path with this for every name."""
        return re.sub(r"{\w+(?::\w+)?}", value, self.path)


def guarded_routes() -> list[Guarded]:
    """Every route of every surface, those that are not described too."""
    api: Api = None  # type: ignore[assignment]
    app = http.application(api, authenticator=None, cursors=None, open_rate=None, version="0")  # type: ignore[arg-type]
    found = []
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute):
            asked = list(_asked(route.dependant))
            scopes = frozenset(one.scope for one in asked if one.scope is not None)
            methods = sorted((route.methods or set()) - {"HEAD"})
            found += [Guarded(method, route.path or "", scopes, bool(asked)) for method in methods]
    assert len(found) > MANY, "the routes were not found"
    return sorted(found, key=str)


def _asked(dependant: Dependant) -> Iterator[Required]:
    if isinstance(dependant.call, Required):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _asked(inner)
