"""Who may pass, for every route of every surface as it stands in the application: nobody without a key, no key without
the scope, and a signature is as good as a key. A route that is added is in here by itself."""

import asyncio
import secrets
from collections.abc import Mapping

import pytest

from millrace_api.openapi import SURFACES
from millrace_api.surfaces.which import envelope_of
from millrace_cli import bootstrap
from millrace_web.envelopes import Envelope
from millrace_web.errors import ApiError
from millrace_web.rate_plans import endpoint_window
from millrace_web.scopes import ALL, SCOPES, allows
from tests.support.api_world import ApiWorld
from tests.support.routes import Guarded, guarded_routes
from tests.support.signing import signed_headers
from tests.support.things import BODIES, MAKERS, NOT_OF_AN_ACCOUNT, NOT_SHOWN, kinds_of, made
from tests.support.user import Answer
from tests.support.waiting import eventually

ROUTES = guarded_routes()
OPEN = {
    "GET /",
    "GET /docs",
    "GET /docs/errors",
    "GET /docs/favicon.png",
    "GET /docs/start.js",
    "GET /docs/swagger-ui-bundle.js",
    "GET /docs/swagger-ui.css",
    "GET /openapi.json",
    *(f"GET /openapi/{surface}.json" for surface in SURFACES),
    "GET /forms/{public_id}",
    "GET /forms/{public_id}/thanks",
    "GET /v1/receipts/{root}/proof",
    "POST /connectors/{public_id}/webhook",
    "POST /v1/accounts",
    "POST /forms/{public_id}",
}
"""What needs no key."""
ANY_KEY = {"GET /v1/accounts/me"}
"""What every key may ask, whatever its scopes."""
GUARDED = [route for route in ROUTES if route.needs_key]
SCOPED = [route for route in GUARDED if route.scopes]
OWNED = [route for route in GUARDED if set(kinds_of(route.path)) - NOT_OF_AN_ACCOUNT]


def ids_of(routes: list[Guarded]) -> list[str]:
    return [str(route) for route in routes]


def without(scope: str) -> tuple[str, ...]:
    """Every scope there is but those that include this one."""
    return tuple(sorted(other for other in SCOPES if other != ALL and not allows(frozenset({other}), scope)))


async def ask(api: ApiWorld, route: Guarded, headers: Mapping[str, str]) -> Answer:
    """Without a body, and about things that nobody has: who may not pass is told so before anything is looked at."""
    return await api.ask(route.method, route.filled("0" * 32), headers=headers)


def is_refusal(answer: Answer, route: Guarded, status: int) -> bool:
    """Whether it is this error, as the document of the route's path writes errors."""
    envelope: Envelope = envelope_of({"path": route.path, "headers": []})
    wanted = envelope.error(ApiError(status, ""), "")
    written = (wanted.get("error") or wanted)["code"]
    told = answer.json.get("error") or answer.json
    return answer.status == status and told["code"] == written and set(answer.json) == set(wanted)


@pytest.fixture(scope="module")
async def keys(api: ApiWorld) -> Mapping[str, str]:
    """For each scope that a route asks for, a key that has every other one."""
    made = {}
    for scope in sorted({scope for route in SCOPED for scope in route.scopes}):
        wanted = bootstrap.Wanted(f"without {scope}", "automation", scopes=without(scope))
        made[scope] = (await bootstrap.create_key(api.seals, account="a", plan="enterprise", wanted=wanted)).key

    async def all_known() -> bool:
        answers = await asyncio.gather(*(api.ask("GET", "/v1/accounts/me", key=key) for key in made.values()))
        return all(answer.status == 200 for answer in answers)

    await eventually(all_known, what="the keys are in force")
    return made


def test_what_needs_no_key_is_named_here_and_nothing_else() -> None:
    assert {str(route) for route in ROUTES if not route.needs_key} == OPEN
    assert {str(route) for route in GUARDED if not route.scopes} == ANY_KEY
    assert {scope for route in SCOPED for scope in route.scopes} <= SCOPES


@pytest.mark.parametrize("route", GUARDED, ids=ids_of(GUARDED))
@pytest.mark.parametrize("given", ["none", "wrong", "another scheme", "unsigned"])
async def test_without_a_valid_key_it_is_401(api: ApiWorld, route: Guarded, given: str) -> None:
    headers = {
        "none": {"authorization": ""},
        "wrong": {"authorization": "Bearer mr_live_" + "x" * 43},
        "another scheme": {"authorization": f"Basic {api.key}"},
        "unsigned": {"x-opsiq-key": "ok_live_" + "x" * 43},
    }[given]
    answer = await ask(api, route, headers)
    assert answer.status == 401, answer.body
    assert "WWW-Authenticate" in answer.headers
    assert "X-RateLimit-Limit" in answer.headers
    if given != "unsigned":
        assert is_refusal(answer, route, 401), answer.body


@pytest.mark.parametrize("route", SCOPED, ids=ids_of(SCOPED))
async def test_without_the_scope_it_is_403(api: ApiWorld, route: Guarded, keys: Mapping[str, str]) -> None:
    for scope in route.scopes:
        answer = await ask(api, route, {"authorization": f"Bearer {keys[scope]}"})
        assert is_refusal(answer, route, 403), answer.body
        assert f"{scope!r}" in (answer.json.get("error") or answer.json)["message"]


def test_of_every_kind_of_thing_one_can_be_made_here() -> None:
    kinds = {kind for route in ROUTES for kind in kinds_of(route.path)}
    assert kinds - NOT_OF_AN_ACCOUNT == set(MAKERS), "see tests/support/things.py"


@pytest.mark.parametrize("route", OWNED, ids=ids_of(OWNED))
async def test_another_accounts_thing_is_404(api: ApiWorld, route: Guarded) -> None:
    path = await made(api, route.path)
    body = BODIES.get(str(route), {} if route.method in {"POST", "PUT", "PATCH"} else None)
    theirs = await api.ask_b(route.method, path, body)
    assert is_refusal(theirs, route, 404), theirs.body
    if route.method == "GET" and str(route) not in NOT_SHOWN:
        assert (await api.ask("GET", path)).status == 200, "its owner sees it"


async def test_a_key_that_signs_passes_everywhere_and_is_never_a_bearer(api: ApiWorld) -> None:
    wanted = bootstrap.Wanted("signs everything", "ops", scopes=(ALL,))
    made = await bootstrap.create_key(api.seals, account="b", plan="enterprise", wanted=wanted)
    assert made.secret is not None

    async def signed(route: Guarded) -> Answer:
        path = route.filled(secrets.token_hex(16))
        headers = {"authorization": "", **signed_headers(made.key, made.secret or "", route.method, path)}
        return await api.ask(route.method, path, headers=headers)

    me = next(route for route in GUARDED if str(route) in ANY_KEY)

    async def is_known() -> bool:
        return (await signed(me)).status == 200

    await eventually(is_known, what="the key is in force")
    for route in GUARDED:
        assert (await signed(route)).status not in {401, 403, 500}, route
        bearer = await ask(api, route, {"authorization": f"Bearer {made.key}"})
        assert bearer.status == 401, route


async def test_over_the_rate_every_route_is_429_in_its_own_words(api: ApiWorld) -> None:
    wanted = bootstrap.Wanted("asks too much", "automation", scopes=(ALL,))
    made = await bootstrap.create_key(api.seals, account=f"much-{secrets.token_hex(4)}", plan="free", wanted=wanted)
    headers = {"authorization": f"Bearer {made.key}"}

    async def is_over() -> bool:
        return (await api.ask("GET", "/v1/accounts/me", headers=headers)).status == 429

    await eventually(is_over, timeout_s=30, every_s=0, what="the key's minute is used up")
    for route in GUARDED:
        if endpoint_window(route.method, route.filled("x")) is not None:
            continue  # it has a rate of its own
        answer = await ask(api, route, headers)
        assert is_refusal(answer, route, 429), (route, answer.body)
        assert 1 <= int(answer.headers["Retry-After"]) <= 60, route
        assert answer.headers["X-RateLimit-Remaining"] == "0", route
