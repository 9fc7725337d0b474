"""What a type of node is to the executor, and what it gets to work with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from millrace_core import egress
from millrace_core.clock import Clock
from millrace_core.expressions import Scope
from millrace_core.messages import ErrorInfo, Step
from millrace_core.outgoing_credentials import Credential
from millrace_core.record import Output, Received
from millrace_runtime.egress import Answer


class StepFailed(Exception):
    """The attempt failed. `retryable` False = the same attempt would fail again, so none follows."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.error = ErrorInfo(code=code, message=message, retryable=retryable)


class Sender(Protocol):
    """The door outward (`millrace_runtime.egress.Egress`)."""

    async def send(
        self,
        target: egress.Target,
        *,
        account: str,
        head: bytes,
        body: bytes = b"",
        timeout_s: float,
        read_bytes_max: int,
    ) -> Answer:
        """The answer, whatever its status. Raises OutgoingFailed when none came."""
        ...


@dataclass(frozen=True, slots=True)
class Registered:
    """A contract as the registry holds it, with the secret that its requests are signed with."""

    name: str
    version: int
    digest: str
    endpoint: str
    secret: str = field(repr=False)


class Registry(Protocol):
    """The registered actions (`millrace_executor.actions.Actions`)."""

    def get(self, account: str, action: str) -> Registered | None:
        """None = there is none under this id. Raises Reject when what is there cannot be trusted."""
        ...


class NoActions:
    """A registry with nothing in it."""

    def get(self, account: str, action: str) -> Registered | None:
        return None


class Credentials(Protocol):
    """What steps may prove themselves with (`millrace_executor.credentials.Credentials`)."""

    async def get(self, account: str, named: str) -> Credential:
        """The credential of this id or name. Raises StepFailed when there is none to be had."""
        ...


class NoCredentials:
    """Where there are none."""

    async def get(self, account: str, named: str) -> Credential:
        raise StepFailed("credential_missing", f"there is no credential {named[:200]!r}", retryable=False)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every node may use."""

    sender: Sender
    clock: Clock
    allow: tuple[egress.Network, ...] = ()
    registry: Registry = NoActions()  # noqa: RUF009
    credentials: Credentials = NoCredentials()  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one node: the step, the record that asked for it, and its context as expressions see it."""

    step: Step
    asked_by: Received
    scope: Scope


@dataclass(frozen=True, slots=True)
class Done:
    """What a node made: its output as JSON, and records to be written together with the result."""

    output: bytes
    emits: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Over:
    """An attempt that is over: exactly one of `done` and `error` is there."""

    step: Step
    done: Done | None
    error: ErrorInfo | None
    at_ms: int
    duration_ms: float


Node = Callable[[Attempt, Tools], Awaitable[Done]]
"""Runs one attempt within the step's time. Repeats of the same attempt must be harmless: use `step.key`.
Raises StepFailed (decided), Reject (the config is wrong, not retryable) or OutgoingFailed (retryable)."""
