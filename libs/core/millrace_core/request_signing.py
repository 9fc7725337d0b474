"""How a caller proves who he is without sending his secret: four headers and an HMAC over what he asks.

    X-OpsIQ-Key         the public half of the key
    X-OpsIQ-Timestamp   Unix seconds
    X-OpsIQ-Nonce       another text for every request
    X-OpsIQ-Signature   sha256=hex(HMAC-SHA256(secret, content))

`content` is timestamp, nonce, METHOD, path with query, and hex(SHA-256(body)), each on a line of its own; path and
query as they are sent, byte for byte. A request holds for five minutes, within which its nonce is taken once. Not here:
where secrets and spent nonces are kept, who may what.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from millrace_core import limits
from millrace_core.errors import Reject

KEY: Final = "X-OpsIQ-Key"
TIMESTAMP: Final = "X-OpsIQ-Timestamp"
NONCE: Final = "X-OpsIQ-Nonce"
SIGNATURE: Final = "X-OpsIQ-Signature"
HEADERS: Final = (KEY, TIMESTAMP, NONCE, SIGNATURE)

_NONCE = re.compile(rf"[!-~]{{{limits.NONCE_CHARS_MIN},{limits.NONCE_CHARS_MAX}}}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_BY_NAME: Final = {name.lower().encode(): name for name in HEADERS}


@dataclass(frozen=True, slots=True)
class Signed:
    """What the four headers say. Nothing of it is proven yet."""

    key: str
    timestamp: str
    nonce: str
    signature: str

    @property
    def valid_until_s(self) -> int:
        """Unix seconds from which on the request is refused anyway, so that its nonce may be forgotten."""
        return int(self.timestamp) + limits.SIGNED_REQUEST_S + 1


def read(headers: Iterable[tuple[bytes, bytes]]) -> Signed | None:
    """The four headers of a request; None when it is not a signed one (no `X-OpsIQ-Key`). Raises Reject when one is
    missing, there twice, or cannot be read."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = _BY_NAME.get(raw.lower())
        if name is None:
            continue
        if name in found:
            raise Reject(f"{name} is there twice: send it once")
        found[name] = value.decode("latin-1").strip()
    if KEY not in found:
        return None
    for name in HEADERS:
        if not found.get(name):
            raise Reject(f"{name} is missing: a signed request has {', '.join(HEADERS)}")
    signed = Signed(found[KEY], found[TIMESTAMP], found[NONCE], found[SIGNATURE])
    _check_form(signed)
    return signed


def content(*, timestamp: str, nonce: str, method: str, target: bytes, body: bytes) -> bytes:
    """What is signed. `target` is the path and, if there is one, `?` and the query, as sent."""
    head = f"{timestamp}\n{nonce}\n{method.upper()}\n".encode()
    return head + target + b"\n" + hashlib.sha256(body).hexdigest().encode()


def sign(secret: str, *, timestamp: str, nonce: str, method: str, target: bytes, body: bytes) -> str:
    """The value of `X-OpsIQ-Signature`."""
    signed = content(timestamp=timestamp, nonce=nonce, method=method, target=target, body=body)
    return "sha256=" + hmac.digest(secret.encode(), signed, "sha256").hex()


def check_time(signed: Signed, *, now_s: float) -> None:
    """Raises Reject when the request was signed too long ago, or is from the future."""
    off_s = int(signed.timestamp) - now_s
    if abs(off_s) > limits.SIGNED_REQUEST_S:
        raise Reject(
            f"{TIMESTAMP} is more than {limits.SIGNED_REQUEST_S} s {'ahead' if off_s > 0 else 'ago'}: sign the request "
            "when it is sent, in Unix seconds, and check the clock"
        )


def check_signature(signed: Signed, secret: str, *, method: str, target: bytes, body: bytes) -> None:
    """Raises Reject unless this secret signed this request. Takes the same time wherever the first difference lies."""
    right = sign(secret, timestamp=signed.timestamp, nonce=signed.nonce, method=method, target=target, body=body)
    if not hmac.compare_digest(right.encode(), signed.signature.lower().encode()):
        raise Reject(
            f"{SIGNATURE} is not right: sign the timestamp, the nonce, the method, the path with its query, and the "
            "hexadecimal SHA-256 of the body, joined by line feeds, with the key's secret"
        )


def _check_form(signed: Signed) -> None:
    if not _TIMESTAMP.fullmatch(signed.timestamp):
        raise Reject(f"{TIMESTAMP} must be Unix seconds, such as 1780000000")
    if not _NONCE.fullmatch(signed.nonce):
        least, most = limits.NONCE_CHARS_MIN, limits.NONCE_CHARS_MAX
        raise Reject(f"{NONCE} must be {least} to {most} visible ASCII characters, another text for every request")
    if not _SIGNATURE.fullmatch(signed.signature):
        raise Reject(f"{SIGNATURE} must be 'sha256=' and 64 hexadecimal digits")
