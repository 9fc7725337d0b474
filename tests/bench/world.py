"""The account, key, endpoint and subscriptions of a bench run, written to `control` as the relay would."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from millrace_core import credentials, ids, keyring, signing
from millrace_core import event as events
from millrace_core.messages import EndpointControl, KeyControl, Message, Raw, SubscriptionControl, encode
from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.producer import PlainProducer
from tests.bench.load import event_body
from tests.support.platform import Platform

ACCOUNT = "acc_" + "b" * 32
IDENTIFIER = "e:bench/order"


WRITE_RECORDS = 1_000
T = TypeVar("T")


def event_of(n: int, *, unique: bool = False) -> Output:
    """An event as the gateway writes it, spread over the partitions by ordering key."""
    now_ms = time.time_ns() // 1_000_000
    posted = events.parse_post(event_body(n), now_ms=now_ms)
    posted = msgspec.structs.replace(posted, ordering_key=str(n % 97), unique_key=f"key-{n}" if unique else None)
    return events.to_output(events.make_event(posted, account=ACCOUNT, now_ms=now_ms))


async def write(platform: Platform, outputs: Iterable[Output]) -> None:
    """Write them all, a thousand at a time."""
    producer = PlainProducer(cluster_of(platform))
    await producer.start()
    for some in pieces(outputs, WRITE_RECORDS):
        await producer.write(some)
    await producer.stop()


def pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`, in order."""
    source = iter(items)
    while piece := list(islice(source, size)):
        yield piece


def cluster_of(platform: Platform) -> Cluster:
    return Cluster(platform.kafka, platform.namespace)


async def furnish(platform: Platform, *, url: str | None = None, subscriptions: int = 1) -> str:
    """Write the world; the plaintext ingest key. Of the subscriptions one matches, and names the endpoint at `url`."""
    key = credentials.new_key("ingest")
    ring = keyring.KeyRing.parse(platform.key_ring)
    endpoint = ids.new_id(ids.ENDPOINT)
    secret = ring.seal(signing.new_secret(), account=ACCOUNT, name=keyring.endpoint_secret(endpoint))
    digest = credentials.key_digest(key, pepper=credentials.parse_pepper(platform.pepper))
    entries: list[tuple[str, str, Message]] = [
        (
            "key",
            ids.new_id(ids.KEY),
            KeyControl(
                account=ACCOUNT, name="bench", digest=digest, scopes=("*",), plan="enterprise", surface="ingest"
            ),
        )
    ]
    if url is not None:
        entries.append(
            ("endpoint", endpoint, EndpointControl(account=ACCOUNT, url=url, secrets=(secret,), concurrency=128))
        )
        entries += [
            (
                "subscription",
                ids.new_id(ids.SUBSCRIPTION),
                SubscriptionControl(
                    account=ACCOUNT,
                    pattern=IDENTIFIER if n == 0 else f"e:bench/other-{n}",
                    target_kind="endpoint",
                    target_id=endpoint,
                    created_at=0,
                    filter=Raw(json.dumps({"pad": [os.urandom(4).hex()]}).encode()) if n % 2 else Raw(b"null"),
                ),
            )
            for n in range(subscriptions)
        ]
    writer = ControlWriter(cluster_of(platform))
    await writer.start()
    try:
        await writer.write([(kind, ACCOUNT, id, 1, encode(value)) for kind, id, value in entries])
    finally:
        await writer.stop()
    return key
