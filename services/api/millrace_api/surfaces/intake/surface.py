"""The intake surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.intake.routes import bots, webhooks

ROUTERS: tuple[APIRouter, ...] = (
    bots.router,
    webhooks.router,
)
"""A router for each resource."""
