"""The pages, assembled."""

from fastapi import APIRouter

from millrace_api.surfaces.pages import forms

NAME = "pages"


def router() -> APIRouter:
    """Every page."""
    return forms.router
