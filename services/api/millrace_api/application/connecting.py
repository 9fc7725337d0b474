"""What a connection asks of its connector, wherever that runs, and what the answers come to.

A connector's failure is its own: it becomes a count and a message on its connection, and an answer to who asked. Not
here: the rows (`connections`), processes and HTTP (`millrace_api.connectors`).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from millrace_core import connectors
from millrace_core.connectors import DECLARATIONS, REMOTE, Handled, Inbound, Refusal
from millrace_core.errors import MillraceError, Reject

How = Literal["failed", "timed_out", "busy"]
SIGNING_SECRET: Final = "signing_secret"  # noqa: S105 - the name of one
_DROPPED: Final = frozenset({"authorization", "cookie", "host", "connection", "content-length"})


class NotAnswered(MillraceError):
    """A connector did not do what was asked. `how` it failed is counted; the message holds nothing that was given."""

    def __init__(self, how: How, message: str) -> None:
        super().__init__(message)
        self.how = how


@dataclass(frozen=True, slots=True)
class Known:
    """A connector there is. `error`: why it cannot be begun."""

    name: str
    title: str = ""
    description: str = ""
    secrets: tuple[str, ...] = ()
    is_up: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connector is told of the connection it is asked for."""

    account: str
    id: str
    connector: str
    url: str | None
    config: Mapping[str, Any]
    secrets: Mapping[str, str]


class Local(Protocol):
    """Connectors that run here."""

    def known(self) -> Sequence[Known]: ...

    def has(self, name: str) -> bool: ...

    async def call(self, name: str, call: str, arguments: Mapping[str, Any], *, account: str) -> Any:
        """Raises NotAnswered."""
        ...


class Remote(Protocol):
    """Connectors that are served elsewhere."""

    async def call(self, connection: Connection, call: connectors.Call, arguments: Mapping[str, Any]) -> Any:
        """Raises NotAnswered."""
        ...


class Told(Protocol):
    """Told of every call and what came of it. Must not block or raise."""

    def called(self, connector: str, call: str, outcome: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Connecting:
    """The calls, of whichever kind a connection's connector is."""

    local: Local
    remote: Remote
    told: Told

    def has(self, name: str) -> bool:
        """Whether a connection can be to this connector."""
        return name == REMOTE or self.local.has(name)

    async def declare(self, connection: Connection, *, now_ms: int) -> dict[str, Any]:
        """What the connector says of itself, by call; under `errors` why it does not."""
        found: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for call in DECLARATIONS:
            try:
                found[call] = connectors.declared(call, await self._call(connection, call, {}, now_ms=now_ms))
            except (NotAnswered, Reject) as error:
                errors[call] = str(error)
        return found | {"errors": errors}

    async def handle(self, connection: Connection, inbound: Inbound, *, now_ms: int) -> Handled | Refusal:
        """What a webhook means. Raises NotAnswered."""
        request = {
            "method": inbound.method,
            "headers": {name: value for name, value in inbound.headers.items() if name not in _DROPPED},
            "query": inbound.query,
            "body": base64.b64encode(inbound.body).decode(),
        }
        result = await self._call(connection, "handle_webhook", {"request": request}, now_ms=now_ms)
        try:
            return connectors.handled(result, now_ms=now_ms)
        except Reject as error:
            raise NotAnswered("failed", f"the connector's answer cannot be used: {error}") from None

    async def _call(
        self, connection: Connection, call: connectors.Call, more: Mapping[str, Any], *, now_ms: int
    ) -> Any:
        arguments: dict[str, Any] = {
            "connection": {"id": connection.id, "config": connection.config, "now": now_ms / 1000},
            **more,
        }
        try:
            if connection.connector == REMOTE:
                result = await self.remote.call(connection, call, arguments)
            else:
                # A remote connector has its own secrets: those here go nowhere.
                arguments["connection"]["secrets"] = connection.secrets
                result = await self.local.call(connection.connector, call, arguments, account=connection.account)
        except NotAnswered as error:
            self.told.called(connection.connector, call, error.how)
            raise
        self.told.called(connection.connector, call, "answered")
        return result
