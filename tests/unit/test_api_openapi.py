"""The OpenAPI document: 3.1, complete, and true about what the routes are."""

import json
import re
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from millrace_api import http, openapi
from millrace_api.application.api import Api
from millrace_api.surfaces.calls import OPEN_PLAN
from millrace_api.surfaces.native import bodies
from millrace_core.clock import ManualClock
from millrace_web.rate_limits import RateLimits
from tests.support import asgi

METHODS = {"get", "post", "put", "patch", "delete"}
OPEN = {"/v1/receipts/{root}/proof"}
"""What anyone may ask."""
OPEN_OPERATIONS = {"post /v1/accounts"}
"""And do, where the deployment lets him."""


@cache
def document() -> dict[str, Any]:
    """The document of an application that is only described, never asked."""
    api: Api = None  # type: ignore[assignment]
    app = http.application(api, authenticator=None, cursors=None, open_rate=None, version="0")  # type: ignore[arg-type]
    return openapi.document(app)


def described_routes() -> list[tuple[str, str]]:
    """Every native operation."""
    return sorted(
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        if path.startswith("/v1/")
        for method in operations
        if method in METHODS
    )


def test_it_is_3_1_and_has_the_ingest_routes_too() -> None:
    described = document()
    assert described["openapi"].startswith("3.1")
    assert "/ingest/event/publish" in described["paths"]
    assert "/ingest/event/publish/batch" in described["paths"]


def test_every_native_resource_is_there() -> None:
    paths = set(document()["paths"])
    for resource in (
        "keys",
        "subscriptions",
        "jobs",
        "chains",
        "webhooks",
        "events",
        "runs",
        "deliveries",
        "dead-letters",
    ):
        assert f"/v1/{resource}" in paths
        assert f"/v1/{resource}/{{id}}" in paths
    assert {f"/v1/{resource}/{{id}}/trace" for resource in ("events", "runs", "deliveries")} <= paths
    assert {"/v1/accounts/me", "/v1/jobs/{id}/run", "/v1/chains/{id}/run", "/v1/runs/{id}/cancel"} <= paths
    assert {"/v1/dead-letters/count", "/v1/subscriptions/backtest"} <= paths
    assert {f"/v1/{resource}/{{id}}/receipt" for resource in ("events", "runs", "deliveries")} <= paths
    assert {"/v1/receipts", *OPEN} <= paths


def test_every_operation_says_who_may_ask_and_how_it_fails() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            if method not in METHODS or not path.startswith("/v1/"):
                continue
            where = f"{method} {path}"
            is_open = path in OPEN or where in OPEN_OPERATIONS
            assert ({"429", "503"} if is_open else {"401", "403", "429", "503"}) <= set(operation["responses"]), where
            assert "422" not in operation["responses"], where
            assert bool(operation.get("security")) != is_open, where
            assert any(status.startswith("2") for status in operation["responses"]), where


def test_every_operation_that_takes_a_body_says_what_becomes_of_one_that_does_not_come() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            if method in METHODS and "requestBody" in operation:
                schema = operation["responses"]["408"]["content"]["application/json"]["schema"]
                assert schema == operation["responses"]["503"]["content"]["application/json"]["schema"], path


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    described = document()
    schemas = described["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [ref for inner in value.values() for ref in references(inner)]
        if isinstance(value, list):
            return [ref for inner in value for ref in references(inner)]
        return []

    for ref in references(described):
        assert ref.removeprefix("#/components/schemas/") in schemas, ref


def test_the_examples_of_a_backtest_are_ones() -> None:
    described = document()
    schema = described["components"]["schemas"]["Backtest"]
    assert not {"pattern", "target"} & set(schema.get("required", [])), "one that is there needs neither"
    for example in schema["examples"]:
        Draft202012Validator({**schema, "components": described["components"]}).validate(example)
        bodies.Backtest.model_validate(example).asked()


async def test_what_anyone_may_ask_has_one_rate_for_all() -> None:
    rate = RateLimits(ManualClock(), share=1 / 600)
    api: Api = None  # type: ignore[assignment]
    app = http.application(api, authenticator=None, cursors=None, open_rate=rate, version="0")  # type: ignore[arg-type]
    for path in (path.replace("{root}", "0" * 64) for path in OPEN):
        rate.take("", OPEN_PLAN)
        refused = await asgi.ask(app, "GET", f"{path}?leaf={'0' * 64}&index=0")
        assert (refused.status, refused.json["error"]["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) >= 1


def test_a_patch_shows_no_default_that_it_does_not_take() -> None:
    patch = document()["components"]["schemas"]["SubscriptionPatch"]
    assert all("default" not in member for member in patch["properties"].values())


# ── one document for each surface ───────────────────────────────────────────────────────────────────────────────────
def test_every_path_stands_in_the_documents_of_the_surfaces_that_answer_on_it() -> None:
    whole = document()
    parts = openapi.documents(whole)
    assert set(parts) == set(openapi.SURFACES)
    assert {path for part in parts.values() for path in part["paths"]} == set(whole["paths"])
    for path, surfaces in (
        ("/ingest/event/publish", {"ingest"}),
        ("/v1/events/fire", {"ops"}),
        ("/v1/customers/{id}", {"ops"}),
        ("/api/v1/intake-bots", {"intake"}),
        ("/v1/workflows/{id}/execute", {"automation"}),
        ("/v1/webhooks", {"automation", "ops"}),
        ("/v1/runs", {"native"}),
    ):
        assert {surface for surface, part in parts.items() if path in part["paths"]} == surfaces, path


@pytest.mark.parametrize("surface", openapi.SURFACES)
def test_the_document_of_a_surface_is_whole_and_holds_nothing_that_it_does_not_need(surface: str) -> None:
    part = openapi.documents(document())[surface]
    text = json.dumps(part["paths"]) + json.dumps(part["components"]["schemas"])
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named == set(part["components"]["schemas"])
    assert part["info"]["title"] == f"Millrace: {surface}"
    for path, operations in part["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                answers = operation["responses"]
                assert any(status.startswith("2") for status in answers), (method, path)
                assert {"400", "503"} & set(answers), (method, path)


async def test_every_document_is_served_and_can_be_chosen() -> None:
    api: Api = None  # type: ignore[assignment]
    app = http.application(api, authenticator=None, cursors=None, open_rate=None, version="0")  # type: ignore[arg-type]
    page = await asgi.ask(app, "GET", "/docs")
    for surface in openapi.SURFACES:
        assert f'href="/docs?surface={surface}"'.encode() in page.body
        answer = await asgi.ask(app, "GET", f"/openapi/{surface}.json")
        assert json.loads(answer.body)["info"]["title"] == f"Millrace: {surface}"


def test_what_is_answered_in_two_shapes_shows_both() -> None:
    part = openapi.documents(document())["ops"]
    answers = part["paths"]["/v1/webhooks"]["get"]["responses"]
    both = answers["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert [sorted(schema.get("required", [])) for schema in both] == [[], ["data", "has_more", "next_cursor"]]
    assert len(answers["404"]["content"]["application/json"]["schema"]["anyOf"]) == 2


async def test_a_method_that_is_not_allowed_is_told_all_that_are() -> None:
    api: Api = None  # type: ignore[assignment]
    app = http.application(api, authenticator=None, cursors=None, open_rate=None, version="0")  # type: ignore[arg-type]
    for path, allowed in (
        ("/v1/workflows/wf_1", "DELETE, GET, PATCH"),
        ("/v1/workflows", "GET, POST"),
        ("/v1/webhooks/test", "POST"),
    ):
        answer = await asgi.ask(app, "TRACE", path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
