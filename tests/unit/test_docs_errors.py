"""The guide of errors: it knows every code that can be answered, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI

from millrace_api import docs, openapi
from millrace_web.errors import CODES
from tests.support import asgi

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/errors.md"
ANSWERING = ("libs/web", "services/api", "services/gateway")
ROW = re.compile(r"^\| `([A-Z_]+)` \| (\d{3}|other) \|", re.MULTILINE)
CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)*")


def documented() -> dict[str, str]:
    return dict(ROW.findall(GUIDE.read_text()))


def given() -> Iterator[str]:
    """Every code that is written out anywhere: as `code=` of a call, whatever is chosen between."""
    for room in ANSWERING:
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "code":
                    yield from _texts(node.value)
                if isinstance(node, ast.Assign) and [_name(target) for target in node.targets] == ["code"]:
                    yield from _texts(node.value)


def _name(target: ast.expr) -> str | None:
    return target.id if isinstance(target, ast.Name) else None


def _texts(value: ast.expr) -> Iterator[str]:
    for part in ast.walk(value):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and CODE.fullmatch(part.value):
            yield part.value


def test_every_code_is_in_the_guide_and_no_other() -> None:
    written = set(given())
    assert {"NONCE_REUSED", "OVERLOADED", "NOT_YET_IN_FORCE", "VALIDATION_ERROR", "PAYLOAD_TOO_LARGE"} <= written
    assert set(documented()) == written | set(CODES.values()) | {"ERROR"}


def test_the_code_of_a_status_stands_with_it() -> None:
    statuses = documented()
    assert {code: int(statuses[code]) for code in CODES.values()} == {code: status for status, code in CODES.items()}


async def test_swagger_leads_to_the_guide_which_is_served_as_it_is() -> None:
    assert "(/docs/errors)" in openapi.DESCRIPTION
    app = FastAPI(docs_url=None)
    app.include_router(docs.router())
    served = await asgi.ask(app, "GET", "/docs/errors")
    assert (served.status, served.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert served.body == GUIDE.read_bytes(), "copy docs/guides/errors.md to services/api/millrace_api/errors.md"
    assert b'href="/docs/errors"' in (await asgi.ask(app, "GET", "/docs")).body
