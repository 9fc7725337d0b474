"""The credentials as the executor follows them: looked up by id or name for each call of a step, never carried by it.

Values stay sealed until they are needed and are opened for each call anew (it takes microseconds), so none lies in
memory. Before one is looked up the view is asked to be as new as this moment: a value that was rotated or deleted
before the attempt is not used by it. Every entry has the account in its key.
"""

from collections.abc import Awaitable, Callable

from millrace_core.errors import Reject, Retry
from millrace_core.keyring import KeyRing, credential_value
from millrace_core.messages import CredentialControl, decode
from millrace_core.outgoing_credentials import Credential, Placement
from millrace_executor.ports import StepFailed


class Credentials:
    """Follows control records of kind `credential`. `refresh` returns when everything in force at its call was applied,
    or raises Retry."""

    def __init__(self, ring: KeyRing, refresh: Callable[[], Awaitable[None]]) -> None:
        self._ring = ring
        self._refresh = refresh
        self._controls: dict[tuple[str, str], CredentialControl] = {}
        self._ids: dict[tuple[str, str], str] = {}  # (account, name) → id

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        old = self._controls.pop((account, id), None)
        if old is not None and self._ids.get((account, old.name)) == id:
            del self._ids[account, old.name]
        if value is None:
            return
        control = decode(value, CredentialControl)
        if control.account == account:
            self._controls[account, id] = control
            self._ids[account, control.name] = id

    async def get(self, account: str, named: str) -> Credential:
        """The credential of this id or name, with its value. Raises StepFailed when there is none to be had."""
        try:
            await self._refresh()
        except Retry:
            raise StepFailed(
                "credential_unknown", "it cannot be told right now which credentials are in force", retryable=True
            ) from None
        id = named if (account, named) in self._controls else self._ids.get((account, named), named)
        control = self._controls.get((account, id))
        if control is None:
            message = f"there is no credential {named[:200]!r} (any more): make one, or name another in the step"
            raise StepFailed("credential_missing", message, retryable=False)
        try:
            value = self._ring.open(control.secret, account=account, name=credential_value(id))
        except Reject as reject:
            raise StepFailed("credential_sealed", f"credential {named[:200]!r}: {reject}", retryable=False) from None
        placement = Placement(where=control.where, name=control.parameter, prefix=control.prefix)
        return Credential(control.type, placement, control.hosts, value)
