"""The automation surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.automation.routes import forms

PARTS: tuple[APIRouter, ...] = (forms.router,)
from millrace_api.surfaces.automation.routes import credentials

PARTS: tuple[APIRouter, ...] = (credentials.router,)
"""A router for each resource."""


def router() -> APIRouter:
    """Every route of this surface."""
    all_routes = APIRouter()
    for part in PARTS:
        all_routes.include_router(part)
    return all_routes
