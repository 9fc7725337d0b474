"""Metrics: declared once, well named, and made when asked for."""

import re
from pathlib import Path

import pytest
import structlog

from millrace_kafka.observer import Observer
from millrace_runtime import metric_defs
from millrace_runtime.metrics import HttpMetrics, Metrics, MetricsObserver, short_topic
from millrace_web.observed import HttpObserver

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("metric", metric_defs.METRICS.values(), ids=lambda metric: metric.name)
def test_declarations_are_well_named(metric: metric_defs.Metric) -> None:
    assert re.fullmatch(r"millrace(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_seconds") or metric.kind != "histogram"
    assert metric.help.endswith(".")
    assert all(re.fullmatch(r"[a-z_]+", label) for label in metric.labels)


def test_every_declaration_can_be_made() -> None:
    metrics = Metrics()
    for metric in metric_defs.METRICS.values():
        getattr(metrics, metric.kind)(metric)
    text = metrics.exposition().decode()
    assert all(f"# TYPE {metric.name} {metric.kind}" in text for metric in metric_defs.METRICS.values())


def test_someone_fills_what_is_declared() -> None:
    sources = "".join(path.read_text() for part in ("libs", "services") for path in (ROOT / part).rglob("*.py"))
    used = set(re.findall(r"metric_defs\.([A-Z_]+)", sources))
    declared = {name for name, value in vars(metric_defs).items() if isinstance(value, metric_defs.Metric)}
    assert declared - used == set()


def test_a_metric_is_of_the_kind_it_was_declared() -> None:
    with pytest.raises(TypeError, match="declared as a gauge"):
        Metrics().counter(metric_defs.SERVICE_READY)


def test_the_observer_fills_what_consumers_tell() -> None:
    metrics = Metrics()
    with structlog.testing.capture_logs() as lines:
        observer: Observer = MetricsObserver(metrics, structlog.get_logger())
        observer.batch("millrace.ns.events.v1", 1, 10, 0.2)
        observer.lag("millrace.ns.events.v1", 1, 7, 1.5)
        observer.transaction(0, 0.01)
        observer.in_flight("lanes", 3)
        observer.dead_letter("events", 1, 5, "why")
        observer.restarted("producer", "why")
        observer.stopped("events", 1, "why")
    text = metrics.exposition().decode()
    for sample in (
        'millrace_consumer_records_total{partition="1",topic="events"} 10.0',
        'millrace_consumer_lag_records{partition="1",topic="events"} 7.0',
        'millrace_consumer_oldest_unprocessed_age_seconds{partition="1",topic="events"} 1.5',
        "millrace_processor_transaction_seconds_count 1.0",
        'millrace_lanes_in_flight{what="lanes"} 3.0',
        'millrace_dead_letters_total{topic="events"} 1.0',
        'millrace_service_restarts_total{part="producer"} 1.0',
        'millrace_consumer_stopped_partitions{partition="1",topic="events"} 1.0',
    ):
        assert sample in text
    assert [line["event"] for line in lines] == ["record.dead_lettered", "part.restarted", "partition.stopped"]


def test_http_metrics_count_answers_by_route() -> None:
    metrics = Metrics()
    observer: HttpObserver = HttpMetrics(metrics)
    observer.began("api")
    observer.answered("api", "/v1/jobs/{id}", "GET", 200, 0.1)
    observer.began("api")
    observer.answered("api", "unknown", "BREW", 418, 0.1)
    text = metrics.exposition().decode()
    assert 'method="GET",route="/v1/jobs/{id}",status="200",surface="api"} 1.0' in text
    assert 'method="other"' in text
    assert 'millrace_http_in_flight_requests{surface="api"} 0.0' in text


@pytest.mark.parametrize("topic", ["events", "millrace.events.v1", "millrace.a.b.events.v1"])
def test_topics_are_labelled_by_their_short_name(topic: str) -> None:
    assert short_topic(topic) == "events"
