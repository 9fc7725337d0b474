"""The intake surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.intake.routes import bots, webhooks

PARTS: tuple[APIRouter, ...] = (
    bots.router,
    webhooks.router,
)
"""A router for each resource."""


def router() -> APIRouter:
    """Every route of this surface."""
    all_routes = APIRouter()
    for part in PARTS:
        all_routes.include_router(part)
    return all_routes
