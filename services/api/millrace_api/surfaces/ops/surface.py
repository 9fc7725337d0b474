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

ROUTERS: tuple[APIRouter, ...] = (
    actions.router,
    customers.router,
    tickets.router,
    webhook_tests.router,
    connectors.router,
    inbound.router,
)
"""A router for each resource."""
