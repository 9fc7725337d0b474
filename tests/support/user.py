"""A user of a running Millrace: the public API and the gateway over HTTP, nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.support.waiting import eventually

ASKED_AGAIN_MAX, ASKED_AGAIN_AFTER_S = 3, 0.3
PUBLISH = "/ingest/event/publish"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def data(self) -> Any:
        """Of a success; anything else fails the test with the answer's own words."""
        assert self.status < 400, (self.status, self.body)
        return self.json["data"]

    @property
    def error(self) -> Any:
        """Of a refusal."""
        return self.json["error"]


async def checked(once: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer to a request that is made again, a few times, while keys cannot be checked: nothing was done yet."""
    answer = await once()
    for _ in range(ASKED_AGAIN_MAX):
        if answer.status != 503 or b"Keys cannot be checked" not in answer.body:
            break
        await asyncio.sleep(ASKED_AGAIN_AFTER_S)
        answer = await once()
    return answer


@dataclass(frozen=True, slots=True)
class User:
    """One account's key. `api` and `gateway` are base URLs."""

    session: aiohttp.ClientSession
    api: str
    gateway: str
    key: str

    async def send(
        self, method: str, url: str, body: bytes | None = None, *, media_type: str = JSON, **headers: str
    ) -> Answer:
        """One request. Header names are written with `_` for `-`."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            more["content-type"] = media_type
        more["authorization"] = f"Bearer {self.key}"
        async with self.session.request(method, url, data=body, headers=more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def welcome(self, *, timeout_s: float = 20.0) -> None:
        """Wait until API and gateway know the key. One that the command line made is in force when the relay has told
        of it."""

        async def is_known() -> bool:
            posted = await self.send("POST", self.gateway + PUBLISH, b"{}")
            asked = await self.ask("GET", "/v1/accounts/me")
            return (posted.status, asked.status) == (400, 200)

        await eventually(is_known, timeout_s=timeout_s, what="the key is known")

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request to the API."""
        content = None if body is None else orjson.dumps(body)
        return await checked(lambda: self.send(method, self.api + path, content, **headers))

    async def get(self, path: str) -> Any:
        return (await self.ask("GET", path)).data

    async def make(self, path: str, body: Any) -> Any:
        return (await self.ask("POST", path, body)).data

    async def change(self, path: str, body: Any) -> Any:
        return (await self.ask("PATCH", path, body)).data

    async def delete(self, path: str) -> Any:
        return (await self.ask("DELETE", path)).data

    async def every(self, path: str, *, limit: int = 100) -> AsyncIterator[dict[str, Any]]:
        """A list to its end, page by page."""
        link = "&" if "?" in path else "?"
        cursor = ""
        while True:
            page = await self.ask("GET", f"{path}{link}limit={limit}{cursor}")
            assert page.status == 200, page.body
            assert len(page.json["data"]) <= limit
            for item in page.json["data"]:
                yield item
            if not page.json["meta"]["has_more"]:
                assert page.json["meta"]["next_cursor"] is None
                return
            cursor = f"&cursor={page.json['meta']['next_cursor']}"

    # ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def post(self, identifier: str, properties: Any = None, **more: Any) -> Answer:
        """Publish one event, whatever comes of it."""
        return await self.send("POST", self.gateway + PUBLISH, orjson.dumps(written(identifier, properties, **more)))

    async def publish(self, identifier: str, properties: Any = None, **more: Any) -> str:
        """Publish one event that must be accepted; its id."""
        answer = await checked(lambda: self.post(identifier, properties, **more))
        assert answer.status == 202, (answer.status, answer.body)
        return str(answer.json["eventId"])

    async def publish_batch(self, items: Sequence[Any]) -> list[str]:
        """Publish a batch that must be accepted whole; the ids."""
        answer = await self.send("POST", f"{self.gateway}{PUBLISH}/batch", orjson.dumps(items))
        assert answer.status == 200, (answer.status, answer.body)
        assert answer.json["refused"] == 0, answer.body
        return [result["eventId"] for result in answer.json["results"]]

    async def decided(self, event: str, *, timeout_s: float = 20.0) -> Any:
        """The event, once its outcome is in the read models."""

        async def has_outcome() -> Any:
            found = await self.get(f"/v1/events/{event}")
            return found if found["outcome"] is not None else None

        return await eventually(has_outcome, timeout_s=timeout_s, every_s=0.05, what=f"the outcome of {event}")

    async def ended(self, path: str, status: str, *, timeout_s: float = 20.0) -> Any:
        """A run or delivery, once it has this status."""

        async def has_status() -> Any:
            found = await self.get(path)
            assert found["status"] == status, found
            return found

        return await eventually(has_status, timeout_s=timeout_s, every_s=0.05, what=f"{path} {status}")


def written(identifier: str, properties: Any = None, **more: Any) -> dict[str, Any]:
    """An event as it is posted."""
    provider, _, name = identifier.removeprefix("e:").partition("/")
    return {"eventType": {"provider": provider, "name": name}, "properties": properties or {}, **more}
