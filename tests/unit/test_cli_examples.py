"""The demo's input: held to its hash, kept in the cache, refused when damaged."""

import base64
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from millrace_cli import examples
from millrace_core.errors import Fatal, Retry


def tarball() -> bytes:
    index = orjson.dumps([{"name": "push", "examples": [{"a": 1}, {"a": 2}]}, {"name": "star", "examples": [{"b": 1}]}])
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        info = tarfile.TarInfo(examples.MEMBER)
        info.size = len(index)
        archive.addfile(info, io.BytesIO(index))
    return gzip.compress(raw.getvalue())


CONTENT = tarball()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """An npm registry; the first element is what it answers with."""
    content = [CONTENT]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(content[0])))
            self.end_headers()
            self.wfile.write(content[0])

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("MILLRACE_NPM", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(
            examples, "INTEGRITY", "sha512-" + base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()
        )
        yield content
        server.shutdown()
        thread.join()


def test_they_are_fetched_once_and_then_need_no_network(
    registry: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = examples.load(tmp_path)
    assert [(e.name, e.data) for e in first] == [("push", {"a": 1}), ("push", {"a": 2}), ("star", {"b": 1})]
    monkeypatch.setenv("MILLRACE_NPM", "http://127.0.0.1:1")
    assert examples.load(tmp_path) == first


def test_another_file_is_refused_and_not_kept(registry: list[bytes], tmp_path: Path) -> None:
    registry[0] = b"something else"
    with pytest.raises(Fatal, match="not the file"):
        examples.load(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_damaged_cache_is_named(registry: list[bytes], tmp_path: Path) -> None:
    examples.load(tmp_path)
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    kept.write_bytes(b"damaged")
    with pytest.raises(Fatal, match=f"rm {kept}"):
        examples.load(tmp_path)


def test_without_network_the_first_time_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_NPM", "http://127.0.0.1:1")
    with pytest.raises(Retry, match="MILLRACE_NPM"):
        examples.load(tmp_path)
