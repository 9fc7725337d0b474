"""A service of nothing, run as a process by the runtime's tests: `python -m tests.support.tiny_service <behaviour>`."""

import asyncio
import sys
from collections.abc import Mapping

from millrace_core import limits
from millrace_runtime.service import Context, Worker, main
from millrace_runtime.settings import ServiceSettings


async def wire(settings: ServiceSettings, context: Context) -> Mapping[str, Worker]:
    behaviour = sys.argv[1]

    async def closed() -> None:
        context.log.info("stack.closed")

    async def drains(stop: asyncio.Event) -> None:
        await stop.wait()
        context.log.info("worker.drained", reasons=context.health.reasons())

    async def raises(stop: asyncio.Event) -> None:
        while context.health.reasons():
            await asyncio.sleep(0)
        raise RuntimeError("broke, with mr_live_secretsecret inside")

    async def ends(stop: asyncio.Event) -> None:
        return

    async def hangs(stop: asyncio.Event) -> None:
        await asyncio.Event().wait()

    context.stack.push_async_callback(closed)
    if behaviour == "never-wired":
        await asyncio.Event().wait()
    if behaviour == "unready":
        context.health.add("part", lambda: "waits for its partition")
        behaviour = "drains"
    return {"worker": {"drains": drains, "raises": raises, "ends": ends, "hangs": hangs}[behaviour], "other": drains}


if __name__ == "__main__":
    if sys.argv[2:]:
        limits.SHUTDOWN_S_MAX = float(sys.argv[2])
    main("tiny", ServiceSettings, wire)
