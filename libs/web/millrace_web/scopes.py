"""What an API key may do. A scope is `verb:things`; `*` is every scope, also those to come."""

from collections.abc import Mapping
from types import MappingProxyType
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
READ_PEOPLE: Final = "read:people"
MANAGE_PEOPLE: Final = "manage:people"
READ_FORMS: Final = "read:forms"
MANAGE_FORMS: Final = "manage:forms"
READ_INTAKE_BOTS: Final = "read:intake-bots"  # the same forms, as the intake surface names them
WRITE_INTAKE_BOTS: Final = "write:intake-bots"
READ_SUBMISSIONS: Final = "read:submissions"
WRITE_SUBMISSIONS: Final = "write:submissions"
READ_CREDENTIALS: Final = "read:credentials"
MANAGE_CREDENTIALS: Final = "manage:credentials"
READ_INTEGRATIONS: Final = "read:integrations"
MANAGE_INTEGRATIONS: Final = "manage:integrations"
READ_ACTIONS: Final = "read:actions"
MANAGE_ACTIONS: Final = "manage:actions"
RUN_ACTIONS: Final = "run:actions"
CONFIRM_ACTIONS: Final = "confirm:actions"
READ_AUDIT: Final = "read:audit"
READ_CUSTOMERS: Final = "read:customers"
MANAGE_CUSTOMERS: Final = "manage:customers"  # which fields of things may be read, too
READ_TICKETS: Final = "read:tickets"
MANAGE_TICKETS: Final = "manage:tickets"
READ_CONNECTORS: Final = "read:connectors"
MANAGE_CONNECTORS: Final = "manage:connectors"
READ_WORKFLOWS: Final = "read:workflows"
MANAGE_WORKFLOWS: Final = "manage:workflows"
READ_EXECUTIONS: Final = "read:executions"
MANAGE_EXECUTIONS: Final = "manage:executions"

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
        READ_PEOPLE,
        MANAGE_PEOPLE,
        READ_FORMS,
        MANAGE_FORMS,
        READ_INTAKE_BOTS,
        WRITE_INTAKE_BOTS,
        READ_SUBMISSIONS,
        WRITE_SUBMISSIONS,
        READ_CREDENTIALS,
        MANAGE_CREDENTIALS,
        READ_INTEGRATIONS,
        MANAGE_INTEGRATIONS,
        READ_ACTIONS,
        MANAGE_ACTIONS,
        RUN_ACTIONS,
        CONFIRM_ACTIONS,
        READ_AUDIT,
        READ_CUSTOMERS,
        MANAGE_CUSTOMERS,
        READ_TICKETS,
        MANAGE_TICKETS,
        READ_CONNECTORS,
        MANAGE_CONNECTORS,
        READ_WORKFLOWS,
        MANAGE_WORKFLOWS,
        READ_EXECUTIONS,
        MANAGE_EXECUTIONS,
    }
)
"""Every scope a key may be given."""


def allows(scopes: frozenset[str], scope: str) -> bool:
    """Whether these scopes include that one. `manage:things` includes reading and writing them, `write:things`
    reading them."""
    if scope in scopes or ALL in scopes:
        return True
    verb, _, things = scope.partition(":")
    above = {"read": ("write", "manage"), "write": ("manage",)}.get(verb, ())
    return any(f"{one}:{things}" in scopes for one in above)


_OWNERS_ALONE = frozenset({ALL, READ_AUDIT})
_READING = frozenset(scope for scope in SCOPES if scope.startswith("read:") and scope not in {READ_AUDIT, READ_PEOPLE})
ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "owner": frozenset({ALL}),
        "admin": SCOPES - _OWNERS_ALONE,
        "member": _READING | {PUBLISH_EVENTS, MANAGE_RUNS, WRITE_SUBMISSIONS, RUN_ACTIONS, CONFIRM_ACTIONS},
    }
)
"""What a person may: the bound of all keys that are his. Which actions he may run and confirm their contracts say."""
