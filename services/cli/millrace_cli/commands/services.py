"""One command for each service: `millrace gateway` becomes `python -m millrace_gateway`, same process, same signals."""

import os
import sys
from typing import NoReturn

import typer

SERVICES = {
    "gateway": "Take events in over HTTP.",
    "matcher": "Match events with subscriptions.",
    "orchestrator": "Drive runs from step to step.",
    "executor": "Do the steps of runs.",
    "dispatcher": "Deliver webhooks.",
    "scheduler": "Fire timers.",
    "projector": "Build the read models.",
    "meter": "Count what happens in windows of ten seconds.",
    "api": "Serve the HTTP API.",
}


def become(module: str, *arguments: str) -> NoReturn:
    """Replace this process by `python -m module`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


def add_to(app: typer.Typer) -> None:
    for name, purpose in SERVICES.items():
        _add(app, name, purpose)


def _add(app: typer.Typer, name: str, purpose: str) -> None:
    @app.command(name, help=purpose, rich_help_panel="Services")
    def run() -> None:
        become(f"millrace_{name}")
