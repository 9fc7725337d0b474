"""The ops surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.ops.routes import (
    actions,
    connectors,
    customers,
    inbound,
    tickets,
    webhook_tests,
)

PARTS: tuple[APIRouter, ...] = (
    actions.router,
    customers.router,
    tickets.router,
    webhook_tests.router,
    connectors.router,
    inbound.router,
)
"""A router for each resource."""


def router() -> APIRouter:
    """Every route of this surface."""
    all_routes = APIRouter()
    for part in PARTS:
        all_routes.include_router(part)
    return all_routes
