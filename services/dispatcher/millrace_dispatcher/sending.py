"""One attempt as bytes: the headers that change from delivery to delivery, signed. Pure.

The id is the delivery's on every attempt, the timestamp the attempt's own, and the signature is over both and the body
as it is sent. Every secret in force signs, so a receiver can change over during a rotation.
"""

from millrace_core import signing
from millrace_core.messages import Delivery
from millrace_dispatcher.endpoints import Prepared


def head(endpoint: Prepared, delivery: Delivery, body: bytes, *, now_ms: int) -> bytes:
    """The request line and all headers but the last. The delivery's ids are ids: nothing in them breaks a line."""
    stamp = now_ms // 1000
    standard = b"%bwebhook-id: %b\r\nwebhook-timestamp: %d\r\nwebhook-signature: %b\r\n" % (
        endpoint.head,
        delivery.id.encode(),
        stamp,
        signing.sign(delivery.id, stamp, body, endpoint.secrets).encode(),
    )
    return standard + _ops(endpoint, delivery, body, stamp) if endpoint.is_ops else standard


def _ops(endpoint: Prepared, delivery: Delivery, body: bytes, stamp: int) -> bytes:
    # Over the raw body, with the newest secret: this style knows one signature only.
    headers = signing.ops_headers(delivery.id, delivery.event, stamp, body, endpoint.secrets[0])
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
