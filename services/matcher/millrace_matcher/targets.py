"""What a subscription may point at: the plans and endpoints in force, followed on the control log.

A subscription whose target is gone, or an endpoint that is switched off, matches nothing.
"""

from millrace_core.errors import Reject
from millrace_core.messages import EndpointControl, PlanControl, decode


class Plans:
    """Follows kind `plan`. Keeps the JSON that a run pins."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str], bytes] = {}

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        try:
            self._plans[account, id] = bytes(decode(value, PlanControl).plan)
        except Reject:
            self._plans.pop((account, id), None)

    def get(self, account: str, id: str) -> bytes | None:
        """The plan's JSON, or None when there is none."""
        return self._plans.get((account, id))


class Endpoints:
    """Follows kind `endpoint`. Only whether one is there and switched on matters here."""

    def __init__(self) -> None:
        self._open: set[tuple[str, str]] = set()

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        try:
            is_open = decode(value, EndpointControl).enabled
        except Reject:
            is_open = False
        (self._open.add if is_open else self._open.discard)((account, id))

    def is_open(self, account: str, id: str) -> bool:
        return (account, id) in self._open
