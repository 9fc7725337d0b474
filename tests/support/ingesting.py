"""A gateway's ingest surface in memory: real routes, real keys and limits, a log and a view that a test can move."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from millrace_core import messages
from millrace_core.clock import ManualClock
from millrace_core.credentials import key_digest
from millrace_core.keyring import KeyRing, new_ring_entry
from millrace_gateway.application import application
from millrace_gateway.bodies import Bodies
from millrace_gateway.door import open_door
from millrace_gateway.http import Ingest
from millrace_web import scopes
from millrace_web.api_keys import Accounts, ApiKeys
from millrace_web.caller_rates import RateHeaders
from millrace_web.rate_limits import RateLimits
from millrace_web.signed_requests import Signatures
from tests.support import asgi
from tests.support.memory_log import MemoryLog

PEPPER = b"pepper-of-the-tests-0123456789"
KEY = "mr_live_" + "k" * 43
RING = KeyRing.parse(new_ring_entry("k1"))
NOW_MS = 1_780_000_000_000
PUBLISH = "/ingest/event/publish"
BATCH = "/ingest/event/publish/batch"


def key_control(text: str = KEY, *, account: str = "acc_1", **changes: Any) -> bytes:
    """A key as it stands on `control`."""
    fields: dict[str, Any] = {
        "account": account,
        "name": "test",
        "digest": key_digest(text, pepper=PEPPER),
        "scopes": (scopes.PUBLISH_EVENTS,),
        "plan": "enterprise",
        "surface": "ingest",
    }
    return messages.encode(messages.KeyControl(**(fields | changes)))


class FixedView:
    """A control view whose age a test sets."""

    def __init__(self) -> None:
        self.age_s = 0.0

    def fresh_age_s(self) -> float:
        return self.age_s


@dataclass
class Told:
    """What the routes told their observer."""

    counts: dict[str, int] = field(default_factory=dict)
    limited: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)

    def events(self, outcome: str, count: int) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + count

    def rate_limited(self, account: str) -> None:
        self.limited.append(account)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self.statuses.append(status)

    def bug(self, route: str, request_id: str, error: Exception) -> None:
        self.bugs.append(error)


class Ingesting:
    """The surface, with one key in force."""

    def __init__(self, *, bytes_max: int = 64 << 20) -> None:
        self.clock = ManualClock(NOW_MS)
        self.log = MemoryLog()
        self.view = FixedView()
        self.keys = ApiKeys(pepper=PEPPER, clock=self.clock)
        self.accounts = Accounts()
        self.told = Told()
        self.bodies = Bodies(bytes_max)
        self.keys.apply("acc_1", "key_1", key_control())
        self.door = open_door(
            keys=self.keys,
            accounts=self.accounts,
            rates=RateLimits(self.clock),
            log=self.log,
            view=self.view,
            signatures=Signatures(RING, self.clock),
        )
        self.app = Ingest(
            door=self.door,
            log=self.log,
            bodies=self.bodies,
            clock=self.clock,
            observer=self.told,
            behind=RateHeaders(application("0"), uncounted=self.door.unknown),
        )

    async def post(self, path: str, body: Any, *, key: str | None = KEY, **headers: str) -> asgi.Answer:
        """POST as a producer does; a body that is no bytes is sent as JSON. Header names with `_` for `-`."""
        given = {"content-type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        if key is not None:
            given.setdefault("authorization", f"Bearer {key}")
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return await asgi.ask(self.app, "POST", path, headers=given, body=raw)


def post_body(**changes: Any) -> dict[str, Any]:
    """A post as the seed's example writes it."""
    return {
        "eventType": {"provider": "custom", "name": "user-signup"},
        "properties": {"userId": "12345", "plan": "pro"},
    } | changes
