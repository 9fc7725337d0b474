"""The command line's view of a running Millrace: its HTTP API, as any other client has it.

Where it is: `MILLRACE_URL` and `MILLRACE_KEY`, else what `millrace dev` wrote into `.millrace/dev.json`.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from millrace_core.errors import Reject, Retry

DEV_JSON = "dev.json"
TIMEOUT_S = 30.0
PAGE = 100


@dataclass(frozen=True, slots=True)
class Target:
    """Where the API is, and with which key."""

    url: str
    key: str


def dev_json() -> Mapping[str, Any]:
    """What `millrace dev` wrote. Raises Reject with what to do when it does not run."""
    path = Path(os.environ.get("MILLRACE_DEV_HOME") or ".millrace") / DEV_JSON
    try:
        found: Mapping[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise Reject(
            f"there is no {path}: start `make dev` in another terminal (in this directory), or set MILLRACE_URL and "
            "MILLRACE_KEY"
        ) from None
    except orjson.JSONDecodeError as error:
        raise Reject(f"{path} is damaged ({error}): start `make dev` again") from None
    return found


def target() -> Target:
    """Raises Reject when nothing says where the API is."""
    url, key = os.environ.get("MILLRACE_URL"), os.environ.get("MILLRACE_KEY")
    if url and key:
        return Target(url.rstrip("/"), key)
    if url or key:
        raise Reject("set both MILLRACE_URL and MILLRACE_KEY, or neither")
    dev = dev_json()
    return Target(dev["base_url"], dev["keys"]["automation"])


class Client:
    """Requests with the key; errors as one sentence."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def call(self, method: str, path: str, *, body: bytes | None = None, **query: Any) -> Any:
        """The JSON of the answer. Raises Reject with the API's own words, Retry when it is not there."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            async with self._session.request(
                method, self.url + path, params=params, data=body, headers=headers
            ) as response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Retry(f"{self.url} does not answer ({str(error) or type(error).__name__}): is it running?") from None
        if response.status >= 400:
            raise Reject(f"{method} {path}: {response.status} {_message(text)}")
        return orjson.loads(text)

    async def post(self, path: str, body: Any) -> Any:
        """POST what is JSON, and the `data` of the answer."""
        return (await self.call("POST", path, body=orjson.dumps(body)))["data"]

    async def every(self, path: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """All items of a list, page by page."""
        cursor = None
        while True:
            page = await self.call("GET", path, limit=PAGE, cursor=cursor, **query)
            for item in page["data"]:
                yield item
            cursor = page["meta"]["next_cursor"]
            if cursor is None:
                return


@asynccontextmanager
async def connect(at: Target) -> AsyncIterator[Client]:
    """A client of the API at this target."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers={"authorization": f"Bearer {at.key}"}, trust_env=False
    ) as session:
        yield Client(session, at.url)


def _message(text: bytes) -> str:
    try:
        answer = orjson.loads(text)
        return str(answer.get("message") or answer["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return text[:200].decode("utf-8", "replace")
