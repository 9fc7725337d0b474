"""Requests signed as the guide says, for tests of every tier."""

import secrets
from collections.abc import Mapping

from millrace_core import request_signing
from millrace_core.clock import SystemClock


def signed_headers(
    key: str,
    secret: str,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    at_s: float | None = None,
    nonce: str | None = None,
) -> Mapping[str, str]:
    """The four headers of this request. `target` is the path with its query, as sent."""
    timestamp = str(int(SystemClock().now_ms() / 1000 if at_s is None else at_s))
    nonce = nonce or secrets.token_hex(12)
    signature = request_signing.sign(
        secret, timestamp=timestamp, nonce=nonce, method=method, target=target.encode(), body=body
    )
    return {
        request_signing.KEY: key,
        request_signing.TIMESTAMP: timestamp,
        request_signing.NONCE: nonce,
        request_signing.SIGNATURE: signature,
    }
