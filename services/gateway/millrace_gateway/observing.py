"""What the ingest routes tell, as metrics and log lines. Labelled children are kept: a count then costs 1 µs."""

from prometheus_client import Counter, Histogram
from structlog.typing import FilteringBoundLogger

from millrace_runtime import metric_defs
from millrace_runtime.metrics import METHODS, Metrics
from millrace_web.rate_plans import FIRE

SURFACE = "ingest"
SURFACE_OF = {FIRE: "ops"}
OUTCOMES = ("accepted", "refused", "uncertain")


class IngestMetrics:
    """An `http.IngestObserver`."""

    def __init__(self, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._log = log
        self._requests = metrics.counter(metric_defs.HTTP_REQUESTS)
        self._seconds = metrics.histogram(metric_defs.HTTP_REQUEST_SECONDS)
        self._limited = metrics.counter(metric_defs.GATEWAY_RATE_LIMITED)
        events = metrics.counter(metric_defs.GATEWAY_EVENTS)
        self._events = {outcome: events.labels(outcome) for outcome in OUTCOMES}
        # Routes, methods and statuses are few, so this stays small.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def events(self, outcome: str, count: int) -> None:
        self._events[outcome].inc(count)

    def rate_limited(self, account: str) -> None:
        self._limited.labels(account).inc()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        children = self._children.get((route, method, status))
        if children is None:
            surface = SURFACE_OF.get(route, SURFACE)
            children = self._children[route, method, status] = (
                self._requests.labels(surface, route, method, str(status)),
                self._seconds.labels(surface, route),
            )
        children[0].inc()
        children[1].observe(seconds)

    def bug(self, route: str, request_id: str, error: Exception) -> None:
        self._log.error("request.failed", route=route, request_id=request_id, exc_info=error)
