"""API keys as they are in force: followed on the log, looked up by keyed hash.

`ApiKeys` follows control kind `key`, `Accounts` kind `account`. Whoever uses them must also ask his control view how
fresh it is: a key is only as revoked as the view is new. A key's text is never kept, cached or shown; what is looked
up is its HMAC under the pepper. Nobody without the pepper can choose what is compared, so the time that a look-up takes
tells nothing about any key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from millrace_core import messages
from millrace_core.clock import Clock
from millrace_core.credentials import key_digester
from millrace_core.errors import Reject
from millrace_web.scopes import ROLES, allows

KEY_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key in force: who calls, and what he may."""

    id: str
    account: str
    name: str
    digest: str
    scopes: frozenset[str]
    plan: str
    surface: str
    test: bool = False
    expires_at: int | None = None
    sealed_secret: str | None = None
    person: str | None = None
    role: str | None = None
    """Of the person whose key it is; None = of nobody, and bound by its scopes alone."""

    def may(self, scope: str) -> bool:
        """Whether its scopes, and the role of the person whose it is, include this."""
        return allows(self.scopes, scope) and (self.role is None or allows(ROLES.get(self.role, frozenset()), scope))


class ApiKeys:
    """The keys of every account, by digest. A `ControlFollower` of kind `key`."""

    def __init__(self, *, pepper: bytes, clock: Clock) -> None:
        self._digest = key_digester(pepper)
        self._clock = clock
        self._by_digest: dict[str, ApiKey] = {}
        self._digests: dict[tuple[str, str], list[str]] = {}  # (account, key id) → its digests

    def __len__(self) -> int:
        return len(self._by_digest)

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        """The key's newest version; None or a damaged value: it is no key any more."""
        for digest in self._digests.pop((account, id), ()):
            self._by_digest.pop(digest, None)
        found = _parse(account, id, value)
        if found:
            self._digests[account, id] = [key.digest for key in found]
            self._by_digest |= {key.digest: key for key in found}

    def find(self, text: str) -> ApiKey | None:
        """The key behind this text, or None when there is none in force (unknown, revoked, expired)."""
        if not text or len(text) > KEY_CHARS_MAX:
            return None
        key = self._by_digest.get(self._digest(text))
        if key is None or (key.expires_at is not None and key.expires_at <= self._clock.now_ms()):
            return None
        return key


class Accounts:
    """What is in force about whole accounts. A `ControlFollower` of kind `account`; an unknown account is open."""

    def __init__(self) -> None:
        self._closed: set[str] = set()
        self._unordered: dict[str, frozenset[str]] = {}

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        """The account's newest version; a damaged value closes it, as deleting it does."""
        self._closed.discard(account)
        self._unordered.pop(account, None)
        try:
            parsed = messages.decode(value, messages.AccountControl)
        except Reject:
            self._closed.add(account)
            return
        if not parsed.enabled:
            self._closed.add(account)
        if parsed.unordered:
            self._unordered[account] = frozenset(parsed.unordered)

    def is_closed(self, account: str) -> bool:
        return account in self._closed

    def is_unordered(self, account: str, identifier: str) -> bool:
        """Whether the account gave up the order of this identifier's events, for their spread."""
        unordered = self._unordered.get(account)
        return unordered is not None and identifier in unordered


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The text behind `Authorization: Bearer`; None when the header is missing, twice there, or of another scheme."""
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if found is not None:
                return None
            found = value
    if found is None:
        return None
    scheme, _, text = found.partition(b" ")
    return text.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _parse(account: str, id: str, value: bytes | None) -> list[ApiKey]:
    """The key, and what it was before a rotation, while that holds. Empty for what is no key."""
    if value is None:
        return []
    try:
        parsed = messages.decode(value, messages.KeyControl)
    except Reject:
        return []
    if parsed.account != account:
        return []
    key = ApiKey(
        id=id,
        account=account,
        name=parsed.name,
        digest=parsed.digest,
        scopes=frozenset(parsed.scopes),
        plan=parsed.plan,
        surface=parsed.surface,
        test=parsed.test,
        expires_at=parsed.expires_at,
        sealed_secret=parsed.secret,
        person=parsed.person,
        role=parsed.role,
    )
    if parsed.old_digest is None or parsed.old_until is None:
        return [key]
    until = parsed.old_until if parsed.expires_at is None else min(parsed.old_until, parsed.expires_at)
    return [key, replace(key, digest=parsed.old_digest, sealed_secret=parsed.old_secret, expires_at=until)]
