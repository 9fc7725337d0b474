"""The account, key, endpoint and subscriptions of a bench run, written to `control` as the relay would."""

import json
import os

from millrace_core import credentials, ids, keyring, signing
from millrace_core.messages import EndpointControl, KeyControl, Message, Raw, SubscriptionControl, encode
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from tests.support.platform import Platform

ACCOUNT = "acc_" + "b" * 32
IDENTIFIER = "e:bench/order"


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
