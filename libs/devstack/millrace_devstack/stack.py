"""One run of the platform: what is started, in which order, what is kept running, and how it all ends.

Kafka and Postgres side by side → topics, tables, demo account → every service at once → `dev.json`, written only when
all of them say that they are ready. The end runs the other way, services first, while the front still serves.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from millrace_core.clock import SystemClock
from millrace_core.limits import SHUTDOWN_S_MAX
from millrace_devstack import processes, state
from millrace_devstack.errors import StackError
from millrace_devstack.front import Front
from millrace_devstack.kafka import Kafka
from millrace_devstack.keeping import Keeper
from millrace_devstack.options import WITH_HTTP, Options, Programs
from millrace_devstack.ports import HOST
from millrace_devstack.postgres import Postgres
from millrace_devstack.welcome import welcome

DATABASE = "millrace"
LOOPBACK = "127.0.0.0/8,::1/128"
TOOL_S_MAX = 120.0
READY_S_MAX = 120.0
READY_ASKED_EVERY_S = 0.1


@dataclass
class Stack:
    """One run of the platform."""

    options: Options
    programs: Programs
    home: state.Home
    say: Callable[[str], None]
    ports: dict[str, int] = field(init=False)
    secrets: state.Secrets = field(init=False)
    kafka: Kafka | None = None
    postgres: Postgres | None = None
    keepers: list[Keeper] = field(default_factory=list)
    _bootstrap: str = ""
    _dsn: str = ""
    _complete: bool = False
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.secrets = self.home.secrets()
        own = [
            name for name, given in (("kafka", self.options.kafka), ("postgres", self.options.postgres)) if not given
        ]
        names = own + [f"{name}.ops" for name in self.programs.services] + [f"{name}.http" for name in WITH_HTTP]
        self.ports = self.home.choose_ports(names, front=self.options.front_port)

    @property
    def base_url(self) -> str:
        """Where gateway and API are reached."""
        return f"http://{HOST}:{self.ports['front']}"

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set or something cannot be started (StackError in an exception group)."""
        try:
            async with asyncio.TaskGroup() as tasks:
                front = Front({name: self.ports[f"{name}.http"] for name in WITH_HTTP}, self.not_ready, tasks)
                async with front.serve(self.ports["front"]):
                    begun = tasks.create_task(self._begin())
                    await stop.wait()
                    self.say("stopping")
                    self._stopping = True
                    begun.cancel()
                    # While the front still serves: what is in flight may finish.
                    await self._stop_services()
        finally:
            self._stopping = True
            await self._stop_services()
            await self._stop_servers()

    async def not_ready(self) -> Mapping[str, str]:
        """Why the platform is not ready: a reason for each part that is not."""
        if not self.keepers:
            return {"platform": "Kafka and Postgres are being started"}
        async with asyncio.TaskGroup() as tasks:
            asked = {keeper.name: tasks.create_task(keeper.not_ready()) for keeper in self.keepers}
        return {name: reason for name, task in asked.items() if (reason := task.result())}

    async def _begin(self) -> None:
        clock = SystemClock()
        began = clock.monotonic()
        async with asyncio.TaskGroup() as servers:
            servers.create_task(self._start_kafka())
            servers.create_task(self._start_postgres())
        self.keepers = [self._keeper(name) for name in self.programs.services]
        async with asyncio.TaskGroup() as tasks:
            for keeper in self.keepers:
                tasks.create_task(keeper.run())
            if self.kafka is not None:
                tasks.create_task(self._keep("Kafka", self.kafka))
            if self.postgres is not None:
                tasks.create_task(self._keep("Postgres", self.postgres))
            await self._all_ready()
            self._complete = True
            self._write_dev_json()
            self.say(
                welcome(
                    self.home,
                    self.secrets.keys,
                    base_url=self.base_url,
                    bootstrap=self._bootstrap,
                    seconds=clock.monotonic() - began,
                )
            )

    async def _start_kafka(self) -> None:
        if self.options.kafka is not None:
            self._bootstrap = self.options.kafka
        else:
            self.kafka = Kafka(self.home.path / "kafka", port=self.ports["kafka"])
            if not self.kafka.home.exists():
                self.say("  the first start fetches Kafka (44 MB) and prepares it; the next ones take seconds")
            await self._timed("Kafka", self.kafka.start())
            self._bootstrap = self.kafka.bootstrap
        await self._timed("topics", self._tool("topics"))

    async def _start_postgres(self) -> None:
        if self.options.postgres is not None:
            self._dsn = self.options.postgres
        else:
            self.postgres = Postgres(self.home.path / "postgres", port=self.ports["postgres"])
            await self._timed("Postgres", self.postgres.start())
            self._dsn = await self.postgres.ensure_database(DATABASE)
        await self._timed("tables", self._tool("migrate"))
        await self._timed("demo account", self._tool("dev-account", "--keys-file", str(self.home.keys_json)))

    async def _timed(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        clock = SystemClock()
        began = clock.monotonic()
        await work
        self.say(f"  {what:<14} {clock.monotonic() - began:5.1f} s")

    async def _tool(self, *arguments: str) -> None:
        """Run one command of the command line to its end."""
        log = self.home.log(arguments[0])
        log.unlink(missing_ok=True)
        command = self.programs.tool(*arguments)
        child = await processes.spawn(arguments[0], command, log=log, env=self._env(arguments[0]))
        try:
            async with asyncio.timeout(TOOL_S_MAX):
                code: int | str = await child.wait()
        except TimeoutError:
            code = f"nothing within {TOOL_S_MAX:.0f} s"
        finally:
            await child.kill()
        if code != 0:
            raise StackError(
                f"`millrace {' '.join(arguments)}` failed ({code}). Its output is {log}; it ends with:\n"
                f"{processes.last_lines(child.log_tail())}"
            )

    def _env(self, name: str) -> dict[str, str]:
        own = {
            "MILLRACE_KAFKA": self._bootstrap,
            "MILLRACE_POSTGRES": self._dsn,
            "MILLRACE_INSTANCE": name,
            "MILLRACE_STATE_DIR": str(self.home.state(name)),
            "MILLRACE_KEY_PEPPER": self.secrets.pepper,
            "MILLRACE_KEY_RING": self.secrets.key_ring,
            "MILLRACE_EGRESS_ALLOW": LOOPBACK,
            "MILLRACE_PUBLIC_URL": self.base_url,
            "MILLRACE_OPS_HOST": HOST,
            "MILLRACE_HTTP_HOST": HOST,
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        for setting, port in (("MILLRACE_OPS_PORT", f"{name}.ops"), ("MILLRACE_HTTP_PORT", f"{name}.http")):
            if port in self.ports:
                own[setting] = str(self.ports[port])
        # Our own broker speaks in the clear, however another one was to be spoken to.
        is_own = self.options.kafka is None
        given = {key: value for key, value in os.environ.items() if not (is_own and key.startswith("MILLRACE_KAFKA_"))}
        return {**given, **own}

    def _keeper(self, name: str) -> Keeper:
        return Keeper(
            name,
            self.programs.service(name),
            env=self._env(name),
            ops_port=self.ports[f"{name}.ops"],
            log=self.home.log(name),
            changed=self._write_dev_json,
        )

    async def _keep(self, name: str, server: Kafka | Postgres) -> None:
        while True:
            code = await server.wait()
            if self._stopping:
                return
            self.say(f"{name} ended (exit {code}); starting it again")
            await server.start()
            self._write_dev_json()

    async def _all_ready(self) -> None:
        reasons: Mapping[str, str] = {}
        try:
            async with asyncio.timeout(READY_S_MAX):
                while reasons := await self.not_ready():  # noqa: ASYNC110
                    await asyncio.sleep(READY_ASKED_EVERY_S)
        except TimeoutError:
            why = "\n".join(f"  {name}: {reason} (log: {self.home.log(name)})" for name, reason in reasons.items())
            raise StackError(f"not ready after {READY_S_MAX:.0f} s:\n{why}") from None

    async def _stop_services(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for keeper in self.keepers:
                tasks.create_task(keeper.stop(timeout_s=SHUTDOWN_S_MAX + 2))

    async def _stop_servers(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for server in (self.kafka, self.postgres):
                if server is not None:
                    tasks.create_task(server.stop())

    def _write_dev_json(self) -> None:
        if not self._complete or self._stopping:
            return
        pids: dict[str, int | None] = {keeper.name: keeper.pid for keeper in self.keepers}
        pids |= {
            "kafka": self.kafka.pid if self.kafka else None,
            "postgres": self.postgres.pid if self.postgres else None,
        }
        content = {
            "base_url": self.base_url,
            "console_url": f"{self.base_url}/",
            "kafka": self._bootstrap,
            "postgres": self._dsn,
            "metrics": {keeper.name: f"http://{HOST}:{keeper.ops_port}/metrics" for keeper in self.keepers},
            "pids": pids,
            "keys": self.secrets.keys,
        }
        state.write_json(self.home.dev_json, content)
