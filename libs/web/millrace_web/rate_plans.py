"""How much may be asked: the one table of plans, and the endpoints that have a rate of their own.

| plan | a minute | a day |
|---|---|---|
| free | 60 | 1,000 |
| starter | 120 | 10,000 |
| pro | 300 | 50,000 |
| business | 600 | 200,000 |
| cloud | 300 | – |
| team | 1,000 | – |
| enterprise | no practical limit | – |

Of keys of the agents surface no day is counted, whatever their plan. An endpoint of the ops surface has its own rate
instead of the plan's. In the API all this holds for each key. A gateway counts an account with all its keys, and holds
its share of the same numbers; `/v1/events/fire` is one of its endpoints. Not here: how it is counted (`rate_limits` in
a gateway, `sliding_windows` in the API).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MINUTE_S: Final = 60
DAY_S: Final = 86_400
FIRE: Final = "/v1/events/fire"


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests a minute and a day. A day of None has no bound of its own."""

    name: str
    per_minute: int
    per_day: int | None


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests within any so many seconds. `name` keeps apart what is counted apart."""

    name: str
    seconds: int
    allowed: int


PLANS: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan("free", 60, 1_000),
            Plan("starter", 120, 10_000),
            Plan("pro", 300, 50_000),
            Plan("business", 600, 200_000),
            Plan("cloud", 300, None),
            Plan("team", 1_000, None),
            # No practical limit: 100,000 a second is more than a process can answer.
            Plan("enterprise", 6_000_000, None),
        )
    }
)
SMALLEST: Final = PLANS["free"]
UNLIMITED: Final = "enterprise"

_ENDPOINTS: Final = (
    ("POST", FIRE, 1_000),
    ("POST", "/v1/actions/run", 200),
    ("GET", "/v1/customers/", 2_000),
    ("GET", "/v1/tickets", 2_000),
    ("POST", "/v1/webhooks/test", 60),
    ("GET", "/v1/connectors", 2_000),
)
"""Method, path (one that ends in `/`: what lies under it), requests a minute."""


def windows_of(plan: str, surface: str, method: str, path: str) -> Sequence[Window]:
    """What a key's request is counted against; nothing = it has no practical limit. An unknown plan is the smallest."""
    if plan == UNLIMITED:
        return ()
    own = endpoint_window(method, path)
    if own is not None:
        return (own,)
    found = PLANS.get(plan, SMALLEST)
    minute = Window("minute", MINUTE_S, found.per_minute)
    if found.per_day is None or surface == "agents":
        return (minute,)
    return minute, Window("day", DAY_S, found.per_day)


def endpoint_window(method: str, path: str) -> Window | None:
    """The endpoint's own rate; None where it has none."""
    for of_method, of_path, per_minute in _ENDPOINTS:
        if method == of_method and (path == of_path or (of_path[-1] == "/" and path.startswith(of_path))):
            return Window(f"{of_method} {of_path}", MINUTE_S, per_minute)
    return None
