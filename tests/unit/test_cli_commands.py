"""The command line from outside: what it offers, and how it fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from millrace_cli.__main__ import app
from millrace_cli.commands.services import SERVICES
from millrace_cli.demo import Line

COMMANDS = {
    "accounts",
    "dev", "demo", "send", "tail", "events", "runs", "deliveries", "trace", "replay", "backtest", "keys", "verify",
    "rebuild", "topics", "migrate", "control", "dev-account", "retention", *SERVICES,
}  # fmt: skip


def millrace(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millrace_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **env},
    )


def test_every_command_is_there() -> None:
    import typer.main

    command = typer.main.get_command(app)
    assert set(command.commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["events"], {"MILLRACE_DEV_HOME": "/nowhere"}, "make dev"),
        (["events"], {"MILLRACE_URL": "http://127.0.0.1:1"}, "both MILLRACE_URL and MILLRACE_KEY"),
        (["events"], {"MILLRACE_URL": "http://127.0.0.1:1", "MILLRACE_KEY": "k"}, "is it running?"),
        (["trace", "job_1"], {}, "no id of an event, a run or a delivery"),
        (["send", "github/push"], {}, "not an event identifier"),
        (["send", "e:a/b", "{"], {}, "not JSON"),
        (["replay", "--since", "2026-01-01T00:00:00Z", "--filter", "{"], {}, "not JSON"),
        (["backtest", "sub_1", "--filter", "{"], {}, "not JSON"),
        (
            ["backtest", "--pattern", "e:a/*", "--target", "exec_1"],
            {},
            "no id of a job, a chain, a workflow or a webhook",
        ),
        (["migrate"], {}, "MILLRACE_POSTGRES"),
        (["keys", "list", "--account", "x"], {"MILLRACE_POSTGRES": "postgres://127.0.0.1:1/x"}, "Postgres is away"),
        (["demo"], {"MILLRACE_DEV_HOME": "/nowhere"}, "make dev"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_one_line_with_the_fix(arguments: list[str], env: dict[str, str], says: str) -> None:
    done = millrace(*arguments, **env)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.startswith("millrace: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_keys_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"ingest": "x"}')
    done = millrace(
        "dev-account", "--keys-file", str(keys), MILLRACE_POSTGRES="postgres://127.0.0.1:1/x",
        MILLRACE_KEY_PEPPER="p" * 32, MILLRACE_KEY_RING="k:" + "A" * 43 + "=",
    )  # fmt: skip
    assert done.returncode == 1
    assert "postgres" in done.stderr.lower() or "ops" in done.stderr


@pytest.mark.parametrize(
    ("expected", "found", "tolerance", "holds"),
    [(400, 400, 0, True), (400, 399, 0, False), (400, 396, 0.01, True), (400, 395, 0.01, False), (0, 1, 0.01, False)],
)
def test_the_demo_is_strict_but_where_it_says_otherwise(
    expected: int, found: float, tolerance: float, holds: bool
) -> None:
    assert Line("x", expected, found, tolerance).holds is holds
