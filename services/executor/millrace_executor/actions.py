"""The registered actions as the executor follows them: looked up when a step runs one, never carried by the step.

Values stay bytes until an action is run; then its secret is opened and its seal checked, and that is kept until it
changes. Every entry has the account in its key: an id under another account is not found. Secrets are in memory only.
"""

from collections import OrderedDict

import orjson

from millrace_core import actions, limits
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing, action_secret
from millrace_core.messages import ActionControl, decode
from millrace_executor.ports import Registered

Key = tuple[str, str]  # account, action


class Actions:
    """Follows control records of kind `action`."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._values: dict[Key, bytes] = {}
        self._opened: OrderedDict[Key, Registered] = OrderedDict()

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        key = (account, id)
        self._opened.pop(key, None)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = bytes(value)

    def get(self, account: str, action: str) -> Registered | None:
        """The contract as of the newest control record applied; None = there is none. Raises Reject when its seal or
        its secret does not hold."""
        key = (account, action)
        found = self._opened.get(key)
        if found is None:
            value = self._values.get(key)
            if value is None:
                return None
            found = self._opened[key] = self._open(account, action, value)
            if len(self._opened) > limits.ENDPOINTS_PREPARED_MAX:
                self._opened.popitem(last=False)
        return found

    def _open(self, account: str, action: str, value: bytes) -> Registered:
        control = decode(value, ActionControl)
        if control.account != account:
            raise Reject("the action is another account's")
        secret = self._ring.open(control.secret, account=account, name=action_secret(action))
        content = bytes(control.contract)
        actions.check_signature(secret, content, control.seal)
        contract = actions.parse(orjson.loads(content))
        return Registered(
            name=control.name,
            version=control.version,
            digest=actions.digest(content),
            endpoint=contract.endpoint,
            secret=secret,
        )
