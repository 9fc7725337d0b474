"""Every metric of every service, declared once: name, kind, help, labels. Dashboards and alerts are checked against it.

Names are `millrace_<service or part>_<thing>_<unit>[_total]`, units are seconds, bytes or plain counts. Which process
a sample is from is the scraper's `job` and `instance` label. Labels have few values; where a metric is about a tenant
it carries the account. A topic label is the catalogue's short name. Plain data: nothing is registered by importing
this (`metrics` does that, for what a service uses).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

# 0.5 ms to 30 s: an awaited ack takes 1 to 5 ms, a transaction 2 to 25, an outside call up to its time-out.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One declaration. A counter's name ends in `_total`, as Prometheus shows it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


_all: dict[str, Metric] = {}


def _declare(metric: Metric) -> Metric:
    if metric.name in _all:
        raise ValueError(f"{metric.name} is declared twice")
    _all[metric.name] = metric
    return metric


def _counter(name: str, help: str, *labels: str) -> Metric:
    return _declare(Metric(name, "counter", help, labels))


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return _declare(Metric(name, "gauge", help, labels))


def _seconds(name: str, help: str, *labels: str) -> Metric:
    return _declare(Metric(name, "histogram", help, labels))


# ── every service ───────────────────────────────────────────────────────────────────────────────────────────────────
SERVICE_INFO = _gauge("millrace_service_info", "1; the labels say what runs.", "service", "version")
SERVICE_READY = _gauge("millrace_service_ready", "1 while /readyz answers 200.")
SERVICE_RESTARTS = _counter(
    "millrace_service_restarts_total", "Lives begun anew by a part inside the process, after an error.", "part"
)

# ── HTTP surfaces ───────────────────────────────────────────────────────────────────────────────────────────────────
HTTP_REQUESTS = _counter("millrace_http_requests_total", "Answers given.", "surface", "route", "method", "status")
HTTP_REQUEST_SECONDS = _seconds(
    "millrace_http_request_seconds", "From the request's head to the end of its answer.", "surface", "route"
)
HTTP_IN_FLIGHT = _gauge("millrace_http_in_flight_requests", "Requests being answered.", "surface")

# ── consumers: processors, lanes, projector ─────────────────────────────────────────────────────────────────────────
CONSUMER_RECORDS = _counter("millrace_consumer_records_total", "Records handled.", "topic", "partition")
CONSUMER_BATCH_SECONDS = _seconds("millrace_consumer_batch_seconds", "Time to handle one batch.", "topic")
CONSUMER_LAG_RECORDS = _gauge(
    "millrace_consumer_lag_records", "Records between the position and the end of the partition.", "topic", "partition"
)
CONSUMER_OLDEST_AGE_SECONDS = _gauge(
    "millrace_consumer_oldest_unprocessed_age_seconds",
    "Age of the oldest record not yet handled; 0 when there is none.",
    "topic",
    "partition",
)
CONSUMER_STOPPED = _gauge(
    "millrace_consumer_stopped_partitions",
    "1 = the partition stopped for good and needs a human: see the log line partition.stopped.",
    "topic",
    "partition",
)
PROCESSOR_TRANSACTION_SECONDS = _seconds(
    "millrace_processor_transaction_seconds", "From begin to the end of the commit of one transaction."
)
LANES_IN_FLIGHT = _gauge("millrace_lanes_in_flight", "Work begun and not ended, by kind.", "what")
DEAD_LETTERS = _counter("millrace_dead_letters_total", "Records parked because they cannot be handled.", "topic")

# ── control view ────────────────────────────────────────────────────────────────────────────────────────────────────
CONTROL_POSITION = _gauge("millrace_control_position_records", "Offset up to which the view has applied `control`.")
CONTROL_AGE_SECONDS = _gauge("millrace_control_age_seconds", "Time since the view was known to be at the end.")
CONTROL_ENTRIES = _gauge("millrace_control_entries", "Aggregates in the view.", "kind")

# ── gateway ─────────────────────────────────────────────────────────────────────────────────────────────────────────
GATEWAY_EVENTS = _counter("millrace_gateway_events_total", "Events posted, by what became of them.", "outcome")
GATEWAY_IN_FLIGHT = _gauge("millrace_gateway_in_flight_events", "Events handed to the producer and not acked.")
GATEWAY_IN_FLIGHT_BYTES = _gauge("millrace_gateway_in_flight_bytes", "Bytes of events not acked.")
GATEWAY_RATE_LIMITED = _counter("millrace_gateway_rate_limited_total", "Requests refused with 429.", "account")

# ── matcher ─────────────────────────────────────────────────────────────────────────────────────────────────────────
MATCHER_EVENTS = _counter("millrace_matcher_events_total", "Events decided, by outcome.", "outcome")
MATCHER_OUTPUTS = _counter("millrace_matcher_outputs_total", "Runs and deliveries asked for.", "kind")
MATCHER_SUBSCRIPTIONS = _gauge("millrace_matcher_subscriptions", "Subscriptions in the index.")
MATCHER_UNIQUE_KEYS = _gauge("millrace_matcher_unique_keys", "Entries in the uniqueKey window.", "partition")

# ── orchestrator, scheduler ─────────────────────────────────────────────────────────────────────────────────────────
ORCHESTRATOR_RUNS = _counter(
    "millrace_orchestrator_runs_total", "Runs ended, by outcome; twice where a transaction was lost.", "outcome"
)
ORCHESTRATOR_LIVE_RUNS = _gauge(
    "millrace_orchestrator_live_runs", "Runs asked for and not ended, also those held back."
)
ORCHESTRATOR_HELD_RUNS = _gauge(
    "millrace_orchestrator_held_runs",
    "Runs that a flow holds back, by what they wait for.",
    "reason",
)
ORCHESTRATOR_HELD_OLDEST_AGE_SECONDS = _gauge(
    "millrace_orchestrator_held_oldest_age_seconds",
    "How long the oldest of them waits, since its event was received or began to gather others; 0 when none does.",
    "reason",
)
ORCHESTRATOR_HELD_STEPS = _gauge(
    "millrace_orchestrator_held_steps", "Steps that wait for a place in their account's share of the executors."
)
SCHEDULER_TIMERS = _gauge("millrace_scheduler_timers", "Timers that wait.")
SCHEDULER_FIRED = _counter("millrace_scheduler_fired_total", "Timers fired; twice where a transaction was lost.")
SCHEDULER_LATE_SECONDS = _seconds("millrace_scheduler_late_seconds", "From a timer's due time to its firing.")

# ── executor, dispatcher ────────────────────────────────────────────────────────────────────────────────────────────
EXECUTOR_ATTEMPTS = _counter("millrace_executor_attempts_total", "Attempts of steps.", "type", "outcome")
EXECUTOR_ATTEMPT_SECONDS = _seconds("millrace_executor_attempt_seconds", "Time of one attempt.", "type")
DISPATCHER_ATTEMPTS = _counter("millrace_dispatcher_attempts_total", "Attempts of deliveries.", "outcome")
DISPATCHER_ATTEMPT_SECONDS = _seconds("millrace_dispatcher_attempt_seconds", "Time of one attempt.")
DISPATCHER_BREAKERS = _gauge("millrace_dispatcher_breakers", "Endpoints by the state of their breaker.", "state")
DISPATCHER_POSTPONED = _counter(
    "millrace_dispatcher_postponed_total", "Deliveries put off to a timer to keep to their endpoint's rate."
)
DISPATCHER_RATE_WAITING = _gauge(
    "millrace_dispatcher_rate_waiting", "Deliveries in the lanes of endpoints that have a rate, waiting for it."
)

# ── projector, API ──────────────────────────────────────────────────────────────────────────────────────────────────
PROJECTOR_ROWS = _counter("millrace_projector_rows_total", "Rows written.", "table")
PROJECTOR_COMMIT_SECONDS = _seconds("millrace_projector_commit_seconds", "Time of one transaction.")
PROJECTOR_POSITION_AGE_SECONDS = _gauge(
    "millrace_projector_position_age_seconds",
    "Age of the oldest record that is not yet in the read models; 0 when there is none.",
    "topic",
    "partition",
)
UNACCOUNTED = _gauge(
    "millrace_unaccounted",
    "Records without an outcome, children never asked for, and runs at no step; NaN before the first count.",
)
UNACCOUNTED_AGE_SECONDS = _gauge(
    "millrace_unaccounted_age_seconds", "Time since this projector last counted; infinite if it never did."
)
UNDECIDED_EVENTS = _gauge(
    "millrace_undecided_events",
    "Records the matcher has passed that have no outcome, by partition of `events`.",
    "partition",
)
OLDEST_UNFINISHED_AGE_SECONDS = _gauge(
    "millrace_oldest_unfinished_age_seconds",
    "How long the oldest of two days waits for a stage, by the read models; 0 when nothing does.",
    "stage",
)
PROJECTOR_DAYS = _gauge(
    "millrace_projector_days",
    "Days of the read models on disk: kept, ahead of today, due (behind every retention and to be dropped).",
    "state",
)
PROJECTOR_OLDEST_DAY_AGE_SECONDS = _gauge(
    "millrace_projector_oldest_day_age_seconds", "Time since the oldest day on disk began; 0 = there is none."
)
PROJECTOR_DAY_FAILURES = _counter(
    "millrace_projector_day_failures_total",
    "Times a day could not be made or dropped, because its tables were in use; a later turn makes up for it.",
    "what",
)
RECEIPT_AGE_SECONDS = _gauge(
    "millrace_receipt_age_seconds",
    "Time since the end of the last day whose receipts are closed, or since the first with facts began; else NaN.",
)
RECEIPT_CONTRADICTIONS = _gauge(
    "millrace_receipt_contradictions", "Accounts and days of which the log has two roots, counted up to 20; must be 0."
)
POSTGRES_CONNECTIONS = _gauge("millrace_postgres_pool_connections", "Connections of the pool.", "state")
CONNECTOR_CALLS = _counter(
    "millrace_connector_calls_total",
    "Calls of connectors, by what came of them: answered, failed, timed_out, busy.",
    "connector",
    "call",
    "outcome",
)
RATE_UNCOUNTED = _counter(
    "millrace_rate_limit_uncounted_total",
    "Requests that passed uncounted because the store of rate limits did not answer.",
)
RELAY_ENTRIES = _counter("millrace_relay_entries_total", "Outbox entries published to `control`.")
RELAY_WAITING = _gauge("millrace_relay_waiting_entries", "Outbox entries not yet published.")
RELAY_OLDEST_AGE_SECONDS = _gauge("millrace_relay_oldest_waiting_age_seconds", "Age of the oldest of them.")
REPLAYS_LIVE = _gauge("millrace_replay_live_replays", "Replays that are not over.", "state")
REPLAY_EVENTS = _counter("millrace_replay_events_total", "Events written to the log again.")
REPLAY_OLDEST_AGE_SECONDS = _gauge(
    "millrace_replay_oldest_waiting_age_seconds",
    "How long the replay that waits longest for its next step does so; 0 when none is live.",
)

# ── meter: rates of the last full 10-second window, approximate ─────────────────────────────────────────────────────
METER_EVENTS = _gauge("millrace_meter_events", "Events in the last window.", "account", "identifier")
METER_RUNS = _gauge("millrace_meter_runs", "Runs in the last window.", "account", "identifier")
METER_DELIVERIES = _gauge("millrace_meter_deliveries", "Deliveries in the last window.", "account", "identifier")
METER_COUNTED = _counter(
    "millrace_meter_counted_total", "Events, runs and deliveries counted since this process started.", "account", "what"
)

METRICS: Mapping[str, Metric] = MappingProxyType(_all)
"""Every declaration, by name."""
