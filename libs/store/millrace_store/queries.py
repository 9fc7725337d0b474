"""Named SQL: statements live in `.sql` files, each under a line `-- name: get_run`, and are asked for by that name.

A file is read once. Statements speak of the schemas by name (`read.runs`); `in_schema` gives the same statements for
a shadow of a schema, which is how a rebuild writes beside the tables in use.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from millrace_core.errors import Fatal

_NAME_LINE = re.compile(r"^-- name: ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)


def parse(text: str) -> Mapping[str, str]:
    """The statements of one file by name. Raises Fatal for SQL before the first name, a name twice, or an empty one."""
    first, *rest = _NAME_LINE.split(text)
    if any(line.strip() and not line.startswith("--") for line in first.splitlines()):
        raise Fatal("there is SQL before the first `-- name:` line")
    found: dict[str, str] = {}
    for name, body in zip(rest[::2], rest[1::2], strict=True):
        sql = _without_comment_behind(body).strip().rstrip(";").strip()
        if name in found or not sql:
            raise Fatal(f"the statement {name} is there twice, or empty")
        found[name] = sql
    return MappingProxyType(found)


def _without_comment_behind(body: str) -> str:
    """A comment above a statement's name line belongs to that statement, not to the end of the one before."""
    lines = body.rstrip().splitlines()
    while lines and (not lines[-1].strip() or lines[-1].startswith("--")):
        lines.pop()
    return "\n".join(lines)


@cache
def load(file: str) -> Mapping[str, str]:
    """The statements of `sql/<file>.sql` in this package, by name."""
    return parse((resources.files("millrace_store") / "sql" / f"{file}.sql").read_text())


def in_schema(statements: Mapping[str, str], schema: str, *, instead_of: str = "read") -> Mapping[str, str]:
    """The same statements with one schema's name replaced by another's."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", schema):
        raise Fatal(f"{schema!r} is no schema name")
    name = re.compile(rf"\b{instead_of}\.(?=[a-z\"])")
    return MappingProxyType({key: name.sub(f"{schema}.", sql) for key, sql in statements.items()})
