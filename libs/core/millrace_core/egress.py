"""Where outgoing HTTP may go: the pure half of the guard against requests forged through us (SSRF).

`check_url` judges a URL as written, without DNS: used when an endpoint or a step is saved, and again before each
connection. `refusal` judges an address that a name resolved to: used by `millrace_runtime.egress`, which connects to
the very address that was judged, so a name that changes its mind in between gains nothing.
What is not plainly public is refused (`ipaddress.is_global` calls NAT64, 6to4, multicast and others global).
An operator may allow networks (`MILLRACE_EGRESS_ALLOW`); a host written as a number is refused whatever he allows.
Not here: connecting, redirects (there are none).
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

from millrace_core import limits
from millrace_core.errors import Reject

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4_DENIED = tuple(
    (ipaddress.IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local, cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments, cloud metadata"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
    )
)
ANYWHERE_V4 = ipaddress.IPv4Network("0.0.0.0/0")
ANYWHERE_V6 = ipaddress.IPv6Network("::/0")
_V6_PUBLIC = ipaddress.IPv6Network("2000::/3")
_V6_DENIED = tuple(
    (ipaddress.IPv6Network(network), why)
    for network, why in (
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)


def networks(text: str) -> tuple[Network, ...]:
    """The operator's allow list: CIDRs between commas. Raises Reject naming the one that is none."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise Reject(f"MILLRACE_EGRESS_ALLOW: {part!r} is not a network such as 10.1.0.0/16: {error}") from None
    return tuple(found)


def refusal(address: Address, allow: Sequence[Network] = ()) -> str | None:
    """Why nothing may be sent to this address; None = it may."""
    if any(address in network for network in allow):
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return next((why for network, why in _V4_DENIED if address in network), None)
    why = next((why for network, why in _V6_DENIED if address in network), None)
    return why if why is not None or address in _V6_PUBLIC else "not a public address"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be tried: its host is ASCII (no brackets), its path is ready for a request line."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")


def check_url(url: str, allow: Sequence[Network] = ()) -> Target:
    """The URL taken apart, when it may be sent to as far as can be told without DNS. Raises Reject with the fix."""
    if len(url) > limits.URL_CHARS_MAX:
        raise Reject(f"the URL is longer than {limits.URL_CHARS_MAX} characters")
    if any(char <= " " or char in '\\"<>^`{|}\x7f' for char in url):
        raise Reject('the URL holds a space, a control character or one of \\ " < > ^ ` { | }; percent-encode it')
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Reject(f"the URL cannot be read: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise Reject(f"the URL must begin with https:// or http://, not {scheme or 'nothing'}")
    if "@" in parts.netloc:
        raise Reject("the URL must not hold a user or password; send them as a header")
    if port == 0:
        raise Reject("the URL's port must be between 1 and 65535")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc, allow=allow)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._[]") + (
        "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]") if parts.query else ""
    )
    kind: Literal["http", "https"] = "https" if scheme == "https" else "http"
    return Target(kind, host, port or _PORTS[kind], path)


def _host(written: str, *, bracketed: bool, allow: Sequence[Network]) -> str:
    if bracketed:
        try:
            address: Address = ipaddress.IPv6Address(written)
        except ValueError:
            raise Reject(f"[{written}] is not an IPv6 address") from None
        if "%" in written:
            raise Reject("an IPv6 address in a URL must not name a zone")
        return _checked(address, allow)
    try:
        # Look-alike digits and dots (fullwidth, circled) become ASCII here, as they would on their way to the resolver.
        host = written.encode("idna").decode("ascii").lower() if not written.isascii() else written.lower()
    except UnicodeError:
        raise Reject(f"{written!r} is not a host name") from None
    host = host.removesuffix(".")
    labels = host.split(".")
    if not host or len(host) > 253 or not all(map(_LABEL.match, labels)):
        raise Reject(f"{written!r} is not a host name")
    if not _NUMBER.match(labels[-1]):
        return host
    try:
        # Strict: four decimal numbers without leading zeros, so nothing that some resolver reads another way.
        return _checked(ipaddress.IPv4Address(host), allow)
    except ipaddress.AddressValueError:
        raise Reject(
            f"{written!r} writes an address as a short, octal, hexadecimal or single number; "
            "use a host name, or four decimal numbers such as 203.0.113.7"
        ) from None


def _checked(address: Address, allow: Sequence[Network]) -> str:
    why = refusal(address, allow)
    if why is not None:
        raise Reject(
            f"{address} may not be sent to ({why}); use a public address or have the operator allow its network"
        )
    return str(address)


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# What the message's framing or its route depends on is ours to say.
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
     "proxy-connection", "proxy-authorization"}
)  # fmt: skip


def check_headers(headers: Mapping[str, str], *, ours: frozenset[str] = frozenset()) -> None:
    """Raise Reject for a header that could break the request's framing, or that the sender sets itself."""
    for name, value in headers.items():
        if not _TOKEN.match(name):
            raise Reject(f"{name!r} is not a header name")
        if name.lower() in _OURS or name.lower() in ours:
            raise Reject(f"the header {name!r} is set by Millrace and cannot be changed; leave it out")
        if any((char < " " and char != "\t") or char == "\x7f" or char > "\xff" for char in value):
            raise Reject(f"the value of the header {name!r} holds a control or non-Latin-1 character")


def request_head(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    """The request line and headers, each line ended, the blank line not yet there. `headers` were checked."""
    lines = [f"{method} {target.path} HTTP/1.1", f"host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")
