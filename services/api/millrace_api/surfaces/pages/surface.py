"""The pages, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.pages import forms

ROUTERS: tuple[APIRouter, ...] = (forms.router,)
"""A router for each kind of page."""
