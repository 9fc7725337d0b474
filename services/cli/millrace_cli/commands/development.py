"""On one's own machine: `dev`, `demo`, and the demo account that `dev` needs."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from millrace_cli.commands.services import become

PANEL = "On this machine"


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(dev)
    app.command(rich_help_panel=PANEL)(demo)
    app.command("dev-account", hidden=True)(dev_account)


def dev() -> None:
    """Run Kafka, Postgres, every service and a demo account; Ctrl-C stops them."""
    become("millrace_devstack", "dev")


def demo(
    events: Annotated[int, typer.Option(min=60, max=100_000, help="How many events to send.")] = 400,
) -> None:
    """Send real input through a running `millrace dev` and show what happened."""
    from millrace_cli.demo import run

    raise typer.Exit(asyncio.run(run(events)))


def dev_account(
    keys_file: Annotated[Path, typer.Option(help="JSON as `keys` in .millrace/dev.json.", exists=True, dir_okay=False)],
) -> None:
    """See to it that the demo account has the keys of this file."""
    import orjson

    from millrace_cli import bootstrap
    from millrace_core.errors import Reject

    try:
        keys = orjson.loads(keys_file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise Reject(f"{keys_file} is not JSON: {error}") from None
    missing = asyncio.run(bootstrap.ensure_demo(bootstrap.seals(), keys))
    typer.echo(f"account {bootstrap.DEMO_ACCOUNT}: {missing} keys were missing")
