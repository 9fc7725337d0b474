"""Which windows a request is counted in: by plan, surface and endpoint."""

import pytest

from millrace_web.rate_plans import PLANS, windows_of


def shown(plan: str, surface: str = "automation", method: str = "GET", path: str = "/v1/runs") -> list[tuple[int, int]]:
    return [(window.allowed, window.seconds) for window in windows_of(plan, surface, method, path)]


@pytest.mark.parametrize(
    ("plan", "minute", "day"),
    [("free", 60, 1_000), ("starter", 120, 10_000), ("pro", 300, 50_000), ("business", 600, 200_000)],
)
def test_the_plans_of_the_automation_page(plan: str, minute: int, day: int) -> None:
    assert shown(plan) == [(minute, 60), (day, 86_400)]


@pytest.mark.parametrize(("plan", "minute"), [("free", 60), ("cloud", 300), ("team", 1_000)])
def test_the_plans_of_the_agents_page_have_no_day(plan: str, minute: int) -> None:
    assert shown(plan, "agents") == [(minute, 60)]


@pytest.mark.parametrize(
    ("method", "path", "minute"),
    [
        ("POST", "/v1/events/fire", 1_000),
        ("POST", "/v1/actions/run", 200),
        ("GET", "/v1/customers/421", 2_000),
        ("GET", "/v1/tickets", 2_000),
        ("POST", "/v1/webhooks/test", 60),
        ("GET", "/v1/connectors", 2_000),
    ],
)
def test_the_endpoints_of_the_ops_page_have_rates_of_their_own(method: str, path: str, minute: int) -> None:
    assert shown("free", "ops", method, path) == [(minute, 60)]
    assert shown("business", "automation", method, path) == [(minute, 60)]


def test_endpoints_are_counted_apart_and_others_by_the_plan() -> None:
    apart = [windows_of("free", "ops", *asked)[0] for asked in (("GET", "/v1/tickets"), ("GET", "/v1/connectors"))]
    assert apart[0] != apart[1]
    for method, path in (("GET", "/v1/customers"), ("DELETE", "/v1/tickets"), ("GET", "/v1/ticketsandmore")):
        assert shown("free", "ops", method, path) == [(60, 60), (1_000, 86_400)]


def test_enterprise_is_not_counted_and_an_unknown_plan_is_the_smallest() -> None:
    assert shown("enterprise") == shown("enterprise", "ops", "POST", "/v1/webhooks/test") == []
    assert shown("gold") == shown("free")
    assert set(PLANS) == {"free", "starter", "pro", "business", "cloud", "team", "enterprise"}
