"""The automation surface, assembled."""

from fastapi import APIRouter

PARTS: tuple[APIRouter, ...] = ()
"""A router for each resource."""


def router() -> APIRouter:
    """Every route of this surface."""
    all_routes = APIRouter()
    for part in PARTS:
        all_routes.include_router(part)
    return all_routes
