"""Credentials for calls outward: which value goes where in a request, and how it stays out of what comes back.

A credential is an API key, a bearer token, or a user and password (`basic`). It stands in a header or the query, by its
type or as its owner says, and goes to the hosts it was given, if any were named. Pure. Not here: where values are kept
(sealed, `keyring`), who looks them up (the executor for steps, the API for tests of integrations).
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import quote, quote_plus

import msgspec

from millrace_core import egress, limits
from millrace_core.egress import Target
from millrace_core.errors import Reject

CredentialType = Literal["api_key", "bearer", "basic"]
MASK: Final = b"***"
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?\Z")
_PREFIX = re.compile(r"[ -~]*\Z")
_PARAMETER = re.compile(r"[A-Za-z0-9_.~\[\]-]{1,128}\Z")
_OURS = frozenset({"idempotency-key", "content-type", "user-agent"})


class Placement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the value stands: behind `prefix` in the header or query parameter of this name."""

    where: Literal["header", "query"] = "header"
    name: str
    prefix: str = ""


PLACEMENTS: Mapping[CredentialType, Placement] = MappingProxyType(
    {
        "api_key": Placement(name="X-API-Key"),
        "bearer": Placement(name="Authorization", prefix="Bearer "),
        "basic": Placement(name="Authorization", prefix="Basic "),
    }
)
"""Where a type stands when its owner says nothing. Only an `api_key` may be placed otherwise."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One opened credential. Its value is in no representation."""

    type: CredentialType
    placement: Placement
    hosts: tuple[str, ...] = ()
    value: str = field(default="", repr=False)

    @property
    def written(self) -> str:
        """The value as it stands in a request, without its prefix."""
        return base64.b64encode(self.value.encode()).decode() if self.type == "basic" else self.value


def check_value(type: CredentialType, value: str) -> None:
    """Raises Reject, without showing it, unless a value of this type may be kept. Short ones are refused: they could
    not be kept out of answers without spoiling these."""
    if not limits.CREDENTIAL_CHARS_MIN <= len(value) <= limits.CREDENTIAL_CHARS_MAX:
        raise Reject(f"a value has {limits.CREDENTIAL_CHARS_MIN} to {limits.CREDENTIAL_CHARS_MAX} characters")
    if not _VALUE.match(value):
        raise Reject("a value is of printable ASCII characters, with no space at its ends")
    if type == "basic" and ":" not in value:
        raise Reject("the value of a basic credential is user:password")


def check_placement(type: CredentialType, placement: Placement) -> None:
    """Raises Reject unless a value of this type may stand there."""
    if type != "api_key" and placement != PLACEMENTS[type]:
        raise Reject(f"only an api_key may be placed; {type} is always in Authorization")
    if not _PREFIX.match(placement.prefix):
        raise Reject("a prefix is of printable ASCII characters")
    if placement.where == "header":
        egress.check_headers({placement.name: placement.prefix}, ours=_OURS)
    elif not _PARAMETER.match(placement.name):
        raise Reject("the name of a query parameter is 1 to 128 letters, digits, '_', '.', '~', '-', '[' or ']'")
    if len(placement.prefix) > limits.CREDENTIAL_PREFIX_CHARS_MAX:
        raise Reject(f"a prefix has at most {limits.CREDENTIAL_PREFIX_CHARS_MAX} characters")


def check_hosts(hosts: Sequence[str]) -> None:
    """Raises Reject unless each is a host as URLs write it, in lower case and without a port."""
    for host in hosts:
        target = egress.check_url(f"https://{host}/", (egress.ANYWHERE_V4, egress.ANYWHERE_V6))
        if target.host != host or target.port != 443:
            raise Reject(f"{host[:200]!r} is not a host: write it as api.example.com, in lower case, without a port")


def check_host(hosts: Sequence[str], target: Target) -> None:
    """Raises Reject when a credential for these hosts (none = any) may not go there."""
    if hosts and target.host not in hosts:
        raise Reject(f"the credential may not be sent to {target.host}: it is for {', '.join(hosts)}")


def applied(credential: Credential, target: Target, headers: Mapping[str, str]) -> tuple[Target, dict[str, str]]:
    """The request with the credential in it; header names in lower case. Raises Reject when it may not go there, or
    when its place is taken."""
    check_host(credential.hosts, target)
    placement, written = credential.placement, credential.placement.prefix + credential.written
    if placement.where == "query":
        joint = "&" if "?" in target.path else "?"
        path = f"{target.path}{joint}{quote(placement.name, safe='')}={quote(written, safe='')}"
        return replace(target, path=path), dict(headers)
    name = placement.name.lower()
    if name in headers:
        raise Reject(f"the header {placement.name!r} is the credential's: leave it out")
    egress.check_headers({name: written}, ours=_OURS)
    return target, {**headers, name: written}


def masked(credential: Credential, content: bytes) -> bytes:
    """The content without the credential's value, in any form that a receiver is likely to repeat it in."""
    for form in _forms(credential):
        content = content.replace(form, MASK)
    return content


def _forms(credential: Credential) -> list[bytes]:
    """The longest first, so that none leaves a rest of another."""
    secrets = {credential.value, credential.written}
    if credential.type == "basic":
        password = credential.value.partition(":")[2]
        secrets |= {password} if len(password) >= limits.CREDENTIAL_CHARS_MIN else set()
    forms: set[str] = set()
    for secret in secrets:
        quoted = msgspec.json.encode(secret).decode()[1:-1]
        forms |= {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), quoted, quoted.replace("/", "\\/")}
    return sorted((form.encode() for form in forms), key=len, reverse=True)
