"""A route that will end says since when and when, in its answers and in its description; the others say nothing."""

from datetime import UTC, datetime

import pytest
from fastapi import FastAPI

from millrace_api import http, openapi
from millrace_api.application.api import Api
from millrace_core.clock import ManualClock
from millrace_web.deprecation import DEPRECATED, Deprecated, Deprecations
from millrace_web.rate_limits import RateLimits
from tests.support import asgi

OLD = Deprecated(
    "GET",
    "/v1/receipts/{root}/proof",
    since=datetime(2023, 6, 30, 23, 59, 59, tzinfo=UTC),
    sunset=datetime(2024, 6, 30, 23, 59, 59, tzinfo=UTC),
    link="https://example.test/instead",
)
NO_API: Api = None  # type: ignore[assignment]


def application(*deprecated: Deprecated) -> FastAPI:
    return http.application(
        NO_API,
        authenticator=None,  # type: ignore[arg-type]
        cursors=None,  # type: ignore[arg-type]
        open_rate=RateLimits(ManualClock(), share=1 / 600),
        version="0",
        deprecated=deprecated,
    )


async def test_its_answers_carry_the_headers_errors_too() -> None:
    app = application(OLD)
    answer = await asgi.ask(Deprecations(app, (OLD,)), "GET", f"/v1/receipts/{'0' * 64}/proof")
    assert answer.status == 400
    assert answer.headers["deprecation"] == "@1688169599"
    assert answer.headers["sunset"] == "Sun, 30 Jun 2024 23:59:59 GMT"
    assert answer.headers["link"] == '<https://example.test/instead>; rel="deprecation"; type="text/html"'
    other = await asgi.ask(Deprecations(app, (OLD,)), "GET", "/v1/nothing")
    assert not {"deprecation", "sunset", "link"} & set(other.headers)


def test_it_is_described_as_deprecated_and_no_other() -> None:
    paths = openapi.document(application(OLD))["paths"]
    marked = {path for path, item in paths.items() for one in item.values() if one.get("deprecated")}
    assert marked == {OLD.path}
    assert {"Deprecation", "Sunset", "Link"} <= set(paths[OLD.path]["get"]["responses"]["200"]["headers"])


def test_a_route_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        openapi.document(application(Deprecated("GET", "/v1/gone", since=OLD.since)))


def test_the_table_names_routes_that_are_there() -> None:
    openapi.document(application(*DEPRECATED))
