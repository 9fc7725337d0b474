"""The native surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.native.routes import (
    accounts,
    audit,
    dead_letters,
    deliveries,
    events,
    keys,
    people,
    plans,
    receipts,
    replays,
    runs,
    safe_fields,
    subscriptions,
    webhooks,
)

ROUTERS: tuple[APIRouter, ...] = (
    subscriptions.router,
    plans.jobs,
    plans.chains,
    webhooks.router,
    replays.router,
    events.router,
    runs.router,
    deliveries.router,
    dead_letters.router,
    receipts.router,
    receipts.public,
    keys.router,
    people.router,
    audit.router,
    accounts.router,
    safe_fields.router,
)
"""A router for each resource, and for those who come without a key."""
