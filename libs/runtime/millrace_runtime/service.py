"""A service process: loop, logs, ops port, its workers under one owner, and an end that is bounded.

`main` reads the settings, wires, runs the named workers and returns never: exit 0 after a clean drain, 1 when a worker
raised, ended by itself or did not drain in time, 2 on wrong settings. A supervisor outside starts the process anew; a
part that can begin its life again does so inside its worker and tells the observer. Not here: what the workers do.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import NoReturn, TypeVar

import uvloop
from structlog.typing import FilteringBoundLogger

from millrace_core import limits
from millrace_core.clock import Clock, SystemClock
from millrace_core.errors import Fatal, Retry
from millrace_core.restart import backoff_s
from millrace_runtime import logging, metric_defs, settings
from millrace_runtime.health import Health
from millrace_runtime.metrics import Metrics, MetricsObserver
from millrace_runtime.ops_http import ops_server

Worker = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then finishes what it holds and returns. Cancelled = the drain's bound is over."""

READY_POLL_S = 0.05
CLEAN_UP_S_MAX = 5.0

# Requests and records make short-lived objects by the thousand and few cycles: look for those less often.
GC_THRESHOLD = (20_000, 20, 20)

EXIT_FAILED = 1
EXIT_SETTINGS = 2


@dataclass(frozen=True, slots=True)
class Context:
    """What a service's `wire` gets: everything that a process has once."""

    name: str
    instance: str
    clock: Clock
    log: FilteringBoundLogger
    metrics: Metrics
    observer: MetricsObserver
    health: Health = field(default_factory=Health)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Closed after the last worker returned, last in first out."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process shall end; the same event that every worker gets."""


T = TypeVar("T")
S = TypeVar("S", bound=settings.ServiceSettings)
Wire = Callable[[S, Context], Awaitable[Mapping[str, Worker]]]
"""Builds the service from its settings and gives its workers by name. The only composition root."""


def main(name: str, settings_type: type[S], wire: Wire[S]) -> NoReturn:
    """Be the service `name` until told to stop. The whole of a service's `__main__`."""
    try:
        read = settings.read(settings_type)
    except Fatal as error:
        sys.stderr.write(f"millrace-{name}: {error}\n")
        sys.exit(EXIT_SETTINGS)
    log = logging.configure(name, instance=read.instance, level=read.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(serve(name, read, wire, log, last_resort=_end_for_certain))
    sys.exit(code)


async def serve(
    name: str, read: S, wire: Wire[S], log: FilteringBoundLogger, *, last_resort: Callable[[], None] = lambda: None
) -> int:
    """One life of the process, to its exit code. SIGTERM and SIGINT begin the drain, a second one ends it at once.
    `last_resort` is told when the end begins, and sees to it that it comes though a worker heeds nothing."""
    metrics = Metrics()
    context = Context(
        name=name,
        instance=read.instance,
        clock=SystemClock(read.clock_offset_ms),
        log=log,
        metrics=metrics,
        observer=MetricsObserver(metrics, log),
    )
    metrics.gauge(metric_defs.SERVICE_INFO).labels(name, version("millrace-runtime")).set(1)
    metrics.watch(metric_defs.SERVICE_READY, lambda: 0.0 if context.health.reasons() else 1.0)
    _on_signals(context, asyncio.current_task(), last_resort)
    try:
        async with ops_server(
            context.health, metrics.exposition, name=name, host=read.ops_host, port=read.ops_port
        ) as port:
            log.info("service.started", ops_port=port)
            try:
                workers = await _unless_stopped(_wired(wire, read, context), context.stop)
                await _run(workers or {}, context, port)
            finally:
                async with asyncio.timeout(CLEAN_UP_S_MAX):
                    await context.stack.aclose()
    except (Exception, asyncio.CancelledError) as error:
        for cause in _causes(error):
            log.error("service.failed", error=f"{type(cause).__name__}: {cause}", exc_info=cause)
        last_resort()
        return EXIT_FAILED
    log.info("service.stopped")
    return 0


async def _wired(wire: Wire[S], read: S, context: Context) -> Mapping[str, Worker]:
    """Build the service, again and again while what it needs (its Kafka, its Postgres) is away."""
    attempt = 0
    while True:
        try:
            return await wire(read, context)
        except Retry as error:
            await context.stack.aclose()
            pause_s = backoff_s(attempt)
            context.log.warning("service.waiting", reason=str(error), again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            attempt += 1


async def _unless_stopped(wiring: Awaitable[T], stop: asyncio.Event) -> T | None:
    """What was wired, or None when the process was told to stop while it waited, say, for its Kafka."""
    wired, told = asyncio.ensure_future(wiring), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((wired, told), return_when=asyncio.FIRST_COMPLETED)
        return wired.result() if wired.done() else None
    finally:
        told.cancel()
        wired.cancel()
        await asyncio.wait((wired, told))


async def _run(workers: Mapping[str, Worker], context: Context, ops_port: int) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(_owned(name, worker, context), name=name) for name, worker in workers.items()}
        watch = group.create_task(_watch_ready(context, ops_port), name="ready")
        context.health.started()
        await context.stop.wait()
        context.health.draining()
        watch.cancel()
        context.log.info("service.draining", workers=sorted(tasks))
        _, late = await asyncio.wait(tasks.values(), timeout=limits.SHUTDOWN_S_MAX) if tasks else (set(), set())
        if late:
            names = ", ".join(sorted(task.get_name() for task in late))
            raise TimeoutError(f"did not drain within {limits.SHUTDOWN_S_MAX:g} s: {names}")


async def _owned(name: str, worker: Worker, context: Context) -> None:
    await worker(context.stop)
    if not context.stop.is_set():
        raise Fatal(f"worker {name} ended though nobody asked it to")


async def _watch_ready(context: Context, ops_port: int) -> None:
    """Log each change of readiness; the first time with the port, so that a supervisor can find it."""
    said: dict[str, str] | None = None
    seen_ready = False
    while True:
        reasons = context.health.reasons()
        if not reasons and said != {}:
            context.log.info("service.ready", ops_port=ops_port)
            if not seen_ready:
                # What start-up made lives as long as the process: the collector need not walk it again.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLD)
            seen_ready, said = True, {}
        elif reasons and seen_ready and not said:
            context.log.warning("service.unready", reasons=reasons)
            said = reasons
        await asyncio.sleep(1.0 if seen_ready else READY_POLL_S)


def _on_signals(context: Context, process: asyncio.Task[int] | None, last_resort: Callable[[], None]) -> None:
    def told() -> None:
        if context.stop.is_set() and process is not None:
            process.cancel("told twice to stop")
        context.stop.set()
        last_resort()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)


def _end_for_certain() -> None:
    """A worker that ignores its cancellation, or a loop that hangs, must not outlive the bound of the end."""
    bound = limits.SHUTDOWN_S_MAX + CLEAN_UP_S_MAX + 1.0
    timer = threading.Timer(bound, os._exit, (EXIT_FAILED,))
    timer.daemon = True
    timer.start()


def _causes(error: BaseException) -> list[BaseException]:
    """What really went wrong: the leaves of groups, which task groups nest."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _causes(inner)]
    return [error]
