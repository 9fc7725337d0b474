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

NAME = "native"


def router() -> APIRouter:
    """Every native route."""
    all_routes = APIRouter()
    for part in (
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
    ):
        all_routes.include_router(part)
    return all_routes
