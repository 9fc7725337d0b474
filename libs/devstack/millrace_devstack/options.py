"""What `make dev` runs and what a developer may choose, read from the environment once."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from millrace_devstack.errors import StackError
from millrace_devstack.front import API, GATEWAY

SERVICES = (
    GATEWAY,
    "matcher",
    "orchestrator",
    "executor",
    "dispatcher",
    "scheduler",
    "projector",
    "meter",
    API,
)
WITH_HTTP = (GATEWAY, API)

Command = Callable[..., Sequence[str]]


def _service_command(name: str) -> Sequence[str]:
    return (sys.executable, "-m", f"millrace_{name}")


def _tool_command(*arguments: str) -> Sequence[str]:
    return (sys.executable, "-m", "millrace_cli", *arguments)


@dataclass(frozen=True, slots=True)
class Programs:
    """What is run. Tests put small stand-ins here."""

    services: Sequence[str] = SERVICES
    service: Command = _service_command
    tool: Command = _tool_command


@dataclass(frozen=True, slots=True)
class Options:
    """What a developer may choose, from the environment."""

    home: Path
    kafka: str | None = None
    postgres: str | None = None
    front_port: int | None = None

    @classmethod
    def from_environment(cls) -> "Options":
        """MILLRACE_KAFKA, MILLRACE_POSTGRES, MILLRACE_DEV_PORT, MILLRACE_DEV_HOME (`.millrace` here)."""
        port = os.environ.get("MILLRACE_DEV_PORT") or None
        if port is not None and not (port.isdigit() and 0 < int(port) < 65_536):
            raise StackError(f"MILLRACE_DEV_PORT is {port!r}: give a port number, such as 8080")
        return cls(
            home=Path(os.environ.get("MILLRACE_DEV_HOME") or ".millrace"),
            kafka=os.environ.get("MILLRACE_KAFKA") or None,
            postgres=os.environ.get("MILLRACE_POSTGRES") or None,
            front_port=int(port) if port else None,
        )
