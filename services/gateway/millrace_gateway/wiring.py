"""The gateway's composition: producer, control view, ingest routes, HTTP server."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import version

from millrace_core.credentials import parse_pepper
from millrace_core.errors import Retry
from millrace_core.keyring import KeyRing
from millrace_core.restart import backoff_s, pause
from millrace_gateway.application import application
from millrace_gateway.bodies import Bodies
from millrace_gateway.door import open_door, stale
from millrace_gateway.http import Ingest
from millrace_gateway.observing import IngestMetrics
from millrace_gateway.settings import GatewaySettings
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.observer import Observer
from millrace_kafka.producer import PlainProducer
from millrace_runtime import metric_defs
from millrace_runtime.http_server import HttpServer
from millrace_runtime.service import Context, Worker
from millrace_web.api_keys import Accounts, ApiKeys
from millrace_web.caller_rates import RateHeaders
from millrace_web.cors import Cors, parse_origins
from millrace_web.rate_limits import RateLimits
from millrace_web.signed_requests import Signatures


async def wire(settings: GatewaySettings, context: Context) -> Mapping[str, Worker]:
    """Build it. The end comes in the order: no new requests, in-flight ones answered, producer and view closed."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-gateway-{settings.instance}", settings.security)
    keys = ApiKeys(pepper=parse_pepper(settings.key_pepper.get_secret_value()), clock=context.clock)
    accounts = Accounts()
    view = ControlView(
        cluster, followers={"key": keys, "account": accounts}, clock=context.clock, observer=context.observer
    )
    producer = PlainProducer(cluster, observer=context.observer)
    door = open_door(
        keys=keys,
        accounts=accounts,
        rates=RateLimits(context.clock, share=1 / settings.gateway_replicas),
        log=producer,
        view=view,
        signatures=Signatures(KeyRing.parse(settings.key_ring.get_secret_value()), context.clock),
    )
    bodies = Bodies()
    ingest = Ingest(
        door=door,
        log=producer,
        bodies=bodies,
        clock=context.clock,
        observer=IngestMetrics(context.metrics, context.log),
        behind=RateHeaders(application(version("millrace-gateway")), uncounted=door.unknown),
    )
    served = Cors(ingest, parse_origins(settings.cors_origins))
    server = HttpServer(served, host=settings.http_host, port=settings.http_port)
    context.stack.callback(server.close)
    context.log.info("gateway.bound", host=settings.http_host, port=server.port)

    context.stack.push_async_callback(view.stop)
    context.stack.push_async_callback(producer.stop)
    await producer.start()

    context.health.add("http", server.ready)
    context.health.add("log", producer.ready)
    context.health.add("control", lambda: stale(view))
    context.metrics.watch(metric_defs.GATEWAY_IN_FLIGHT, lambda: door.inside)
    context.metrics.watch(metric_defs.GATEWAY_IN_FLIGHT_BYTES, lambda: bodies.held)
    context.metrics.watch(metric_defs.CONTROL_AGE_SECONDS, view.fresh_age_s)
    context.metrics.watch(metric_defs.CONTROL_POSITION, lambda: view.position)
    context.metrics.watch(metric_defs.CONTROL_ENTRIES, lambda: len(keys), "key")
    return {"control": lambda stop: follow(view, stop, context.observer), "http": server.run}


async def follow(view: ControlView, stop: asyncio.Event, observer: Observer) -> None:
    """The control worker. Kafka may be away when the gateway starts: it answers 503 and says why, until it is there."""
    attempt = 0
    while not stop.is_set():
        try:
            await view.start()
            await view.run(stop)
        except Retry as error:
            observer.restarted("control view", str(error))
            await pause(stop, backoff_s(attempt))
            attempt += 1
