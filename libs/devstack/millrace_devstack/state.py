"""What `make dev` keeps in `.millrace`: who runs it, which ports, which secrets, and `dev.json` for everyone else.

One runner at a time, held by a file lock that the kernel drops with its owner, so a crash leaves nothing stale.
Files appear by atomic renames; those with secrets are readable by their owner alone.
"""

import base64
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace_devstack import ports
from millrace_devstack.errors import StackError

FRONT_PORT = 8080
OWNER_ONLY = 0o600


Keys = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once, kept until `make clean`, so that keys and stored secrets go on working."""

    pepper: str
    key_ring: str
    keys: Keys


class Home:
    """The folder and the names in it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.dev_json = self.path / "dev.json"
        self.secrets_json = self.path / "secrets.json"
        self.keys_json = self.path / "keys.json"
        self._ports_json = self.path / "ports.json"
        self._lock = self.path / "dev.lock"

    def log(self, name: str) -> Path:
        """Where a service's or a command's output goes."""
        return self.path / "logs" / f"{name}.log"

    def state(self, service: str) -> Path:
        """A service's own folder."""
        return self.path / "state" / service

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the one runner here. Raises StackError that names the other."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(self._running_already()) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self.dev_json.unlink(missing_ok=True)
            try:
                yield
            finally:
                self.dev_json.unlink(missing_ok=True)

    def require_stopped(self) -> None:
        """Raises StackError when a runner is at work here."""
        if self._lock.exists():
            with self._lock.open("a+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StackError(self._running_already()) from None

    def _running_already(self) -> str:
        pid = self._lock.read_text().strip() or "unknown"
        try:
            where = f"at {json.loads(self.dev_json.read_text())['base_url']}"
        except (OSError, ValueError, KeyError):
            where = "and still starting"
        return f"`make dev` is running already (pid {pid}), {where}. Stop that one first: Ctrl-C there, or kill {pid}"

    def secrets(self) -> Secrets:
        """The kept ones, made when there are none."""
        try:
            kept = json.loads(self.secrets_json.read_text())
            made = Secrets(kept["pepper"], kept["key_ring"], kept["keys"])
        except FileNotFoundError:
            made = _new_secrets()
        except (ValueError, KeyError) as error:
            raise StackError(
                f"{self.secrets_json} is damaged ({error}). Restore it, or run `make clean` to begin with an empty "
                "platform: what is stored was sealed with the secrets in it."
            ) from None
        write_json(self.secrets_json, {"pepper": made.pepper, "key_ring": made.key_ring, "keys": made.keys})
        write_json(self.keys_json, made.keys)
        return made

    def choose_ports(self, names: Sequence[str], *, front: int | None) -> dict[str, int]:
        """A port for each name and for `front`: the one it had before where that is free. A port the caller asks for
        must be free."""
        kept = self._kept_ports()
        if front is not None:
            ports.require_free(
                front, what="Millrace", fix="Stop that process, or choose another: MILLRACE_DEV_PORT=… make dev"
            )
        chosen: dict[str, int] = {"front": front or _first_free((kept.get("front"), FRONT_PORT), taken=())}
        for name in names:
            chosen[name] = _first_free((kept.get(name),), taken=tuple(chosen.values()))
        write_json(self._ports_json, chosen)
        return chosen

    def _kept_ports(self) -> dict[str, int]:
        try:
            kept = json.loads(self._ports_json.read_text())
            return {str(name): int(port) for name, port in kept.items()}
        except (OSError, ValueError, AttributeError):
            return {}


def write_json(path: Path, content: Any) -> None:
    """Write it whole or not at all, for the owner's eyes."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    part = Path(file.name)
    part.chmod(OWNER_ONLY)
    part.replace(path)


def _first_free(wanted: Sequence[int | None], *, taken: Sequence[int]) -> int:
    for port in wanted:
        if port is not None and port not in taken and ports.is_free(port):
            return port
    while True:
        found = ports.free_port()
        if found not in taken:
            return found


def _new_secrets() -> Secrets:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return Secrets(
        pepper=secrets.token_hex(32),
        key_ring=f"dev1:{key}",
        keys={
            "ingest": _api_key("mr_live_"),
            "ops": {"public": _api_key("ok_live_"), "secret": _api_key("os_live_")},
            "intake": _api_key("iozen_live_"),
            "agents": _api_key("th_live_"),
            "agents_test": _api_key("th_test_"),
            "automation": _api_key("mr_live_"),
        },
    )


def _api_key(prefix: str) -> str:
    return prefix + secrets.token_urlsafe(32)
