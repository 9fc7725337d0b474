"""The API's composition: Postgres, control view, relay, producer, what waits for the read models, HTTP server."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version

from millrace_api import http
from millrace_api.application.api import Api
from millrace_api.application.arrivals import TOPICS, Arrivals, Offsets
from millrace_api.application.backtests import Backtests
from millrace_api.application.calling import Outside
from millrace_api.application.cards import Cards
from millrace_api.application.changes import Changes
from millrace_api.application.connecting import Connecting
from millrace_api.application.database import Database
from millrace_api.application.keys import KeyMaker
from millrace_api.application.nonces import SpentNonces
from millrace_api.application.telling import Telling
from millrace_api.backlog_watch import BacklogWatch
from millrace_api.connectors.processes import Connectors
from millrace_api.connectors.remote import RemoteConnectors
from millrace_api.judging import EndpointJudge
from millrace_api.key_uses import KeyUses
from millrace_api.publishing import RelayWriter
from millrace_api.replaying import Replaying
from millrace_api.retirement import SecretRetirement
from millrace_api.rewording import rewording_of
from millrace_api.settings import ApiSettings
from millrace_core.credentials import parse_pepper
from millrace_core.egress import networks
from millrace_core.keyring import KeyRing
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.feed import Part
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader
from millrace_runtime import metric_defs
from millrace_runtime.egress import Egress
from millrace_runtime.http_server import HttpServer
from millrace_runtime.metrics import HttpMetrics, Metrics
from millrace_runtime.service import Context, Worker
from millrace_store import queries
from millrace_store.pool import open_pool
from millrace_store.relay import Relay
from millrace_web.api_keys import Accounts, ApiKeys
from millrace_web.authentication import Authenticator
from millrace_web.caller_rates import CallerRates
from millrace_web.cors import Cors, parse_origins
from millrace_web.entrance import Entrance
from millrace_web.paging import Cursors
from millrace_web.rate_limits import RateLimits
from millrace_web.signed_requests import Signatures
from millrace_web.sliding_windows import OwnWindows, Windows

_SQL = queries.load("api/positions")
SIGN_UPS_SHARE = 1 / 12
"""Of the smallest plan: 5 a minute and 83 a day."""


async def wire(settings: ApiSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. The end comes in the order: no new requests, in-flight ones answered, clients closed."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-api-{settings.instance}", settings.security)
    dsn = settings.postgres.get_secret_value()
    pepper = parse_pepper(settings.key_pepper.get_secret_value())
    ring = KeyRing.parse(settings.key_ring.get_secret_value())
    keys, accounts = ApiKeys(pepper=pepper, clock=context.clock), Accounts()
    view = ControlView(
        cluster, followers={"key": keys, "account": accounts}, clock=context.clock, observer=context.observer
    )
    producer = PlainProducer(cluster, observer=context.observer)
    published = context.metrics.counter(metric_defs.RELAY_ENTRIES)
    relay = Relay(dsn, writer=lambda: RelayWriter(ControlWriter(cluster), published=published.inc))
    pool = await context.stack.enter_async_context(open_pool(dsn, name="millrace api"))
    database = Database(pool)
    ends = EndsReader(cluster)
    arrivals = Arrivals(ends=ends.read, reached=reached(database))
    allow = networks(settings.egress_allow)
    door = Egress(allow=allow)
    context.stack.push_async_callback(door.close)
    connectors = Connectors(settings.connectors_dir)
    maker = KeyMaker(pepper, ring)
    api = Api(
        database=database,
        changes=Changes(database, view, context.clock),
        arrivals=arrivals,
        backtests=Backtests(database.patient, context.clock),
        log=producer,
        telling=Telling(database, events=producer, clock=context.clock, log=context.log),
        cards=Cards(database, records=producer, maker=maker, clock=context.clock, log=context.log),
        keys=maker,
        clock=context.clock,
        retention_days_max=settings.retention_days_max,
        sign_ups=RateLimits(context.clock, share=SIGN_UPS_SHARE) if settings.sign_up else None,
        outside=Outside(door, context.clock),
        connecting=Connecting(
            connectors,
            RemoteConnectors(door, context.clock, allow=allow),
            ConnectorCalls(context.metrics),
        ),
        egress=allow,
        rewording=rewording_of(settings.model, settings.model_key.get_secret_value(), context.log),
    )
    replaying = Replaying(
        dsn,
        events=producer,
        caught_up=arrivals.caught_up,
        written=context.metrics.counter(metric_defs.REPLAY_EVENTS).inc,
        clock=context.clock,
        log=context.log,
    )
    judge = EndpointJudge(database.patient, api.changes, events=producer, clock=context.clock, log=context.log)
    windows, uses = counting(settings, context), KeyUses(database.patient, context.clock)
    app = http.application(
        api,
        authenticator=Authenticator(keys, accounts, signatures=Signatures(ring, context.clock), stale=view.ready),
        cursors=Cursors(pepper),
        open_rate=RateLimits(context.clock),
        version=version("millrace-api"),
        entrance=Entrance(
            CallerRates(windows, context.clock, uncounted=context.metrics.counter(metric_defs.RATE_UNCOUNTED).inc),
            SpentNonces(database, context.clock),
            used=uses.note,
        ),
    )
    server = HttpServer(
        Cors(http.layered(app, observer=HttpMetrics(context.metrics)), parse_origins(settings.cors_origins)),
        host=settings.http_host,
        port=settings.http_port,
    )
    # What follows may fail for want of Kafka, and then all of this is built again.
    context.stack.callback(server.close)
    context.log.info("api.bound", host=settings.http_host, port=server.port)

    context.stack.push_async_callback(ends.stop)
    context.stack.push_async_callback(view.stop)
    context.stack.push_async_callback(producer.stop)
    await view.start()
    await producer.start()

    context.health.add("http", server.ready)
    context.health.add("log", producer.ready)
    context.health.add("control", view.ready)
    context.health.add("relay", relay.ready)
    context.health.add("replays", replaying.ready)
    connections = metric_defs.POSTGRES_CONNECTIONS
    context.metrics.watch(connections, lambda: pool.get_size() - pool.get_idle_size(), "used")
    context.metrics.watch(connections, pool.get_idle_size, "idle")
    context.metrics.watch(metric_defs.CONTROL_AGE_SECONDS, view.fresh_age_s)
    context.metrics.watch(metric_defs.CONTROL_POSITION, lambda: view.position)
    context.metrics.watch(metric_defs.CONTROL_ENTRIES, lambda: len(keys), "key")
    return served_first(
        server.run,
        control=view.run,
        relay=relay.run,
        changes=api.changes.run,
        arrivals=arrivals.run,
        backlog=BacklogWatch(database.patient, context.metrics, clock=context.clock).run,
        retirement=SecretRetirement(api.changes, context.log).run,
        replaying=replaying.run,
        judge=judge.run,
        telling=api.telling.run,
        cards=api.cards.run,
        key_uses=uses.run,
        connectors=connectors.run,
    )


def counting(settings: ApiSettings, context: Context) -> Windows:
    """Where requests are counted: together with the other replicas, or in this process alone."""
    url = settings.limits.get_secret_value()
    if not url:
        return OwnWindows(context.clock)
    # Its client takes 6 MB, which who counts alone need not have.
    from millrace_api.shared_windows import SharedWindows

    shared = SharedWindows(url, context.clock)
    context.stack.push_async_callback(shared.stop)
    return shared


def served_first(serve: Worker, **behind: Worker) -> Mapping[str, Worker]:
    """Workers of which those behind the server are told to stop when its last request is answered: a change that was
    made still gets into force, and its caller hears so."""
    drained = asyncio.Event()

    async def http(stop: asyncio.Event) -> None:
        try:
            await serve(stop)
        finally:
            drained.set()

    def later(worker: Worker) -> Worker:
        return lambda _: worker(drained)

    return {"http": http} | {name: later(worker) for name, worker in behind.items()}


class ConnectorCalls:
    """Calls of connectors, as a metric."""

    def __init__(self, metrics: Metrics) -> None:
        self._calls = metrics.counter(metric_defs.CONNECTOR_CALLS)

    def called(self, connector: str, call: str, outcome: str) -> None:
        self._calls.labels(connector, call, outcome).inc()


class EndsReader:
    """Asks the broker where the topics end, on a connection of its own, made anew after a failure."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._reader: Reader | None = None
        self._parts: list[Part] = []

    async def read(self) -> Offsets:
        """Raises Retry when the broker is away."""
        try:
            if self._reader is None:
                self._reader = Reader(self._cluster)
                await self._reader.start()
                self._parts = await self._reader.partitions(TOPICS)
            return await self._reader.ends(self._parts)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close. Safe to repeat."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.stop()


def reached(database: Database) -> Callable[[], Awaitable[Offsets]]:
    """Which offset of each partition is projected next."""

    async def read() -> Offsets:
        async with database.asking() as connection:
            rows = await connection.fetch(_SQL["positions_of"])
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    return read
