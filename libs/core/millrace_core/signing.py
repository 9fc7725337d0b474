"""Standard Webhooks 1.0.0: how a delivery is signed, and how a receiver checks it.

The signature is HMAC-SHA256 over `id.timestamp.body`, the body as sent, byte for byte. Every secret in force gives one
signature, so a receiver may change over while old and new both hold. A secret written `whsec_…` is the base64 after
the prefix; any other is used as its UTF-8 bytes. Not here: where secrets are kept (`keyring`).
"""

import base64
import binascii
import hashlib
import hmac
import secrets as randomness
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from millrace_core.errors import Reject

SECRET_PREFIX = "whsec_"  # noqa: S105
PLAIN_SECRET_PREFIX = "os_hook_"  # noqa: S105
ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
TOLERANCE_S = 300
_SECRET_BYTES = 32  # the specification asks for 24 to 64


def new_secret() -> str:
    """A fresh signing secret, shown to its owner once."""
    return SECRET_PREFIX + base64.b64encode(randomness.token_bytes(_SECRET_BYTES)).decode()


def new_plain_secret() -> str:
    """A fresh signing secret for receivers that take a secret's text as the key, as the ops document's do."""
    return PLAIN_SECRET_PREFIX + randomness.token_hex(_SECRET_BYTES)


@lru_cache(maxsize=4096)
def secret_bytes(secret: str) -> bytes:
    """The key behind a written secret. Raises Reject (without showing it) when a `whsec_` secret is not base64."""
    if not secret.startswith(SECRET_PREFIX):
        if not secret:
            raise Reject("a signing secret may not be empty")
        return secret.encode("utf-8", "surrogatepass")
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Reject(f"a signing secret that begins with {SECRET_PREFIX} must go on in base64") from None
    if not key:
        raise Reject("a signing secret may not be empty")
    return key


def sign(id: str, timestamp_s: int, body: bytes, secrets: Sequence[str]) -> str:
    """The `webhook-signature` header: one `v1,…` for each secret, newest first, separated by spaces."""
    content = b"%b.%d.%b" % (id.encode(), timestamp_s, body)
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(secret_bytes(secret), content, "sha256")).decode() for secret in secrets
    )


def signed_headers(id: str, timestamp_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers of a signed delivery."""
    return {
        ID_HEADER: id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: sign(id, timestamp_s, body, secrets),
    }


def verify(
    headers: Mapping[str, str], body: bytes, secrets: Iterable[str], *, now_s: float, tolerance_s: float = TOLERANCE_S
) -> None:
    """Raises Reject unless one signature is right for one of the secrets and the timestamp is near. Header names are
    read in lower case."""
    id, written, signatures = (headers.get(name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not id or not written or not signatures:
        raise Reject(f"the headers {ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER} are all needed")
    if not (written.isascii() and written.isdigit() and len(written) <= 15):
        raise Reject(f"{TIMESTAMP_HEADER} must be the seconds since 1970")
    if abs(now_s - int(written)) > tolerance_s:
        raise Reject(f"{TIMESTAMP_HEADER} is more than {tolerance_s:g} s away from now: check the clocks")
    given = [part.removeprefix("v1,").encode() for part in signatures.split(" ") if part.startswith("v1,")]
    found = False
    for secret in secrets:
        right = sign(id, int(written), body, [secret]).removeprefix("v1,").encode()
        for signature in given:
            found |= hmac.compare_digest(right, signature)
    if not found:
        raise Reject("no signature is right: the secret is another one, or the body was changed on its way")


def ops_headers(delivery: str, event: str, timestamp_s: int, body: bytes, secret: str) -> dict[str, str]:
    """The headers of the ops document, beside the standard ones. Both ids are the same on every attempt."""
    return {
        "X-OpsIQ-Signature": f"sha256={hex_hmac(secret, body)}",
        "X-OpsIQ-Timestamp": str(timestamp_s),
        "X-OpsIQ-Idempotency-Key": event,
        "X-OpsIQ-Delivery-Id": delivery,
    }


def hex_hmac(secret: str, content: bytes) -> str:
    """Hexadecimal HMAC-SHA256, for surfaces with a header style of their own."""
    return hmac.new(secret_bytes(secret), content, hashlib.sha256).hexdigest()
