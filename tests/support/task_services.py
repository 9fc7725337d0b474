"""Orchestrator and scheduler as their wirings make them, in this process, to be killed and begun again at will."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from millrace_core.clock import Clock, SystemClock
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.store import MemoryStores
from millrace_kafka.transactional import TransactionalProcessor
from millrace_orchestrator import admissions_handler
from millrace_orchestrator import handlers as orchestrator
from millrace_orchestrator.flows import Flows
from millrace_scheduler import handlers as scheduler
from tests.support.waiting import eventually


def orchestrating(cluster: Cluster) -> TransactionalProcessor[orchestrator.OrchestratorHandler]:
    return TransactionalProcessor(
        cluster,
        group="orchestrator",
        inputs=orchestrator.INPUTS,
        changelog="orchestrator-changelog",
        read_back=orchestrator.READ_BACK,
        handler=lambda _: orchestrator.OrchestratorHandler(),
        store=MemoryStores(),
        clock=SystemClock(),
        instance="one",
    )


def admitting(
    cluster: Cluster, flows: Flows, view: ControlView
) -> TransactionalProcessor[admissions_handler.AdmissionsHandler]:
    return TransactionalProcessor(
        cluster,
        group="admissions",
        inputs=admissions_handler.INPUTS,
        changelog="admissions-changelog",
        handler=lambda _: admissions_handler.AdmissionsHandler(flows),
        store=MemoryStores(),
        view=view,
        clock=SystemClock(),
        instance="one",
    )


def scheduling(cluster: Cluster, clock: Clock | None = None) -> TransactionalProcessor[scheduler.SchedulerHandler]:
    return TransactionalProcessor(
        cluster,
        group="scheduler",
        inputs=scheduler.INPUTS,
        changelog="scheduler-changelog",
        read_back=scheduler.READ_BACK,
        handler=lambda _: scheduler.SchedulerHandler(),
        store=MemoryStores(),
        clock=clock or SystemClock(),
        instance="one",
    )


class Life:
    """A processor that runs until it is killed (no farewell: open transactions stay open) or stopped."""

    def __init__(self, made: TransactionalProcessor[Any]) -> None:
        self.made = made
        self._stop = asyncio.Event()
        self._running = asyncio.ensure_future(made.run(self._stop))

    async def ready(self) -> None:
        await eventually(lambda: self.made.ready() is None, timeout_s=20)

    async def kill(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])

    async def stop(self) -> None:
        self._stop.set()
        await self._running


@asynccontextmanager
async def living(made: TransactionalProcessor[Any]) -> AsyncIterator[Life]:
    life = Life(made)
    try:
        yield life
    finally:
        await life.stop()
