"""Connectors served elsewhere: each call a signed POST to `<url>/<name of the call>`, through the guard.

The body is JSON, `X-OpsIQ-Signature` the HMAC-SHA256 over it under the connection's signing secret, `timestamp` inside
the body and `X-OpsIQ-Timestamp` say when; nothing is repeated, since the platform that sent a webhook sends it again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from millrace_api.application.connecting import SIGNING_SECRET, Connection, How, NotAnswered
from millrace_core import actions, egress, ids, limits
from millrace_core.clock import Clock
from millrace_core.connectors import WIRE_NAMES, Call
from millrace_core.egress import Network
from millrace_core.errors import Reject
from millrace_runtime.egress import Egress, OutgoingFailed


class RemoteConnectors:
    """Asks them. Safe for concurrent use within a loop."""

    def __init__(
        self,
        sender: Egress,
        clock: Clock,
        *,
        allow: Sequence[Network] = (),
        call_s: float = limits.CONNECTOR_CALL_S_MAX,
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._allow = tuple(allow)
        self._call_s = call_s

    async def call(self, connection: Connection, call: Call, arguments: Mapping[str, Any]) -> Any:
        """What the connector answers. Raises NotAnswered."""
        name, timestamp = WIRE_NAMES[call], self._clock.now_ms() // 1000
        body = orjson.dumps({"call": name, "timestamp": timestamp, **arguments})
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "user-agent": "Millrace",
            "x-opsiq-timestamp": str(timestamp),
            "x-opsiq-signature": actions.sign(connection.secrets[SIGNING_SECRET], body),
            "x-opsiq-delivery-id": ids.new_id(ids.REQUEST),
        }
        try:
            target = egress.check_url(f"{(connection.url or '').rstrip('/')}/{name}", self._allow)
            answer = await self._sender.send(
                target,
                account=connection.account,
                head=egress.request_head("POST", target, headers),
                body=body,
                timeout_s=self._call_s,
                read_bytes_max=limits.CONNECTOR_ANSWER_BYTES_MAX,
            )
        except Reject as error:
            raise NotAnswered("failed", str(error)) from None
        except OutgoingFailed as error:
            how: How = "timed_out" if error.code == "timeout" else "failed"
            raise NotAnswered(how, f"the connector cannot be reached: {error}") from None
        if not 200 <= answer.status < 300 or answer.is_cut:
            raise NotAnswered("failed", f"the connector answered {answer.status}{', too much' * answer.is_cut}")
        try:
            return orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise NotAnswered("failed", "the connector's answer is no JSON") from None
