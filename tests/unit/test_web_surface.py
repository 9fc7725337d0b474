"""Envelopes, request ids, body limits, authentication as a FastAPI application sees them."""

import asyncio
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_core.clock import ManualClock
from millrace_web.api_keys import Accounts, ApiKey, ApiKeys
from millrace_web.authentication import Authenticator, require
from millrace_web.body_limit import BodyLimit
from millrace_web.envelopes import AUTOMATION, INGEST, OPS, Envelope, JsonResponse, install_errors
from millrace_web.errors import ApiError, not_found
from millrace_web.observed import Observed
from millrace_web.paging import PageQuery
from millrace_web.request_ids import RequestIds
from tests.support import asgi
from tests.support.ingesting import KEY, PEPPER, key_control

BYTES_MAX = 1_000


class Thing(BaseModel):
    name: str
    size: int


class Requests:
    def __init__(self) -> None:
        self.answers: list[tuple[str, str, str, int]] = []

    def began(self, surface: str) -> None: ...

    def answered(self, surface: str, route: str, method: str, status: int, seconds: float) -> None:
        self.answers.append((surface, route, method, status))


def make_app(envelope: Envelope, requests: Requests) -> ASGIApp:
    app = FastAPI(openapi_url=None)
    keys = ApiKeys(pepper=PEPPER, clock=ManualClock())
    keys.apply("acc_1", "key_1", key_control(scopes=("read:jobs",)))
    app.state.authenticator = Authenticator(keys, Accounts())
    install_errors(app, lambda _: envelope)

    @app.get("/things")
    async def things(page: Annotated[PageQuery, Depends()]) -> JsonResponse:
        return JsonResponse(envelope.success({"limit": page.limit}, None))

    @app.post("/things")
    async def make(thing: Thing) -> JsonResponse:
        return JsonResponse(envelope.success({"name": thing.name}, {"n": 1}))

    @app.get("/things/{id}")
    async def thing(id: str) -> None:
        if id == "bug":
            raise RuntimeError("the secret inside")
        if id == "taken":
            raise ApiError(409, "Taken.", details={"by": "you"})
        raise not_found("thing", id)

    @app.get("/mine")
    async def mine(key: Annotated[ApiKey, Depends(require("read:jobs"))]) -> JsonResponse:
        return JsonResponse(envelope.success({"account": key.account}, None))

    @app.get("/theirs")
    async def theirs(key: Annotated[ApiKey, Depends(require("manage:jobs"))]) -> None: ...

    limited = BodyLimit(app, envelope_of=lambda _: envelope, bytes_max_of=lambda _: BYTES_MAX)
    return Observed(RequestIds(limited), surface_of=lambda _: envelope.surface, observer=requests)


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture
def app(requests: Requests) -> ASGIApp:
    return make_app(AUTOMATION, requests)


JSON = {"content-type": "application/json"}


async def test_success_and_error_have_the_surfaces_shape(app: ASGIApp) -> None:
    made = await asgi.ask(app, "POST", "/things", headers=JSON, body=b'{"name":"n","size":1}')
    assert made.json == {"success": True, "data": {"name": "n"}, "meta": {"n": 1}}
    missing = await asgi.ask(app, "GET", "/things/x", headers={"x-request-id": "r1"})
    assert missing.status == 404
    assert missing.headers["x-request-id"] == "r1"
    error = missing.json["error"]
    assert missing.json["success"] is False
    assert (error["code"], error["details"], error["request_id"]) == ("NOT_FOUND", {}, "r1")
    taken = await asgi.ask(app, "GET", "/things/taken")
    assert (taken.status, taken.json["error"]["details"]) == (409, {"by": "you"})


async def test_the_ingest_envelope(requests: Requests) -> None:
    answer = await asgi.ask(make_app(INGEST, requests), "GET", "/things/x")
    assert set(answer.json) == {"message", "code", "requestId"}


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", "1.5"])
async def test_a_limit_out_of_range_is_an_error(app: ASGIApp, limit: str) -> None:
    answer = await asgi.ask(app, "GET", f"/things?limit={limit}")
    assert (answer.status, answer.json["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert "limit" in answer.json["error"]["message"]


async def test_the_default_limit_is_twenty(app: ASGIApp) -> None:
    assert (await asgi.ask(app, "GET", "/things")).json["data"]["limit"] == 20


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"name":1,"size":"secret-value"}', b"\xff"])
async def test_bad_bodies_are_400_and_not_repeated(app: ASGIApp, body: bytes) -> None:
    answer = await asgi.ask(app, "POST", "/things", headers=JSON, body=body)
    assert answer.status == 400
    assert "secret-value" not in answer.body.decode()


async def test_unknown_paths_and_methods_have_the_envelope_too(app: ASGIApp) -> None:
    assert (await asgi.ask(app, "GET", "/nothing")).json["error"]["code"] == "NOT_FOUND"
    wrong = await asgi.ask(app, "DELETE", "/mine")
    assert (wrong.status, wrong.json["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "GET"


async def test_a_bug_is_500_without_its_text_and_with_its_id(app: ASGIApp) -> None:
    sent: list[asgi.Answer] = []

    async def catching(scope: object, receive: object, send: object) -> None:
        with pytest.raises(RuntimeError):
            await app(scope, receive, send)  # type: ignore[arg-type]

    sent.append(await asgi.ask(catching, "GET", "/things/bug"))
    assert sent[0].status == 500
    assert "secret" not in sent[0].body.decode()
    assert sent[0].headers["x-request-id"] in sent[0].json["error"]["message"]


async def test_bodies_are_bounded_announced_or_streamed(app: ASGIApp) -> None:
    large = b"x" * (BYTES_MAX + 1)
    announced = await asgi.ask(app, "POST", "/things", headers=JSON, body=large)
    streamed = await asgi.ask(app, "POST", "/things", headers=JSON, body=[large[:600], large[600:], b"more"])
    for answer in (announced, streamed):
        assert (answer.status, answer.json["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert answer.headers["connection"] == "close"
    fits = b'{"name":"' + b"x" * (BYTES_MAX - 20) + b'","size":1}'
    assert len(fits) <= BYTES_MAX
    assert (await asgi.ask(app, "POST", "/things", headers=JSON, body=[fits[:5], fits[5:]])).status == 200


async def test_all_bodies_under_way_are_bounded_together() -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()
    app = FastAPI(openapi_url=None)
    install_errors(app, lambda _: OPS)

    @app.post("/things")
    async def make(thing: Thing) -> None:
        if thing.size == 1:
            inside.set()
            await go_on.wait()

    limited = BodyLimit(app, envelope_of=lambda _: OPS, held_bytes_max=40)
    first, second = b'{"name":"first","size":1}', b'{"name":"other","size":2}'
    held = asyncio.ensure_future(asgi.ask(limited, "POST", "/things", headers=JSON, body=first))
    await inside.wait()
    refused = await asgi.ask(limited, "POST", "/things", headers=JSON, body=[second[:9], second[9:]])
    assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert limited.held == len(first)
    go_on.set()
    assert (await held).status == 200
    assert limited.held == 0
    assert (await asgi.ask(limited, "POST", "/things", headers=JSON, body=second)).status == 200


async def test_a_body_that_does_not_come_is_given_up() -> None:
    app = FastAPI(openapi_url=None)
    install_errors(app, lambda _: OPS)

    @app.post("/things")
    async def make(thing: Thing) -> None: ...

    limited = BodyLimit(app, envelope_of=lambda _: OPS, read_s_max=0.01)

    async def stalled(scope: Scope, receive: Receive, send: Send) -> None:
        parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def next_part() -> Message:
            return next(parts, None) or await asyncio.Future[Message]()

        await limited(scope, next_part, send)

    answer = await asgi.ask(stalled, "POST", "/things", headers=JSON)
    assert (answer.status, answer.json["error"]["code"]) == (408, "timeout")
    assert answer.headers["connection"] == "close"
    assert limited.held == 0


async def test_who_calls(app: ASGIApp) -> None:
    key = {"authorization": f"Bearer {KEY}"}
    assert (await asgi.ask(app, "GET", "/mine", headers=key)).json["data"] == {"account": "acc_1"}
    missing = await asgi.ask(app, "GET", "/mine")
    assert (missing.status, missing.json["error"]["code"]) == (401, "UNAUTHORIZED")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    wrong = await asgi.ask(app, "GET", "/mine", headers={"authorization": "Bearer nope"})
    assert (wrong.status, "invalid_token" in wrong.headers["www-authenticate"]) == (401, True)
    denied = await asgi.ask(app, "GET", "/theirs", headers=key)
    assert (denied.status, denied.json["error"]["details"]) == (403, {"scope": "manage:jobs"})


async def test_answers_are_observed_by_declared_route(app: ASGIApp, requests: Requests) -> None:
    await asgi.ask(app, "GET", "/things/x")
    await asgi.ask(app, "GET", "/nothing/at/all")
    assert requests.answers == [("automation", "/things/{id}", "GET", 404), ("automation", "unknown", "GET", 404)]
