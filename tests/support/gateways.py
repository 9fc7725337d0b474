"""A real gateway process on a real Kafka: keys written on `control`, requests as a client makes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from millrace_core import messages
from millrace_core.credentials import key_digest, parse_pepper
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlEntry, ControlWriter
from millrace_web import scopes
from tests.support.platform import Platform

KEY = "mr_live_" + "g" * 43


@dataclass
class Gateway:
    """One gateway. `cluster` is how it sees Kafka, the writer of `control` may see it another way."""

    platform: Platform
    writer: ControlWriter
    session: aiohttp.ClientSession
    versions: int = 0

    async def put_key(self, text: str = KEY, *, id: str = "key_1", **changes: Any) -> None:
        """Put a key in force."""
        digest = key_digest(text, pepper=parse_pepper(self.platform.pepper))
        fields: dict[str, Any] = {"account": "acc_1", "name": "test", "digest": digest, "surface": "ingest"}
        fields |= {"scopes": (scopes.PUBLISH_EVENTS,), "plan": "enterprise"} | changes
        await self.write(id, messages.encode(messages.KeyControl(**fields)))

    async def revoke_key(self, *, id: str = "key_1") -> None:
        await self.write(id, None)

    async def write(self, id: str, value: bytes | None) -> None:
        self.versions += 1
        await self.writer.write([ControlEntry("key", "acc_1", id, self.versions, value)])

    async def post(
        self, body: Any, *, path: str = "/ingest/event/publish", key: str = KEY, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON body."""
        given = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.session.post(self.platform.url("gateway") + path, headers=given, **raw) as answer:
            return answer.status, await answer.json()

    async def readiness(self) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.platform.running['gateway'].ops_port}/readyz"
        async with self.session.get(url) as answer:
            return answer.status, await answer.json()


def platform(cluster: Cluster, folder: Path) -> Platform:
    """The gateway's surroundings. It has no Postgres, and must not need one."""
    return Platform(kafka=cluster.bootstrap, postgres="", namespace=cluster.namespace, folder=folder)
