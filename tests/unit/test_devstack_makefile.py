"""What a newcomer reads when the machine lacks something. The bootstrap itself is what every run of CI does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
NAMED = [
    "help",
    "dev",
    "demo",
    "test",
    "unit",
    "fault",
    "bench",
    "bench-quick",
    "lint",
    "types",
    "arch",
    "check",
    "clean",
    "helm-check",
]


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(MAKEFILE, folder)
    # As typed by hand: `make test` runs this inside another make, whose settings it would take over.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def _python(folder: Path, script: str) -> str:
    fake = folder / "fake-python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    return f"PYTHON={fake}"


def test_help_lists_every_target(tmp_path: Path) -> None:
    lines = _make(tmp_path).stdout.splitlines()
    assert {line.split()[1] for line in lines} == set(NAMED)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (None, "no-such-python is missing: install Python 3.11 or newer"),
        ('case "$*" in --version) echo Python 3.9.2;; *version_info*) exit 1;; esac', "needs Python 3.11 or newer"),
        ('case "$*" in *ensurepip) exit 1;; *print*) echo 3.12;; esac', "install the package python3.12-venv"),
    ],
    ids=["no Python", "an old Python", "no ensurepip"],
)
def test_what_is_missing_is_named_with_the_fix(tmp_path: Path, script: str | None, told: str) -> None:
    python = "PYTHON=no-such-python" if script is None else _python(tmp_path, script)
    done = _make(tmp_path, python, ".venv/bin/uv")
    assert done.returncode != 0
    assert told in done.stdout


def test_clean_works_before_anything_was_installed(tmp_path: Path) -> None:
    (tmp_path / ".millrace").mkdir()
    assert _make(tmp_path, "clean").returncode == 0
    assert not (tmp_path / ".millrace").exists()
