"""The methods that a path answers to, for the `Allow` header of a 405: the framework names only those of the first
route that has the path.
"""

import re

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

Table = list[tuple[re.Pattern[str], frozenset[str]]]


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """All of them, in order; none when the path is nobody's."""
    table: Table | None = getattr(app.state, "methods_by_path", None)
    if table is None:  # when the first is asked for, all routes are there
        table = app.state.methods_by_path = _table(app)
    return sorted({method for pattern, methods in table if pattern.fullmatch(path) for method in methods})


def _table(app: FastAPI) -> Table:
    return [
        (compile_path(route.path)[0], frozenset(route.methods))
        for route in iter_route_contexts(app.routes)
        if route.path and route.methods
    ]
