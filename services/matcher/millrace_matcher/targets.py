"""What a subscription may point at: the plans and endpoints in force, followed on the control log.

A subscription whose target is gone, or an endpoint that is switched off, matches nothing.
"""

from millrace_core.errors import Reject
from millrace_core.event_names import Naming
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
    """Follows kind `endpoint`. Only whether one is there and switched on matters here, and what it calls events."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Naming | None] = {}

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        key = (account, id)
        self._open.pop(key, None)
        try:
            control = decode(value, EndpointControl)
            # Most list identifiers only, and are kept without a naming of their own.
            naming = Naming(control.names) if control.names else None
        except Reject:
            return
        if control.enabled:
            self._open[key] = naming

    def is_open(self, account: str, id: str) -> bool:
        return (account, id) in self._open

    def naming(self, account: str, id: str) -> Naming | None:
        """What an endpoint calls events; None = by their identifiers."""
        return self._open.get((account, id))
