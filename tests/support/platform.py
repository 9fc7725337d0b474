"""A whole Millrace of processes for end-to-end, fault and bench runs, on a given Kafka and Postgres.

Each service is started as users start it (`python -m millrace_<name>`), told apart by a Kafka namespace and a database
of its own. `kill` is SIGKILL. Nothing here knows what the services do.
"""

import asyncio
import base64
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from millrace_devstack import launch
from millrace_devstack.ports import free_port

SERVICES = (
    "gateway",
    "matcher",
    "orchestrator",
    "executor",
    "dispatcher",
    "scheduler",
    "projector",
    "meter",
    "api",
)
HTTP_SERVICES = ("gateway", "api")
BOUND = (sys.executable, "-I", "-S", launch.__file__)


@dataclass
class Running:
    """One service process (or one replica of it)."""

    name: str
    process: subprocess.Popen[bytes]
    ops_port: int
    http_port: int | None
    log: Path


@dataclass
class Platform:
    """Processes of one Millrace. Not reusable after `stop`."""

    kafka: str
    postgres: str
    namespace: str
    folder: Path
    extra_env: Mapping[str, str] = field(default_factory=dict)
    python: Sequence[str] = (sys.executable,)
    running: dict[str, Running] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    pepper: str = field(default_factory=lambda: secrets.token_hex(32))
    key_ring: str = field(default_factory=lambda: "k1:" + base64.b64encode(secrets.token_bytes(32)).decode())
    _ports: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    _envs: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def env(self, replica: str = "tool", more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a process of this platform is given."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("MILLRACE_")}
        return {
            **env,
            "MILLRACE_KAFKA": self.kafka,
            "MILLRACE_POSTGRES": self.postgres,
            "MILLRACE_NAMESPACE": self.namespace,
            "MILLRACE_STATE_DIR": str(self.folder / "state" / replica),
            "MILLRACE_INSTANCE": replica,
            "MILLRACE_KEY_PEPPER": self.pepper,
            "MILLRACE_KEY_RING": self.key_ring,
            "MILLRACE_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
            **self.extra_env,
            **(more or {}),
        }

    def tool(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end. Raises with its output when it fails."""
        done = subprocess.run(
            [*self.python, "-m", "millrace_cli", *arguments],
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(
                f"millrace {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def prepare(self, *, partitions: int = 4) -> None:
        """Topics and tables."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tool("topics", "--partitions", str(partitions))
        self.tool("migrate")

    def new_key(self, account: str) -> str:
        """A key with every scope and no practical limit; the account is made where there is none of that name."""
        return self.tool("keys", "create", "--account", account, "--plan", "enterprise").stdout.split()[-1]

    def start(self, name: str, *, replica: str | None = None, env: Mapping[str, str] | None = None) -> Running:
        """Start a service (or a further replica of it) on the ports it had before, if any, and with the environment it
        had before where none is given. Does not wait."""
        replica = replica or name
        env = self._envs.setdefault(replica, {}) if env is None else env
        self._envs[replica] = env
        ops_port, http_port = self._ports.setdefault(
            replica, (free_port(), free_port() if name in HTTP_SERVICES else None)
        )
        more = {"MILLRACE_OPS_PORT": str(ops_port), **env}
        if http_port is not None:
            more["MILLRACE_HTTP_PORT"] = str(http_port)
        log = self.folder / f"{replica}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*self.python, "-m", f"millrace_{name}"],
                env=self.env(replica, more),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[replica] = Running(name, process, ops_port, http_port, log)
        return self.running[replica]

    async def ready(self, names: Sequence[str] | None = None, *, timeout_s: float = 60.0) -> None:
        """Wait until these replicas (all, when None) say that they are ready."""
        deadline = time.monotonic() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            for replica in names or list(self.running):
                while not await self._is_ready(session, replica):
                    running = self.running[replica]
                    if running.process.poll() is not None:
                        raise AssertionError(f"{replica} exited {running.process.returncode}:\n{self.tail(replica)}")
                    if time.monotonic() > deadline:
                        raise AssertionError(f"{replica} not ready after {timeout_s} s:\n{self.tail(replica)}")
                    await asyncio.sleep(0.05)

    async def _is_ready(self, session: aiohttp.ClientSession, replica: str) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.running[replica].ops_port}/readyz") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def kill(self, replica: str) -> None:
        """SIGKILL, and wait for the corpse."""
        running = self.running[replica]
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        self.deaths[replica] = self.deaths.get(replica, 0) + 1

    def end(self, replica: str) -> None:
        """SIGTERM, and wait until it has ended in order."""
        process = self.running[replica].process
        process.terminate()
        process.wait(25)

    def freeze(self, replica: str) -> None:
        """Stop it in its tracks (SIGSTOP), until `thaw`."""
        os.killpg(self.running[replica].process.pid, signal.SIGSTOP)

    def thaw(self, replica: str) -> None:
        """Let a frozen one go on. It does not know that time has passed."""
        os.killpg(self.running[replica].process.pid, signal.SIGCONT)

    def restart(self, replica: str, *, env: Mapping[str, str] | None = None) -> Running:
        """Start what was killed, as its supervisor would."""
        return self.start(self.running[replica].name, replica=replica, env=env)

    def tail(self, replica: str, lines: int = 30) -> str:
        """The last lines of its log."""
        return "\n".join(self.running[replica].log.read_text(errors="replace").splitlines()[-lines:])

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop all when the block is left, and show the ends of their logs when it failed."""
        try:
            yield
        except BaseException:
            for replica in self.running:
                print(f"── {replica}\n{self.tail(replica, 15)}")
            raise
        finally:
            self.stop()

    def url(self, replica: str) -> str:
        """Where its HTTP surface listens."""
        return f"http://127.0.0.1:{self.running[replica].http_port}"

    def stop(self) -> None:
        """Ask all to end (SIGTERM), then end them. Safe to repeat."""
        for running in self.running.values():
            if running.process.poll() is None:
                os.killpg(running.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 25
        for running in self.running.values():
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()
