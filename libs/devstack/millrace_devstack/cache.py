"""The jars of the local Kafka: fetched once over HTTPS, held to the SHA-256 of the lock file, shared by dev and tests.

Guarantee: what is returned has the locked hash, checked at every start. A file appears in the cache by an atomic
rename after its hash was right; several processes may fetch at once. A damaged file is refused and named, never
replaced silently. Not here: where the lock file comes from (it says so itself).
"""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millrace_devstack.errors import StackError

CENTRAL = "https://repo1.maven.org/maven2"
LOCK = Path(__file__).with_name("kafka.lock")
FETCH_TIMEOUT_S = 60.0
FETCH_TRIES = 3
FETCHES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> str:
        """Where a Maven repository keeps it, and where the cache does."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.artifact}-{self.version}.jar"


def cache_root() -> Path:
    """$MILLRACE_CACHE, else $XDG_CACHE_HOME/millrace, else ~/.cache/millrace."""
    if own := os.environ.get("MILLRACE_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "millrace"


def locked_jars(lock: Path = LOCK) -> list[Jar]:
    """The jars in class path order."""
    lines = (line.strip() for line in lock.read_text().splitlines())
    jars = []
    for line in lines:
        if line and not line.startswith("#"):
            coordinates, sha256 = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256.removeprefix("sha256:")))
    return jars


def ensure_jars(root: Path | None = None, *, jars: list[Jar] | None = None) -> list[Path]:
    """Every jar's path, fetched where missing. Blocks: up to minutes the first time, some 50 ms after that.

    Raises StackError with the fix when a download fails, the disk is full or a cached file is damaged.
    """
    folder = (root if root is not None else cache_root()) / "maven"
    wanted = locked_jars() if jars is None else jars
    if any(not (folder / jar.path).exists() for jar in wanted):
        with _exclusive(folder):
            missing = [jar for jar in wanted if not (folder / jar.path).exists()]
            with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
                list(pool.map(lambda jar: _fetch(jar, folder), missing))
    for jar in wanted:
        _check(folder / jar.path, jar)
    return [folder / jar.path for jar in wanted]


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise unwritable(folder, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check(path: Path, jar: Jar) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise StackError(
            f"the cached file {path} is damaged: its SHA-256 is {found}, that of {jar.artifact} {jar.version} is "
            f"{jar.sha256}. Delete it and run this again to fetch it anew:  rm {path}"
        )


def _fetch(jar: Jar, folder: Path) -> None:
    base = os.environ.get("MILLRACE_MAVEN", CENTRAL).rstrip("/")
    url = f"{base}/{jar.path}"
    target = folder / jar.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_file(target) as part:
            found = _download(url, part)
            if found != jar.sha256:
                raise StackError(
                    f"{url} is not the file this release was made with: SHA-256 {found}, expected {jar.sha256}. "
                    "Nothing was kept. A proxy may have answered in its place: open the address in a browser, or set "
                    "MILLRACE_MAVEN to a repository that has the real file."
                )
            part.chmod(0o644)
            part.replace(target)
    except urllib.error.URLError as error:
        raise StackError(
            f"could not fetch {url}: {error.reason}. Check the network or proxy (HTTPS_PROXY), or name another Maven "
            f"repository in MILLRACE_MAVEN. What was fetched already is kept in {folder}."
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error


@contextmanager
def _part_file(target: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, part: Path) -> str:
    for attempt in range(1, FETCH_TRIES + 1):
        try:
            with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            return hashlib.sha256(part.read_bytes()).hexdigest()
        except (urllib.error.HTTPError, TimeoutError, ConnectionError) as error:
            permanent = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if permanent or attempt == FETCH_TRIES:
                raise urllib.error.URLError(str(error)) from error
    raise AssertionError("the last try raises")


def unwritable(folder: Path, error: OSError) -> StackError:
    """What to tell a user whose cache cannot be written."""
    if error.errno == errno.ENOSPC:
        return StackError(
            f"the disk of the cache {folder} is full. Free some space (the cache needs 60 MB), or set MILLRACE_CACHE "
            "to a folder on another disk."
        )
    return StackError(f"the cache {folder} cannot be written ({error}). Set MILLRACE_CACHE to a folder you own.")
