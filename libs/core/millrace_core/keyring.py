"""Secrets at rest: AES-256-GCM under a ring of keys, each sealed secret bound to its account and its name.

The first key of the ring seals, every key opens, so a new key is put in front, what is stored is sealed anew at
leisure, and the old key leaves when nothing needs it. A sealed secret moved to another account or another name does
not open. Written form: `v1.<key id>.<base64 of nonce, ciphertext and tag>`; the key id is bound too.
"""

import base64
import binascii
import os
import re

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from millrace_core.errors import Fatal, Reject

_VERSION = "v1"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class KeyRing:
    """Seals and opens. Safe to share between threads; holds keys, so it shows nothing of itself."""

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: dict[str, bytes]) -> None:
        """`keys` in order, the first is current. Raises Fatal when there is none or one is not 32 bytes."""
        if not keys:
            raise Fatal("the key ring is empty: set MILLRACE_KEY_RING to id:base64key")
        for id, key in keys.items():
            if not _KEY_ID.fullmatch(id):
                raise Fatal("the key ring has a key id that is not 1 to 32 letters, digits, '_' or '-'")
            if len(key) != _KEY_BYTES:
                raise Fatal(f"key {id!r} of the key ring has {len(key)} bytes: AES-256 needs {_KEY_BYTES}")
        self._keys = {id: AESGCM(key) for id, key in keys.items()}
        self._current = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """From `id:base64key[,id:base64key]`. Raises Fatal, without showing any key, when it cannot be read."""
        keys: dict[str, bytes] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            id, colon, encoded = entry.partition(":")
            if not colon or id in keys:
                raise Fatal("the key ring cannot be read: write id:base64key, with commas between, each id once")
            try:
                keys[id] = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                raise Fatal("the key ring has a key that is not base64") from None
        return cls(keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    def seal(self, secret: str, *, account: str, name: str) -> str:
        """Encrypt under the current key. Each call gives another text."""
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound(self._current, account, name)
        sealed = self._keys[self._current].encrypt(nonce, secret.encode(), bound)
        return f"{_VERSION}.{self._current}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, account: str, name: str) -> str:
        """Decrypt. Raises Reject when it was changed, bound to something else, or its key is not on the ring."""
        id, raw = _parts(sealed)
        key = self._keys.get(id)
        if key is None:
            raise Reject(f"the secret is sealed under key {id!r}, which is not on the key ring: add it, last")
        try:
            return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(id, account, name)).decode()
        except (InvalidTag, ValueError):
            raise Reject("the sealed secret does not open: it was changed, or belongs to another place") from None

    def is_current(self, sealed: str) -> bool:
        """Whether it is sealed under the current key; if not, open it and seal it anew."""
        return _parts(sealed)[0] == self._current


def endpoint_secret(endpoint: str) -> str:
    """The name a webhook endpoint's signing secrets are sealed and opened under: every writer and reader asks here."""
    return f"endpoint/{endpoint}"


def key_secret(key: str) -> str:
    """The name an API key's signing secret is sealed and opened under."""
    return f"key/{key}"


def credential_value(credential: str) -> str:
    """The name a credential's value is sealed and opened under."""
    return f"credential/{credential}"


def action_secret(action: str) -> str:
    """The name an action's signing secret is sealed and opened under."""
    return f"action/{action}"


def kept_answer(api_key: str, key: str) -> str:
    """The name that what was answered under an Idempotency-Key is sealed and opened under: answers hold new secrets."""
    return f"answer/{api_key}/{key}"


def connection_secret(connection: str) -> str:
    """The name that the secrets of a connection to another platform are sealed and opened under."""
    return f"connection/{connection}"


def new_ring_entry(id: str) -> str:
    """A fresh key as MILLRACE_KEY_RING writes it."""
    return f"{id}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"


def _bound(id: str, account: str, name: str) -> bytes:
    # JSON keeps the parts apart whatever they contain.
    return msgspec.json.encode((_VERSION, id, account, name))


def _parts(sealed: str) -> tuple[str, bytes]:
    version, _, rest = sealed.partition(".")
    id, dot, encoded = rest.partition(".")
    if version != _VERSION or not dot:
        raise Reject("not a sealed secret: expected v1.<key id>.<base64>")
    try:
        return id, base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Reject("not a sealed secret: its last part is not base64") from None
