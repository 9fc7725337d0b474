"""The world of the kill test and its oracle: who listens to what, and what must therefore come of each event.

The oracle is written apart from the project's matching on purpose: plain Python conditions beside each subscription.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from millrace_core import credentials, ids, keyring, plans, signing
from millrace_core.messages import EndpointControl, KeyControl, Message, PlanControl, Raw, SubscriptionControl, encode
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter

ACCOUNT = "acc_" + "c" * 32
PROVIDER = "kill"
NAMES = ("alpha", "alpha-late", "beta", "gamma")
TOLD = "customer.seen"
"""Of the provider `ops`: nobody hears it, but it tells of a customer."""
CUSTOMERS = 17

Expect = Callable[[str, Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Listener:
    """One subscription, what it starts, and the oracle's own words for when."""

    id: str
    kind: Literal["run", "delivery"]
    expects: Expect


@dataclass(frozen=True, slots=True)
class Posted:
    """One event of the test: posted, perhaps several times, until it had a 2xx."""

    unique_key: str
    name: str
    properties: Mapping[str, Any]

    @property
    def body(self) -> Mapping[str, Any]:
        return {
            "eventType": {"provider": "ops" if self.name == TOLD else PROVIDER, "name": self.name},
            "properties": {**self.properties, "customer_id": self.properties["n"] % CUSTOMERS},
            "uniqueKey": self.unique_key,
            "orderingKey": str(self.properties["n"] % 13),
        }


@dataclass
class World:
    """The control records, the key, and who must hear of what."""

    key: str
    entries: list[tuple[str, str, Message]]
    listeners: list[Listener]
    secret: str
    fails_first: set[str] = field(default_factory=set)

    def expected(self, posted: Posted) -> set[str]:
        """The listeners that must have heard of it, once."""
        return {each.id for each in self.listeners if each.expects(posted.name, posted.properties)}


def events(seed: int, count: int) -> list[Posted]:
    """`count` events of mixed names and properties, the same for the same seed."""
    chance = random.Random(seed)
    return [
        Posted(
            f"{seed}-{n}",
            chance.choice((*NAMES, TOLD)),
            {"n": n, "total": chance.randrange(100), "customer": {"tier": chance.choice(["gold", "silver"])}},
        )
        for n in range(count)
    ]


def world(
    sink: str,
    *,
    pepper: str,
    ring: keyring.KeyRing,
    retry_schedule_s: tuple[float, ...] = (0.3,) * 12,
    timeout_s: float = 10.0,
) -> World:
    """Five listeners: an endpoint, a wildcard endpoint with a filter, a job, and a chain twice."""
    key = credentials.new_key("ingest")
    secret = signing.new_secret()
    entries: list[tuple[str, str, Message]] = []
    listeners: list[Listener] = []

    def endpoint(path: str) -> str:
        id = ids.new_id(ids.ENDPOINT)
        sealed = ring.seal(secret, account=ACCOUNT, name=keyring.endpoint_secret(id))
        control = EndpointControl(
            account=ACCOUNT,
            url=f"{sink}{path}",
            secrets=(sealed,),
            retry_schedule_s=retry_schedule_s,
            timeout_s=timeout_s,
        )
        entries.append(("endpoint", id, control))
        return id

    def plan(compiled: plans.Plan) -> str:
        entries.append(("plan", compiled.id, PlanControl(account=ACCOUNT, plan=Raw(plans.encode_plan(compiled)))))
        return compiled.id

    def listen(
        pattern: str,
        kind: Literal["run", "delivery"],
        target: str,
        expects: Expect,
        *,
        filter: bytes = b"null",
        where: str | None = None,
    ) -> None:
        id = ids.new_id(ids.SUBSCRIPTION)
        control = SubscriptionControl(
            account=ACCOUNT,
            pattern=pattern,
            target_kind="endpoint" if kind == "delivery" else "plan",
            target_id=target,
            created_at=0,
            where=where,
            filter=Raw(filter),
        )
        entries.append(("subscription", id, control))
        listeners.append(Listener(id, kind, expects))

    digest = credentials.key_digest(key, pepper=credentials.parse_pepper(pepper))
    entries.append(
        (
            "key",
            ids.new_id(ids.KEY),
            KeyControl(account=ACCOUNT, name="kill", digest=digest, scopes=("*",), plan="enterprise", surface="ingest"),
        )
    )
    retry = plans.RetryPolicy(attempts=12, backoff="fixed", initial_s=0.3, max_s=0.3)
    call = plans.Node(
        id="call",
        type="http",
        config=Raw(f'{{"url":"{sink}/job","body":{{"n":"${{input.n}}"}}}}'.encode()),
        retry=retry,
    )
    double = plans.Node(id="double", type="transform", config=Raw(b'{"expression":"input.total * 2"}'), retry=retry)
    tell = plans.Node(
        id="tell",
        type="http",
        config=Raw(f'{{"url":"{sink}/job","body":{{"total":"${{input.total}}","twice":"${{previous}}"}}}}'.encode()),
        retry=retry,
    )
    job = plan(plans.compile_job(call, id=ids.new_id(ids.JOB), version=1, name="call"))
    chain = plan(plans.compile_chain([double, tell], id=ids.new_id(ids.CHAIN), version=1, name="double and tell"))
    listen(f"e:{PROVIDER}/alpha", "delivery", endpoint("/exact"), lambda name, _: name == "alpha")
    listen(
        f"e:{PROVIDER}/*",
        "delivery",
        endpoint("/gold"),
        lambda name, p: bool(name != TOLD and p["customer"]["tier"] == "gold" and p["total"] > 70),
        filter=b'{"customer":{"tier":["gold"]},"total":[{"numeric":[">",70]}]}',
    )
    listen(f"e:{PROVIDER}/alpha*", "run", job, lambda name, _: name.startswith("alpha"))
    listen(f"e:{PROVIDER}/beta", "run", chain, lambda name, _: name == "beta")
    listen("e:*/gamma", "run", chain, lambda name, p: name == "gamma" and p["total"] < 30, where="input.total < 30")
    return World(key, entries, listeners, secret)


async def publish(cluster: Cluster, made: World) -> None:
    """Write the world to `control`, as the relay would."""
    writer = ControlWriter(cluster)
    await writer.start()
    try:
        await writer.write([(kind, ACCOUNT, id, 1, encode(value)) for kind, id, value in made.entries])
    finally:
        await writer.stop()
