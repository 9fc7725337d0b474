"""Keeping a deployment in order: topics, tables, keys, the control topic, rebuild, verify."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from millrace_cli.commands.services import become

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
PANEL = "Operations"
keys = typer.Typer(help="API keys, straight in Postgres: for the first key of an account.", no_args_is_help=True)
accounts = typer.Typer(help="Accounts, straight in Postgres.", no_args_is_help=True)
control = typer.Typer(help="The control topic.", no_args_is_help=True)

Account = Annotated[str, typer.Option("--account", "-a", help="The account's name.")]


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(topics)
    app.command(rich_help_panel=PANEL)(migrate)
    app.command(rich_help_panel=PANEL)(verify)
    app.command(rich_help_panel=PANEL)(rebuild)
    app.command(rich_help_panel=PANEL)(retention)
    app.add_typer(accounts, name="accounts", rich_help_panel=PANEL)
    app.add_typer(keys, name="keys", rich_help_panel=PANEL)
    app.add_typer(control, name="control", rich_help_panel=PANEL)


def topics(
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of every topic that has more than one.")] = 3,
    replication: Annotated[int | None, typer.Option(min=1, max=15, help="3 where there are 3 brokers, else 1.")] = None,
) -> None:
    """Create the topics that are missing, and the first position of every consumer group. Safe to repeat."""
    from millrace_cli.settings import LogSettings
    from millrace_kafka.admin import create_topics
    from millrace_kafka.client import Cluster
    from millrace_runtime.settings import read

    settings = read(LogSettings)
    cluster = Cluster(settings.kafka, settings.namespace, "millrace-cli", settings.security)
    created = asyncio.run(create_topics(cluster, partitions=partitions, replication=replication))
    typer.echo(f"created {', '.join(created)}" if created else "every topic is there")


def migrate() -> None:
    """Apply the migrations that the database does not have. Safe to repeat."""
    from millrace_store.migrations import migrate as apply

    applied = asyncio.run(apply(_dsn()))
    typer.echo(f"applied {', '.join(applied)}" if applied else "nothing to apply")


def verify(
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=TIMES, help="Judge what began then or later.")
    ] = None,
    to: Annotated[datetime | None, typer.Option(formats=TIMES, help="Judge what began before that, UTC.")] = None,
    account: Annotated[str | None, typer.Option(help="Judge this account alone: acc_…")] = None,
    receipts: Annotated[
        bool, typer.Option("--receipts", help="Make the receipts' roots of days again, and compare.")
    ] = False,
) -> None:
    """Prove from the log that nothing is unaccounted for, or that the receipts are what the facts give."""
    if receipts:
        given = {"--account": account, "--from-ms": _ms(from_), "--to-ms": _ms(to)}
        named = [f"{name}={value}" for name, value in given.items() if value is not None]
        become("millrace_projector", "verify-receipts", *named)
    from millrace_cli.accounting import Span
    from millrace_cli.verify import run

    raise typer.Exit(run(typer.echo, account=account, span=Span(_ms(from_), _ms(to))))


def _ms(at: datetime | None) -> int | None:
    """A moment without a zone is UTC."""
    if at is None:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def rebuild() -> None:
    """Build the read models anew from the log, beside those in use, and swap."""
    become("millrace_projector", "rebuild")


def retention(
    account: Account,
    days: Annotated[int | None, typer.Option(help="From now on; what is older is hidden at once.")] = None,
) -> None:
    """Show or set for how many days an account's events, runs, deliveries and dead letters are kept."""
    from millrace_cli import bootstrap
    from millrace_cli.settings import KeepSettings
    from millrace_runtime.settings import read

    settings = read(KeepSettings)
    dsn, most = settings.postgres.get_secret_value(), settings.retention_days_max
    typer.echo(asyncio.run(bootstrap.keep(dsn, account=account, days=days, most=most)))


@control.command()
def republish() -> None:
    """Have the relay publish the newest version of everything in force again, from Postgres."""
    from millrace_cli.republishing import republish as again

    count = asyncio.run(again(_dsn()))
    typer.echo(f"{count} entries are on the control topic again")


@accounts.command("create")
def create_account(
    name: Annotated[str, typer.Argument(help="What it is called: no other account may be.")],
    email: Annotated[str, typer.Option(help="Its owner's address.")],
    plan: Annotated[str, typer.Option(help="free, starter, pro, business, cloud, team or enterprise.")] = "free",
) -> None:
    """Make an account with its owner and his first key, which is shown this once."""
    from millrace_cli import bootstrap

    made = asyncio.run(bootstrap.create_account(bootstrap.seals(), name=name, email=email, plan=plan))
    typer.echo(f"{made.id} of account {name}. Shown once:")
    typer.echo(made.key)


@keys.command("create")
def create_key(
    account: Account,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "made by the command line",
    scope: Annotated[list[str] | None, typer.Option(help="May be repeated; all scopes where none is given.")] = None,
    surface: Annotated[str, typer.Option(help="ingest, automation, intake, agents or ops.")] = "automation",
    test: Annotated[bool, typer.Option("--test", help="A test key (agents only).")] = False,
    plan: Annotated[str, typer.Option(help="Of the account, where it is made now.")] = "free",
) -> None:
    """Make a key, and its account where there is none. The key is shown this once."""
    from millrace_cli import bootstrap

    wanted = bootstrap.Wanted(name=name, surface=surface, scopes=tuple(scope or ["*"]), test=test)
    made = asyncio.run(bootstrap.create_key(bootstrap.seals(), account=account, plan=plan, wanted=wanted))
    typer.echo(f"{made.id} of account {account}. Shown once:")
    typer.echo(made.key)
    if made.secret is not None:
        typer.echo(made.secret)


@keys.command("list")
def list_keys(account: Account) -> None:
    """Every key of an account, by what may be shown of it."""
    from millrace_cli import bootstrap

    for row in asyncio.run(bootstrap.list_keys(_dsn(), account=account)):
        typer.echo(row)


@keys.command("revoke")
def revoke_key(account: Account, id: Annotated[str, typer.Argument(help="key_…")]) -> None:
    """End a key for ever."""
    from millrace_cli import bootstrap

    asyncio.run(bootstrap.revoke_key(_dsn(), account=account, id=id))
    typer.echo(f"{id} is revoked; gateways follow within a second of the API's relay running")


def _dsn() -> str:
    from millrace_cli.settings import DatabaseSettings
    from millrace_runtime.settings import read

    return read(DatabaseSettings).postgres.get_secret_value()
