"""The methods that a path answers to, for the `Allow` header of a 405: the framework names only those of the first
route that has the path.
"""

import re

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

Table = list[tuple[re.Pattern[str], int, frozenset[str]]]


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """All of them, in order; none when the path is nobody's. `/things/find` is itself, and no `/things/{id}`: of the
    routes that fit, those with the fewest names in their path count."""
    table: Table | None = getattr(app.state, "methods_by_path", None)
    if table is None:  # when the first is asked for, all routes are there
        table = app.state.methods_by_path = _table(app)
    fitting = [(names, methods) for pattern, names, methods in table if pattern.fullmatch(path)]
    fewest = min((names for names, _ in fitting), default=0)
    return sorted({method for names, methods in fitting if names == fewest for method in methods})


def _table(app: FastAPI) -> Table:
    return [
        (compile_path(route.path)[0], route.path.count("{"), frozenset(route.methods))
        for route in iter_route_contexts(app.routes)
        if route.path and route.methods
    ]
