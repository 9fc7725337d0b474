"""The webhook endpoints as the dispatcher follows them, and what is prepared once for all deliveries to one of them.

Values stay bytes until an endpoint is first delivered to; then its URL is taken apart, its secrets are opened and its
request head is written, and that is kept until the endpoint changes. Every entry has the account in its key: an id
under another account is not found. Secrets are in memory only, in no representation and in no message.
Not here: the connection (`millrace_runtime.egress`), what failed lately (`pausing`).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from millrace_core import egress, limits, signing
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing, endpoint_secret
from millrace_core.messages import EndpointControl, decode

Key = tuple[str, str]  # account, endpoint

# Set for each delivery, or by the sender's framing: an endpoint's own headers cannot change them.
RESERVED_HEADERS = frozenset(
    {"content-type", "user-agent", signing.ID_HEADER, signing.TIMESTAMP_HEADER, signing.SIGNATURE_HEADER,
     "x-opsiq-signature", "x-opsiq-timestamp", "x-opsiq-idempotency-key", "x-opsiq-delivery-id"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prepared:
    """An endpoint ready to be posted to, or the reason why it cannot be."""

    id: str
    url: str
    is_enabled: bool
    concurrency: int
    timeout_s: float
    schedule_s: tuple[float, ...]
    rate: float | None = None
    is_ops: bool = False
    problem: str | None = None
    target: egress.Target | None = None
    head: bytes = b""
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Endpoints:
    """Follows control records of kind `endpoint`. Not safe to share between threads."""

    def __init__(
        self,
        ring: KeyRing,
        *,
        user_agent: str,
        allow: Sequence[egress.Network] = (),
        on_change: Callable[[Key], None] = lambda _key: None,
    ) -> None:
        self._ring = ring
        self._user_agent = user_agent
        self._allow = tuple(allow)
        self._on_change = on_change
        self._values: dict[Key, bytes] = {}
        self._prepared: OrderedDict[Key, Prepared] = OrderedDict()

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        key = (account, id)
        self._prepared.pop(key, None)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = bytes(value)
        self._on_change(key)

    def get(self, account: str, id: str) -> Prepared | None:
        """The endpoint as of the newest control record applied; None = there is none (or it is damaged)."""
        key = (account, id)
        prepared = self._prepared.get(key)
        if prepared is not None:
            return prepared
        value = self._values.get(key)
        if value is None:
            return None
        try:
            control = decode(value, EndpointControl)
        except Reject:
            return None
        if control.account != account:
            return None
        prepared = self._prepared[key] = self._prepare(id, control)
        if len(self._prepared) > limits.ENDPOINTS_PREPARED_MAX:
            self._prepared.popitem(last=False)
        return prepared

    def __len__(self) -> int:
        return len(self._values)

    def _prepare(self, id: str, control: EndpointControl) -> Prepared:
        schedule_s = limits.WEBHOOK_RETRY_SCHEDULE_S if control.retry_schedule_s is None else control.retry_schedule_s
        plain = Prepared(
            id=id,
            url=control.url,
            is_enabled=control.enabled,
            concurrency=min(max(control.concurrency, 1), limits.ENDPOINT_CONCURRENCY_MAX),
            timeout_s=min(max(control.timeout_s, 0.001), limits.WEBHOOK_TIMEOUT_S_MAX),
            schedule_s=schedule_s[: limits.WEBHOOK_ATTEMPTS_MAX - 1],
            rate=max(control.rate, limits.ENDPOINT_RATE_MIN) if control.rate is not None and control.enabled else None,
            is_ops=control.style == "ops",
        )
        try:
            return self._complete(plain, control)
        except Reject as reject:
            # Not the end of its deliveries: the owner corrects the URL, the operator adds the key to the ring.
            return replace(plain, problem=str(reject))

    def _complete(self, plain: Prepared, control: EndpointControl) -> Prepared:
        target = egress.check_url(control.url, self._allow)
        headers = control.headers or {}
        egress.check_headers(headers, ours=RESERVED_HEADERS)
        if not control.secrets:
            raise Reject("the endpoint has no signing secret: rotate its secret to give it one")
        secrets = tuple(
            self._ring.open(sealed, account=control.account, name=endpoint_secret(plain.id))
            for sealed in control.secrets
        )
        for secret in secrets:
            signing.secret_bytes(secret)
        fixed = {"content-type": "application/json", "user-agent": self._user_agent, "accept": "*/*", **headers}
        return replace(plain, target=target, head=egress.request_head("POST", target, fixed), secrets=secrets)
