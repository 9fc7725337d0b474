"""The automation surface, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.automation.routes import (
    credentials,
    executions,
    forms,
    integrations,
    workflows,
)

ROUTERS: tuple[APIRouter, ...] = (
    credentials.router,
    executions.router,
    forms.router,
    integrations.router,
    workflows.router,
)
"""A router for each resource."""
