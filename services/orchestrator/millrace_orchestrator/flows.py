"""The flows in force, followed on the control log: what the decider of admissions asks.

Only subscriptions and accounts that have a flow are kept. What had a flow and has none now says so with an empty one,
so what is not here was deleted, or never had one. Not here: what holds for runs that still wait then (`admissions`).
"""

import msgspec

from millrace_core.messages import FlowControl


class _Flowing(msgspec.Struct, gc=False):
    """Of a control record of either kind, what is looked at."""

    flow: FlowControl | None = None


_decode = msgspec.json.Decoder(_Flowing).decode


class Flows:
    """Follows kinds `subscription` and `account`. One per process, read by every partition's handler."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], FlowControl] = {}
        self.version = 0
        """Goes up with every change of a flow."""

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        # Most have none: the bytes of the others are not looked into.
        flow = _flow_of(value) if value is not None and b'"flow"' in value else None
        if flow is None and (account, id) not in self._flows:
            return
        self.version += 1
        if flow is None:
            del self._flows[account, id]
        else:
            self._flows[account, id] = flow

    def get(self, account: str, id: str) -> FlowControl | None:
        """The flow in force of a subscription, or of the account by its own id; None = there is no such subscription,
        or it never had one."""
        return self._flows.get((account, id))


def _flow_of(value: bytes) -> FlowControl | None:
    try:
        return _decode(value).flow
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
