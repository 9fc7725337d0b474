"""Sending events and looking at what became of them, through the HTTP API."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Send and look"
TAIL_EVERY_S = 0.5

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many at most.")]
OneId = Annotated[str | None, typer.Argument(help="Show this one in full.")]


def add_to(app: typer.Typer) -> None:
    for command in (send, tail, events, runs, deliveries, trace, replay, backtest):
        app.command(rich_help_panel=PANEL)(command)


def send(
    identifier: Annotated[str, typer.Argument(help="e:provider/name")],
    properties: Annotated[str, typer.Argument(help="A JSON object, or - to read it from standard input.")] = "{}",
    file: Annotated[Path | None, typer.Option(help="Read the properties from this file.", exists=True)] = None,
    unique_key: Annotated[str | None, typer.Option(help="Events with the same key count once in 24 hours.")] = None,
    ordering_key: Annotated[str | None, typer.Option(help="Events with the same key keep their order.")] = None,
) -> None:
    """Publish one event."""
    from millrace_core.identifiers import parse_identifier

    provider, name = parse_identifier(identifier)
    text = file.read_text() if file is not None else sys.stdin.read() if properties == "-" else properties
    body = _event_body(provider, name, text, unique_key, ordering_key)
    answer = asyncio.run(_call("POST", "/ingest/event/publish", body=body))
    typer.echo(f"{answer['eventId']}  {answer['identifier']}  {answer['receivedAt']}")


def events(
    id: OneId = None,
    identifier: Annotated[str | None, typer.Option(help="Only events of this identifier.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest events, or one with what it started."""
    _show("/v1/events", id, as_json, ("id", "received_at", "identifier", "bytes"), limit=limit, identifier=identifier)


def runs(
    id: OneId = None,
    status: Annotated[str | None, typer.Option(help="Only runs in this status.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest runs, or one with its steps and attempts."""
    columns = ("id", "created_at", "status", "plan_name", "identifier", "error")
    _show("/v1/runs", id, as_json, columns, limit=limit, status=status)


def deliveries(
    id: OneId = None,
    status: Annotated[str | None, typer.Option(help="Only deliveries in this status.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest deliveries, or one with its attempts."""
    columns = ("id", "created_at", "status", "type", "attempts_made", "last_status", "error")
    _show("/v1/deliveries", id, as_json, columns, limit=limit, status=status)


def trace(
    id: Annotated[str, typer.Argument(help="Of an event, a run or a delivery.")], as_json: AsJson = False
) -> None:
    """Everything that happened to one thing, in order, and why it waits if it is not over."""
    told = asyncio.run(_call("GET", f"/v1/{_kind_of(id)}/{id}/trace"))["data"]
    if as_json:
        _print_json(told)
        return
    for line in trace_lines(told):
        typer.echo(line)


def trace_lines(told: Mapping[str, Any]) -> list[str]:
    """A trace for a human: what happened, what it waits for, what is left out, the verdict last."""
    lines = [_line(moment, ("at", "of", "text")) for moment in told["moments"]]
    lines += [f"waits  {wait['of']}  {wait['text']}" for wait in told["waits"]]
    lines += [f"left out  {count} {what}" for what, count in told["left_out"].items() if count]
    return [*lines, f"{told['id']} is over" if told["is_over"] else f"{told['id']} is not over"]


def _kind_of(id: str) -> str:
    from millrace_core import ids
    from millrace_core.errors import Reject

    prefix = id.rpartition("_")[0]
    kinds = {ids.EVENT: "events", ids.DELIVERY: "deliveries"} | dict.fromkeys(ids.RUN_PREFIXES, "runs")
    if prefix not in kinds:
        raise Reject(f"{id!r} is no id of an event, a run or a delivery")
    return kinds[prefix]


def replay(
    id: Annotated[str | None, typer.Argument(help="Show this replay, which was begun before.")] = None,
    since: Annotated[str | None, typer.Option(help="Events received then or later: 2026-01-31T12:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="And before this; now where it is left out.")] = None,
    pattern: Annotated[str, typer.Option(help="e:provider/name, where * may end or replace either half.")] = "e:*/*",
    filter: Annotated[str | None, typer.Option(help="A JSON pattern of the properties.")] = None,
    where: Annotated[str | None, typer.Option(help="A CEL expression over `input` and `event`.")] = None,
    subscription: Annotated[str | None, typer.Option(help="It alone hears them, however old; else all do.")] = None,
    per_s: Annotated[int | None, typer.Option(min=1, help="Events a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the replay that is named.")] = False,
) -> None:
    """Write past events to the log again, or show or cancel a replay."""
    if (id is None) == (since is None) or (cancel and id is None):
        raise typer.BadParameter("give --since for a new replay, or the id of one (with --cancel to end it)")
    if id is not None:
        answer = asyncio.run(_call("POST", f"/v1/replays/{id}/cancel") if cancel else _call("GET", f"/v1/replays/{id}"))
    else:
        wanted = {"since": since, "until": until, "where": where, "subscription": subscription, "per_s": per_s}
        body = _replay_body({**wanted, "pattern": pattern, "dry_run": dry_run}, filter)
        answer = asyncio.run(_call("POST", "/v1/events/replay", body=body))
    _print_json(answer["data"])


def backtest(
    subscription: Annotated[str | None, typer.Argument(help="Try changes of this one; none = a new one.")] = None,
    pattern: Annotated[
        str | None, typer.Option(help="e:provider/name, where * may end or replace either half.")
    ] = None,
    filter: Annotated[str | None, typer.Option(help="A JSON pattern of the properties; null takes it away.")] = None,
    where: Annotated[str | None, typer.Option(help="A CEL expression over `input` and `event`.")] = None,
    target: Annotated[str | None, typer.Option(help="The id of a job, chain or webhook.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Events of the last days; 7 where nothing is said.")] = None,
    since: Annotated[str | None, typer.Option(help="Events received then or later: 2026-01-31T12:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="And before this; now where it is left out.")] = None,
    cursor: Annotated[str | None, typer.Option(help="The `next_cursor` of the call before: go on from there.")] = None,
) -> None:
    """What a new or changed subscription would have matched, started and cost by past events. Sends nothing."""
    if subscription is None and (pattern is None or target is None):
        raise typer.BadParameter("give the id of a subscription, or --pattern and --target for a new one")
    terms = _terms({"pattern": pattern, "where": where, "target": target}, filter)
    span = {"days": days, "since": since, "until": until, "cursor": cursor}
    answer = asyncio.run(_call("POST", "/v1/subscriptions/backtest", body=_backtest_body(subscription, terms, span)))
    _print_json(answer["data"] | {"next_cursor": answer["meta"]["next_cursor"]})


def tail(
    identifier: Annotated[str | None, typer.Option(help="Only events of this identifier.")] = None,
) -> None:
    """Print events as they come in, until Ctrl-C."""
    asyncio.run(_tail(identifier))


async def _tail(identifier: str | None) -> None:
    from millrace_cli.client import connect, target

    seen: set[str] = set()
    async with connect(target()) as client:
        is_first = True
        while True:
            page = (await client.call("GET", "/v1/events", limit=100, identifier=identifier))["data"]
            fresh = [event for event in page if event["id"] not in seen]
            seen = {event["id"] for event in page}
            for event in [] if is_first else reversed(fresh):
                typer.echo(_line(event, ("id", "received_at", "identifier", "bytes")))
            is_first = False
            await asyncio.sleep(TAIL_EVERY_S)


async def _call(method: str, path: str, *, body: bytes | None = None, **query: Any) -> Any:
    from millrace_cli.client import connect, target

    async with connect(target()) as client:
        return await client.call(method, path, body=body, **query)


def _show(path: str, id: str | None, as_json: bool, columns: tuple[str, ...], **query: Any) -> None:
    if id is not None:
        _print_json(asyncio.run(_call("GET", f"{path}/{id}"))["data"])
        return
    items = asyncio.run(_call("GET", path, **query))["data"]
    if as_json:
        _print_json(items)
        return
    for item in items:
        typer.echo(_line(item, columns))


def _line(item: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    return "  ".join(_cell(item[column]) for column in columns)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return f"{value.get('code')}: {value.get('message')}"
    return str(value)


def _print_json(value: Any) -> None:
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _event_body(provider: str, name: str, properties: str, unique_key: str | None, ordering_key: str | None) -> bytes:
    import orjson

    from millrace_core.errors import Reject

    try:
        orjson.loads(properties)
    except orjson.JSONDecodeError as error:
        raise Reject(f"the properties are not JSON: {error}") from None
    body: dict[str, Any] = {"eventType": {"provider": provider, "name": name}}
    if unique_key is not None:
        body["uniqueKey"] = unique_key
    if ordering_key is not None:
        body["orderingKey"] = ordering_key
    return orjson.dumps(body | {"properties": orjson.Fragment(properties)})


def _replay_body(wanted: Mapping[str, Any], filter: str | None) -> bytes:
    import orjson

    given = {"filter": None if filter is None else _filter(filter), **wanted}
    return orjson.dumps(_given(given))


def _backtest_body(subscription: str | None, terms: Mapping[str, Any], span: Mapping[str, Any]) -> bytes:
    import orjson

    tried = terms if subscription is None else {"subscription": subscription, "changes": terms}
    return orjson.dumps({**tried, **_given(span)})


def _terms(wanted: Mapping[str, Any], filter: str | None) -> dict[str, Any]:
    """The members of a subscription that were given; a filter may be null."""
    terms = _given(wanted)
    if "target" in terms:
        terms["target"] = _target(terms["target"])
    return terms if filter is None else {**terms, "filter": _filter(filter)}


def _target(id: str) -> dict[str, str]:
    from millrace_core import ids
    from millrace_core.errors import Reject

    types = {ids.JOB: "job", ids.CHAIN: "chain", ids.WORKFLOW: "workflow", ids.ENDPOINT: "webhook"}
    prefix = id.rpartition("_")[0]
    if prefix not in types:
        raise Reject(f"{id!r} is no id of a job, a chain, a workflow or a webhook")
    return {"type": types[prefix], "id": id}


def _filter(text: str) -> Any:
    import orjson

    from millrace_core.errors import Reject

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Reject(f"the filter is not JSON: {error}") from None


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
