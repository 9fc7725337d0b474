"""The automation surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.automation.routes import (
    credentials,
    executions,
    forms,
    integrations,
    workflows,
)

PARTS: tuple[APIRouter, ...] = (
    credentials.router,
    executions.router,
    forms.router,
    integrations.router,
    workflows.router,
)
"""A router for each resource."""


def router() -> APIRouter:
    """Every route of this surface."""
    all_routes = APIRouter()
    for part in PARTS:
        all_routes.include_router(part)
    return all_routes
