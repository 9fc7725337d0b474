"""What an API key may do. A scope is `verb:things`; `*` is every scope, also those to come."""

from typing import Final

ALL: Final = "*"
PUBLISH_EVENTS: Final = "publish:events"
READ_EVENTS: Final = "read:events"
READ_RUNS: Final = "read:runs"
MANAGE_RUNS: Final = "manage:runs"
READ_DELIVERIES: Final = "read:deliveries"
MANAGE_DELIVERIES: Final = "manage:deliveries"
READ_SUBSCRIPTIONS: Final = "read:subscriptions"
MANAGE_SUBSCRIPTIONS: Final = "manage:subscriptions"
READ_JOBS: Final = "read:jobs"  # chains too
MANAGE_JOBS: Final = "manage:jobs"
READ_WEBHOOKS: Final = "read:webhooks"
MANAGE_WEBHOOKS: Final = "manage:webhooks"
MANAGE_KEYS: Final = "manage:keys"

SCOPES: Final = frozenset(
    {
        ALL,
        PUBLISH_EVENTS,
        READ_EVENTS,
        READ_RUNS,
        MANAGE_RUNS,
        READ_DELIVERIES,
        MANAGE_DELIVERIES,
        READ_SUBSCRIPTIONS,
        MANAGE_SUBSCRIPTIONS,
        READ_JOBS,
        MANAGE_JOBS,
        READ_WEBHOOKS,
        MANAGE_WEBHOOKS,
        MANAGE_KEYS,
    }
)
"""Every scope a key may be given."""


def allows(scopes: frozenset[str], scope: str) -> bool:
    """Whether these scopes include that one. `manage:things` includes `read:things`."""
    if scope in scopes or ALL in scopes:
        return True
    verb, _, things = scope.partition(":")
    return verb == "read" and f"manage:{things}" in scopes
