"""The jar cache: what is kept has the locked hash, every failure names its fix. A local server plays the registry."""

import errno
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from millrace_devstack import cache
from millrace_devstack.cache import Jar
from millrace_devstack.errors import StackError

CONTENT = b"the bytes of a jar"
JAR = Jar("org.example", "thing", "1.2", hashlib.sha256(CONTENT).hexdigest())


class Registry:
    """A Maven repository of one file."""

    def __init__(self) -> None:
        self.files = {f"/{JAR.path}": CONTENT}
        self.asked: Counter[str] = Counter()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked[self.path] += 1
                content = registry.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.send_header("content-length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    registry = Registry()
    monkeypatch.setenv("MILLRACE_MAVEN", registry.url)
    yield registry
    registry.stop()


def test_the_lock_file_names_each_jar_once_with_a_whole_hash() -> None:
    jars = cache.locked_jars()
    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars) == 46
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)
    versions = {jar.artifact: jar.version for jar in jars if jar.group == "org.apache.kafka"}
    assert set(versions.values()) == {"4.2.2"}
    assert {"kafka_2.13", "kafka-clients", "kafka-metadata"} <= set(versions)


def test_a_fetched_jar_serves_from_then_on_without_the_registry(registry: Registry, tmp_path: Path) -> None:
    (path,) = cache.ensure_jars(tmp_path, jars=[JAR])
    assert path.read_bytes() == CONTENT
    registry.files.clear()
    assert cache.ensure_jars(tmp_path, jars=[JAR]) == [path]
    assert registry.asked[f"/{JAR.path}"] == 1


def test_several_at_once_fetch_a_jar_once(registry: Registry, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: cache.ensure_jars(tmp_path, jars=[JAR]), range(4)))
    assert len({path for (path,) in paths}) == 1
    assert registry.asked[f"/{JAR.path}"] == 1


def test_a_damaged_file_is_refused_and_named_with_the_way_to_mend_it(registry: Registry, tmp_path: Path) -> None:
    (path,) = cache.ensure_jars(tmp_path, jars=[JAR])
    path.write_bytes(b"damaged")
    with pytest.raises(StackError) as refused:
        cache.ensure_jars(tmp_path, jars=[JAR])
    assert f"rm {path}" in str(refused.value)
    assert JAR.sha256 in str(refused.value)
    path.unlink()
    assert cache.ensure_jars(tmp_path, jars=[JAR]) == [path]


def test_a_registry_that_answers_with_another_file_is_refused_and_nothing_is_kept(
    registry: Registry, tmp_path: Path
) -> None:
    registry.files[f"/{JAR.path}"] = b"<html>please sign in</html>"
    with pytest.raises(StackError, match="is not the file this release was made with"):
        cache.ensure_jars(tmp_path, jars=[JAR])
    assert not list(tmp_path.rglob("*.jar*"))


@pytest.mark.usefixtures("registry")
def test_a_file_the_registry_does_not_have_names_the_address_and_the_setting(tmp_path: Path) -> None:
    absent = Jar("org.example", "absent", "9", "0" * 64)
    with pytest.raises(StackError, match=r"org/example/absent/9/absent-9\.jar: .*404.*MILLRACE_MAVEN"):
        cache.ensure_jars(tmp_path, jars=[absent])


def test_no_registry_at_all_says_what_to_check(registry: Registry, tmp_path: Path) -> None:
    registry.stop()
    with pytest.raises(StackError, match="Check the network or proxy"):
        cache.ensure_jars(tmp_path, jars=[JAR])


@pytest.mark.usefixtures("registry")
def test_a_cache_that_cannot_be_written_names_the_setting_that_moves_it(tmp_path: Path) -> None:
    (tmp_path / "maven").write_text("a file where the folder should be")
    with pytest.raises(StackError, match="Set MILLRACE_CACHE to a folder you own"):
        cache.ensure_jars(tmp_path, jars=[JAR])


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    error = cache.unwritable(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert "the disk of the cache" in str(error)
    assert "is full" in str(error)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MILLRACE_CACHE": "/own"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/millrace"),
        ({"HOME": "/home/me"}, "/home/me/.cache/millrace"),
    ],
    ids=["own variable", "XDG", "home"],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("MILLRACE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_root() == Path(expected)
