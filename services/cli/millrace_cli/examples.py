"""GitHub's own example payloads, as the npm package `@octokit/webhooks-examples` publishes them.

Fetched once from the npm registry, held to the SHA-512 that the registry signed for this version, and kept in the
cache outside the repository, checked again at each start. Works offline from then on. Not copied into the repository.
"""

import base64
import errno
import hashlib
import io
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from millrace_core.errors import Fatal, Retry
from millrace_devstack.cache import cache_root

REGISTRY = "https://registry.npmjs.org"
TARBALL = "@octokit/webhooks-examples/-/webhooks-examples-7.6.1.tgz"
INTEGRITY = "sha512-De6U3XB6O3DtCa7bKgCMzTHdeopqqZ6SNivMYJnK65ierKL1AnNIA0tkRYCRS7lwGT792d+Ps1WbfHlso6MynQ=="
MEMBER = "package/api.github.com/index.json"
FETCH_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Example:
    """One webhook GitHub has sent: its event name, and its payload as JSON."""

    name: str
    payload: bytes

    @property
    def data(self) -> Any:
        return orjson.loads(self.payload)


def load(root: Path | None = None) -> list[Example]:
    """All examples, in the package's order. Blocks. Raises Retry or Fatal with the fix."""
    with tarfile.open(fileobj=io.BytesIO(_tarball(root or cache_root())), mode="r:gz") as tarball:
        member = tarball.extractfile(MEMBER)
        if member is None:
            raise Fatal(f"{TARBALL} holds no {MEMBER}")
        return list(_examples(orjson.loads(member.read())))


def _examples(webhooks: list[dict[str, Any]]) -> Iterator[Example]:
    for webhook in webhooks:
        for payload in webhook["examples"]:
            yield Example(webhook["name"], orjson.dumps(payload))


def _tarball(root: Path) -> bytes:
    path = root / "npm" / TARBALL
    if not path.exists():
        _keep(path, _fetch())
    content = path.read_bytes()
    if _integrity(content) != INTEGRITY:
        raise Fatal(f"the cached file {path} is damaged. Delete it and run this again to fetch it anew:  rm {path}")
    return content


def _fetch() -> bytes:
    url = f"{os.environ.get('MILLRACE_NPM', REGISTRY).rstrip('/')}/{TARBALL}"
    try:
        with urllib.request.urlopen(url, timeout=FETCH_S_MAX) as answer:  # noqa: S310
            content: bytes = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise Retry(
            f"could not fetch {url}: {error}. Check the network or proxy (HTTPS_PROXY), or name another npm registry "
            "in MILLRACE_NPM. The demo needs it once; after that it works offline."
        ) from None
    if _integrity(content) != INTEGRITY:
        raise Fatal(f"{url} is not the file this release was made with; nothing was kept. A proxy may have answered.")
    return content


def _keep(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part.", delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    except OSError as error:
        what = "its disk is full" if error.errno == errno.ENOSPC else str(error)
        raise Fatal(
            f"the cache {path.parent} cannot be written ({what}). Set MILLRACE_CACHE to another folder."
        ) from None


def _integrity(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
