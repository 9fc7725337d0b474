"""Who acts, as actions and the audit see it: the key, and the role he has by it."""

from millrace_api.application.action_calls import Actor
from millrace_web.api_keys import ApiKey

OWNER = "owner"


def actor_of(key: ApiKey) -> Actor:
    """A key that is nobody's in particular is the account's own."""
    return Actor(account=key.account, key=key.id, role=key.role or OWNER)
