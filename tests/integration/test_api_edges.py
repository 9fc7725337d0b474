"""What every route has in common: errors in the envelope, other accounts' keys, documentation from own files."""

import re

import pytest

from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b'{"a":', 400), (b"", 400), (b"[]", 400), (b'{"name": NaN}', 400), (b'"\\ud800"', 400), (b"\xff", 400)],
    ids=repr,
)
async def test_bad_json_is_400_in_the_envelope(api: ApiWorld, raw: bytes, status: int) -> None:
    refused = await api.ask("POST", "/v1/jobs", raw=raw)
    assert refused.status == status
    assert refused.json["success"] is False
    assert refused.error["code"] == "VALIDATION_ERROR"


async def test_what_is_not_there_is_404_and_what_is_not_allowed_405(api: ApiWorld) -> None:
    missing = await api.ask("GET", "/v1/nothing")
    assert (missing.status, missing.error["code"]) == (404, "NOT_FOUND")
    wrong = await api.ask("PUT", "/v1/jobs")
    assert (wrong.status, wrong.error["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "POST" in wrong.headers["Allow"] or "GET" in wrong.headers["Allow"]


@pytest.mark.parametrize("key", ["", "mr_live_wrong", "ü"])
async def test_without_a_valid_key_everything_is_401(api: ApiWorld, key: str) -> None:
    refused = await api.ask("GET", "/v1/jobs", headers={"authorization": f"Bearer {key}"})
    assert (refused.status, refused.error["code"]) == (401, "UNAUTHORIZED")
    assert "WWW-Authenticate" in refused.headers


async def test_a_body_over_the_limit_is_413(api: ApiWorld) -> None:
    refused = await api.ask("POST", "/v1/jobs", raw=b'{"name": "' + b"x" * 1_048_576 + b'"}')
    assert (refused.status, refused.error["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_the_request_id_of_the_caller_comes_back(api: ApiWorld) -> None:
    answer = await api.ask("GET", "/v1/jobs", headers={"x-request-id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert (await api.ask("GET", "/v1/nothing", headers={"x-request-id": "mine-2"})).error["request_id"] == "mine-2"


async def test_the_documentation_needs_nothing_from_elsewhere(api: ApiWorld) -> None:
    page = await api.ask("GET", "/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    links = re.findall(rb'(?:src|href)="([^"]+)"', page.body)
    assert links
    for link in links:
        assert re.match(rb"/docs(?:[/?]|$)", link)
        asset = await api.ask("GET", link.decode())
        assert asset.status == 200
        assert len(asset.body) > 100
    assert (await api.ask("GET", "/openapi.json")).json["openapi"].startswith("3.1")


async def test_answers_are_counted_by_route(api: ApiWorld) -> None:
    await api.ask("GET", "/v1/jobs/job_" + "0" * 32)
    metrics = api.context.metrics.exposition().decode()
    assert 'route="/v1/jobs/{id}"' in metrics
    assert "0" * 32 not in metrics
    assert 'surface="native"' in metrics


async def test_relay_and_pool_are_watched(api: ApiWorld) -> None:
    async def shown() -> bool:
        text = api.context.metrics.exposition().decode()
        return all(
            re.search(rf"^{series} ", text, re.MULTILINE)
            for series in (
                r"millrace_relay_entries_total",
                r"millrace_relay_waiting_entries",
                r"millrace_relay_oldest_waiting_age_seconds",
                r'millrace_postgres_pool_connections\{state="idle"\}',
            )
        )

    await eventually(shown)


async def test_a_page_of_another_origin_may_call_and_needs_no_key_for_its_preflight(api: ApiWorld) -> None:
    page = {"origin": "https://shop.example", "authorization": ""}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = await api.ask("OPTIONS", "/v1/jobs", headers={**page, **asked})
    assert (preflight.status, preflight.headers["access-control-allow-headers"]) == (204, "authorization")
    refused = await api.ask("GET", "/v1/jobs", headers=page)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()
