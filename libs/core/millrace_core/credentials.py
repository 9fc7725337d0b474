"""API keys: made once, shown once, kept as a keyed hash.

A key is its surface's prefix and 43 url-safe characters (256 bits), so a plain HMAC-SHA256 under the pepper is enough
to keep it: there is nothing to guess. Whoever reads the database or the log without the pepper cannot even try.
Not here: scopes, plans, revocation.
"""

import hmac
import secrets
from collections.abc import Callable
from typing import Final, Literal, get_args

from millrace_core.errors import Fatal

Surface = Literal["ingest", "automation", "intake", "agents", "ops"]
SURFACES: Final = frozenset(get_args(Surface))

OPS_SECRET_PREFIX: Final = "os_live_"  # noqa: S105
ACTION_SECRET_PREFIX: Final = "as_live_"  # noqa: S105
_PREFIX: Final[dict[tuple[Surface, bool], str]] = {
    ("ingest", False): "mr_live_",
    ("automation", False): "mr_live_",
    ("intake", False): "iozen_live_",
    ("agents", False): "th_live_",
    ("agents", True): "th_test_",
    ("ops", False): "ok_live_",
}
_RANDOM_BYTES = 32  # 43 characters in url-safe base64
_HINT_CHARS = 4
_PEPPER_BYTES_MIN = 16


def new_key(surface: Surface, *, test: bool = False) -> str:
    """A fresh key of this surface. Only agents know test keys; elsewhere `test` changes nothing."""
    prefix = _PREFIX.get((surface, test)) or _PREFIX[surface, False]
    return prefix + secrets.token_urlsafe(_RANDOM_BYTES)


def new_ops_secret() -> str:
    """The secret half of an ops key, with which its requests are signed."""
    return OPS_SECRET_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def new_action_secret() -> str:
    """The secret of an action, with which the requests to its endpoint are signed."""
    return ACTION_SECRET_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def parse_pepper(text: str) -> bytes:
    """The pepper from its setting: hexadecimal if it is that, else its UTF-8 bytes. Raises Fatal when too short."""
    try:
        pepper = bytes.fromhex(text)
    except ValueError:
        pepper = text.encode("utf-8", "surrogateescape")
    if len(pepper) < _PEPPER_BYTES_MIN:
        raise Fatal(f"MILLRACE_KEY_PEPPER is too short: give at least {_PEPPER_BYTES_MIN} bytes")
    return pepper


def key_digester(pepper: bytes) -> Callable[[str], str]:
    """`key_digest` under this pepper, which is taken in once and not with every key."""
    prepared = hmac.new(pepper, digestmod="sha256")

    def digest(key: str) -> str:
        mac = prepared.copy()
        mac.update(key.encode("utf-8", "surrogatepass"))
        return mac.hexdigest()

    return digest


def key_digest(key: str, *, pepper: bytes) -> str:
    """What is stored instead of the key: HMAC-SHA256(pepper, key) in hexadecimal. Keys are looked up by it, which
    tells an attacker nothing: he cannot compute it."""
    return key_digester(pepper)(key)


def verify(key: str, digest: str, *, pepper: bytes) -> bool:
    """Whether the key is the one behind the digest, in constant time."""
    return hmac.compare_digest(key_digest(key, pepper=pepper).encode(), digest.encode("utf-8", "replace"))


def hint(key: str) -> str:
    """What may be shown of a key for ever: its prefix and its last four characters."""
    prefix = next((known for known in (*_PREFIX.values(), OPS_SECRET_PREFIX) if key.startswith(known)), "")
    body = key[len(prefix) :]
    return f"{prefix}…{body[-_HINT_CHARS:]}" if len(body) > 2 * _HINT_CHARS else f"{prefix}…"
