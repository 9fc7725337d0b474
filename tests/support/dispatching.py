"""What tests of the dispatcher and executor share: deliveries and endpoints as records, and a meter that keeps."""

from typing import Any

from millrace_core.keyring import KeyRing, endpoint_secret, new_ring_entry
from millrace_core.messages import Delivery, EndpointControl, Raw, encode, encode_with_payload
from millrace_core.record import ACCOUNT, CONTROL, ID, PAYLOAD, SOURCE, Output, Written

RING_TEXT = new_ring_entry("k1")
RING = KeyRing.parse(RING_TEXT)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ACC = "acc_1"
ENDPOINT = "we_1"
BODY = b'{"id":"evt_1","type":"e:shop/paid","timestamp":"2026-01-01T00:00:00Z","data":{"a":1e2,"b":"\\u00e4"}}'


def endpoint_control(
    url: str, *, id: str = ENDPOINT, account: str = ACC, secrets: tuple[str, ...] = (SECRET,), **more: Any
) -> bytes:
    """The value of a control record of kind `endpoint`."""
    sealed = tuple(RING.seal(secret, account=account, name=endpoint_secret(id)) for secret in secrets)
    return encode(EndpointControl(**{"account": account, "url": url, "secrets": sealed, **more}))


def delivery_of(
    n: int = 1, *, attempt: int = 1, account: str = ACC, endpoint: str = ENDPOINT, body: bytes = BODY
) -> Delivery:
    return Delivery(
        id=f"dlv_{n:032x}",
        account=account,
        endpoint=endpoint,
        event=f"evt_{n:032x}",
        type="e:shop/paid",
        attempt=attempt,
        body=Raw(body),
    )


def delivery_output(wanted: Delivery, *, source: int | None = None, control: int | None = None) -> Output:
    """The record on `deliveries` that asks for it."""
    value, start = encode_with_payload(wanted, wanted.body)
    headers = [(ACCOUNT, wanted.account.encode()), (ID, wanted.id.encode()), (PAYLOAD, start)]
    if source is not None:
        headers.append((SOURCE, b"millrace.events.v1:0:%d" % source))
    if control is not None:
        headers.append((CONTROL, b"%d" % control))
    return Output("deliveries", wanted.endpoint.encode(), value, tuple(headers))


def read(output: Output, *, offset: int = 0, at_ms: int = 1_700_000_000_000, partition: int = 0) -> Written:
    """An output as its reader sees it."""
    return Written(output.topic, partition, offset, at_ms, output.key, output.value, output.headers)


class Meter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def attempted(self, *what: Any) -> None:
        self.outcomes.append(str(what[-2]))

    def postponed(self) -> None:
        self.outcomes.append("postponed")
