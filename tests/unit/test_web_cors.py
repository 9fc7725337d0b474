"""Pages of other origins: preflights without a key, headers that a page may read, origins that may not."""

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millrace_web.cors import EXPOSED, Cors, parse_origins
from tests.support import asgi

SHOP = "https://shop.example"
PREFLIGHT = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,ce-id",
}


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("behind", status_code=401, headers={"x-request-id": "r"})(scope, receive, send)


def layer(origins: str) -> Cors:
    return Cors(behind, parse_origins(origins))


async def test_a_preflight_is_answered_without_a_key() -> None:
    answer = await asgi.ask(layer("*"), "OPTIONS", "/v1/jobs", headers=PREFLIGHT)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type,ce-id"
    assert answer.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_preflight_that_asks_for_no_header_is_told_them() -> None:
    headers = {name: value for name, value in PREFLIGHT.items() if not name.endswith("Headers")}
    allowed = (await asgi.ask(layer("*"), "OPTIONS", "/", headers=headers)).headers["access-control-allow-headers"]
    assert {"Authorization", "Idempotency-Key", "X-OpsIQ-Signature"} <= set(allowed.split(", "))


async def test_an_answer_says_that_the_page_may_read_it_errors_too() -> None:
    answer = await asgi.ask(layer("*"), "GET", "/v1/jobs", headers={"Origin": SHOP})
    assert (answer.status, answer.body) == (401, b"behind")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"].split(", ") == list(EXPOSED)
    assert answer.headers["x-request-id"] == "r"


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_who_is_no_browser_sees_nothing_of_it(method: str) -> None:
    answer = await asgi.ask(layer("*"), method, "/v1/jobs")
    assert (answer.status, answer.body) == (401, b"behind")
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_only_the_origins_that_are_named() -> None:
    app = layer(f" {SHOP}/ , https://other.example")
    told = await asgi.ask(app, "GET", "/", headers={"Origin": SHOP})
    assert (told.headers["access-control-allow-origin"], told.headers["vary"]) == (SHOP, "Origin")
    for method, more in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        refused = await asgi.ask(app, method, "/", headers={**more, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers
        assert "access-control-allow-methods" not in refused.headers
        assert refused.headers["vary"] == "Origin"


async def test_switched_off_it_does_nothing() -> None:
    answer = await asgi.ask(layer("none"), "OPTIONS", "/v1/jobs", headers=PREFLIGHT)
    assert (answer.status, answer.body) == (401, b"behind")
    assert "access-control-allow-origin" not in answer.headers
